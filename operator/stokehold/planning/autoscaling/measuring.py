"""How many replicas the load asks for, by each metric of a pool, or why that cannot be said. Pure.

A number for the whole pool is the sum over its replicas divided by the target. A ready replica that gives no metrics
counts as busy up to the target. Of several metrics the one that asks for most decides; one that cannot be read leaves
open whether it would have asked for more, so then the number may rise and not fall.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from stokehold.api.v1alpha1.inference_pool import InferencePoolSpec, Metric, Scaling
from stokehold.model.engines import Raw, names_of
from stokehold.model.load import PoolLoad, Signal, Source
from stokehold.model.reasons import Metrics
from stokehold.model.snapshot import ServingPool
from stokehold.planning.autoscaling.settings import AutoscalingSettings

DEFAULT_METRICS = (Metric.model_validate({"type": "Concurrency", "target": "32"}),)
MOST_REPLICAS = 10**6
"""A number that no pool reaches; keeps absurd readings finite."""


@dataclass(frozen=True, slots=True)
class Need:
    """So many replicas are needed; `missing` of those that were asked have not answered."""

    replicas: int
    message: str
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of the load: the need, if anything could be read, and the condition MetricsFresh.

    `certain` when nothing is missing that could ask for more.
    """

    need: Need | None
    certain: bool
    fresh: bool | None
    reason: Metrics
    message: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A metric that cannot be read, and what was tried; `begins` while no replica could be asked yet."""

    message: str
    begins: bool = False


def metrics_of(spec: InferencePoolSpec) -> tuple[Metric, ...]:
    """What the pool is scaled by."""
    return (spec.scaling.metrics if spec.scaling else ()) or DEFAULT_METRICS


def wakes_by_itself(spec: InferencePoolSpec) -> bool:
    """Whether load can be seen while there is no replica: by a query alone."""
    return any(metric.type == "Prometheus" for metric in metrics_of(spec))


def measure(pool: ServingPool, load: PoolLoad | None, now: datetime, settings: AutoscalingSettings) -> Measured:
    """What the pool's load asks for."""
    view = _View(pool, load, now, settings)
    results = [_by_metric(metric, view) for metric in metrics_of(pool.spec)]
    needs = [result for result in results if isinstance(result, Need)]
    unread = [result for result in results if isinstance(result, Unread)]
    need = max(needs, key=lambda need: need.replicas, default=None)
    told = "; ".join(result.message for result in unread)
    if unread and all(result.begins for result in unread):
        return Measured(need, False, None, Metrics.NO_REPLICA_READY, told)
    if unread or need is None:
        return Measured(need, False, False, Metrics.MISSING, told)
    missing = next((need.missing for need in needs if need.missing), "")
    if missing:
        return Measured(need, False, True, Metrics.PARTLY_MISSING, missing)
    kinds = ", ".join(sorted({metric.type for metric in metrics_of(pool.spec)}))
    return Measured(need, True, True, Metrics.FRESH, f"what the pool is scaled by was read lately: {kinds}")


class _View:
    """The pool's ready replicas and queries, with the readings that are fresh enough."""

    def __init__(self, pool: ServingPool, load: PoolLoad | None, now: datetime, settings: AutoscalingSettings) -> None:
        self.scaling = pool.spec.scaling or Scaling()
        self.port = pool.spec.port
        self.ready = [pod for pod in pool.pods if pod.ready and pod.is_active]
        self.queries: Mapping[str, Source] = load.queries if load else {}
        sources = load.replicas if load else {}
        # A replica that became ready only just now has not been asked yet: neither missing nor idle.
        self.asked = {pod.name: sources[pod.uid] for pod in self.ready if pod.uid in sources}
        self._now = now
        self._fresh_for = settings.fresh_for

    def values(self, source: Source) -> Mapping[Signal, float]:
        """What the source said, if that is fresh; else nothing."""
        reading = source.reading
        if reading is None or self._now - reading.at > self._fresh_for:
            return {}
        return reading.values

    def fresh(self, *wanted: Signal) -> list[Mapping[Signal, float]]:
        """The readings that have all of the signals."""
        readings = [self.values(source) for source in self.asked.values()]
        return [values for values in readings if all(signal in values for signal in wanted)]

    def silent(self, *wanted: Signal) -> list[str]:
        """What became of each replica that did not give all of the signals."""
        return [
            f"{name} at {source.address}: {source.problem or 'not among its fresh metrics'}"
            for name, source in sorted(self.asked.items())
            if any(signal not in self.values(source) for signal in wanted)
        ]


def _by_metric(metric: Metric, view: _View) -> Need | Unread:
    target = float(metric.target)
    match metric.type:
        case "Prometheus":
            return _by_query(metric.query or "", target, view)
        case "GPU":
            return Unread("GPU: the node agent does not tell the operator how busy GPUs are; use another type")
        case "Concurrency":
            drain = max(1.0, float(view.scaling.drain_seconds))
            wanted = (Signal.RUNNING, Signal.WAITING)
            return _by_replicas("Concurrency", wanted, target, view, lambda values: concurrency(values, drain))
        case "Queue":
            return _by_replicas("Queue", (Signal.WAITING,), target, view, lambda values: values[Signal.WAITING])
        case "RequestRate":
            return _by_replicas("RequestRate", (Signal.ARRIVALS,), target, view, lambda v: v[Signal.ARRIVALS])
        case "KVCache":
            return _by_replicas("KVCache", (Signal.KV_CACHE,), target, view, lambda values: values[Signal.KV_CACHE])


def concurrency(values: Mapping[Signal, float], drain_seconds: float) -> float:
    """Requests that should be in work at once: those that come in, and those that must start to work off the queue.

    By Little's law what comes in keeps arrivals x service time requests in work; what is in work already is the
    least. A request that waits needs its service time out of every `drain_seconds` of one place, and never more than
    one place. Example: 4/s x 5 s = 20, and 30 that wait x 5 s / 30 s = 5, make 25.
    """
    running, waiting = values[Signal.RUNNING], values[Signal.WAITING]
    service = values.get(Signal.SERVICE_SECONDS)
    if service is None:
        return running + waiting
    in_work = max(running, values.get(Signal.ARRIVALS, 0.0) * service)
    return in_work + waiting * min(1.0, service / drain_seconds)


def _by_replicas(
    name: str, wanted: tuple[Signal, ...], target: float, view: _View, amount: Callable[[Mapping[Signal, float]], float]
) -> Need | Unread:
    engine, names = view.scaling.engine, names_of(view.scaling.engine, *_RAW[name])
    if not names:
        return Unread(f"{name}: engine {engine} does not tell it; use type Prometheus, or name another engine")
    if not view.asked:
        return Unread(f"{name}: no replica is ready and has been asked yet", begins=True)
    readings, silent = view.fresh(*wanted), view.silent(*wanted)
    told = f"{len(silent)} of {len(view.asked)} replicas gave no {names} (with ':' or '_'): {''.join(silent[:1])}"
    if not readings or len(silent) > len(readings):
        return Unread(f"{name}: {told}")
    total = sum(map(amount, readings))
    replicas = _ceil(total / target) + len(silent)
    message = f"{name} is {total:.4g} in all, {target:g} for each replica"
    return Need(replicas, message, f"{told}; such a replica counts as busy" if silent else "")


def _by_query(query: str, target: float, view: _View) -> Need | Unread:
    source = view.queries.get(query)
    if source is None:
        return Unread("Prometheus: the query has not been asked yet")
    total = view.values(source).get(Signal.TOTAL)
    if total is None:
        return Unread(f"Prometheus at {source.address}: {source.problem or 'its answer is old'}; query {query}")
    return Need(_ceil(total / target), f"the query gives {total:.4g} in all, {target:g} for each replica")


def _ceil(amount: float) -> int:
    return MOST_REPLICAS if amount >= MOST_REPLICAS else math.ceil(amount - 1e-9)  # infinity has no ceiling


_RAW: Mapping[str, tuple[Raw, ...]] = {
    "Concurrency": (Raw.RUNNING, Raw.WAITING),
    "Queue": (Raw.WAITING,),
    "RequestRate": (Raw.FINISHED,),
    "KVCache": (Raw.KV_CACHE,),
}

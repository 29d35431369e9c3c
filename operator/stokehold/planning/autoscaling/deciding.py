"""How many replicas a pool should have now, from what it had, its bounds and its load. Pure.

bounds    replicas.min or the schedule's floor, whichever is higher, up to replicas.max
external  another autoscaler's number, within replicas.min and replicas.max: nothing else counts. So it is in mode
          External, and whenever a HorizontalPodAutoscaler scales the pool
up        at once, when the load asks for more
down      when fewer were enough for the whole of scaleDownDelay: to the most that was needed in that time
unknown   held; when it lasts, raised to what was needed lately; never to zero
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.v1alpha1.inference_pool import ScaleDown, Scaling
from stokehold.model import reasons
from stokehold.model.load import PoolLoad
from stokehold.model.snapshot import ServingPool
from stokehold.model.statuses import whole
from stokehold.planning.autoscaling.measuring import Measured, Need, measure, wakes_by_itself
from stokehold.planning.autoscaling.schedule import scheduled_floor
from stokehold.planning.autoscaling.settings import AutoscalingSettings


@dataclass(frozen=True, slots=True)
class Verdict:
    """The wanted number of replicas, why it is another one than before, and what is about to be given back."""

    replicas: int
    reason: reasons.Scaling | None
    message: str
    measured: Measured
    scale_down: ScaleDown | None = None


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The fewest and the most replicas at this moment, and why so few are the fewest."""

    least: int
    most: int
    reason: reasons.Scaling
    message: str

    def clamp(self, replicas: int) -> int:
        return max(self.least, min(self.most, replicas))


def decide(
    pool: ServingPool, loads: Mapping[tuple[str, str], PoolLoad], now: datetime, settings: AutoscalingSettings
) -> Verdict:
    """The number of replicas that the pool should have now."""
    scaling = pool.spec.scaling or Scaling()
    if scaling.mode == "External" or pool.autoscaler is not None:
        return _follow(pool, scaling, now)
    load = loads.get(pool.key)
    measured = measure(pool, load, now, settings)
    bounds, had = _bounds(pool, scaling, now), _had(pool)
    within = bounds.clamp(1 if had is None else had)
    if measured.need is None or not measured.certain:
        rising = _rise(pool, measured, bounds, within, now, settings)
        if rising is not None:
            return rising
    if measured.need is not None:
        wanted = _wanted(pool, measured, bounds)
        if wanted > within:
            return _up(wanted, measured.need, measured, bounds)
        if wanted < within and measured.certain:
            return _down(pool, wanted, within, bounds, measured, load, now)
    return _held(had, within, bounds, measured)


def _follow(pool: ServingPool, scaling: Scaling, now: datetime) -> Verdict:
    """Stand aside: the number of the scale subresource, within min and max."""
    replicas, had = pool.spec.replicas, _had(pool)
    measured = Measured(None, False, None, reasons.Metrics.EXTERNAL, _who_decides(pool, scaling))
    if scaling.mode == "Operator" and pool.autoscaler is not None and not pool.autoscaler.decides:
        bounds = _bounds(pool, scaling, now)  # spec.replicas.desired is nobody's word yet
        return _held(had, bounds.clamp(1 if had is None else had), bounds, measured)
    wanted = max(replicas.min, min(replicas.max, replicas.desired))
    told = f"spec.replicas.desired is {replicas.desired}, between {replicas.min} and {replicas.max}"
    return Verdict(wanted, None if wanted == had else reasons.Scaling.EXTERNAL_SCALE, told, measured)


def _who_decides(pool: ServingPool, scaling: Scaling) -> str:
    """The same words until something changes: each other is a write."""
    other = pool.autoscaler
    if scaling.mode == "External" or other is None:
        return "an external autoscaler decides"
    name = f"HorizontalPodAutoscaler {other.name}"
    if not other.decides:
        return f"{name} scales this pool and has not set a number yet: as many as before are kept; see its status"
    return f"{name} scales this pool: its number counts until it is deleted, and nothing is measured here"


def _had(pool: ServingPool) -> int | None:
    """The number that was decided last; without a record the Deployment's own is kept."""
    if pool.status.desired_replicas is not None:
        return pool.status.desired_replicas
    return pool.pod_set.replicas if pool.pod_set is not None else None


def _bounds(pool: ServingPool, scaling: Scaling, now: datetime) -> _Bounds:
    low, high = pool.spec.replicas.min, pool.spec.replicas.max
    scheduled = min(high, scheduled_floor(scaling.schedule, now))
    if scheduled > low:
        told = f"scaling.schedule asks for at least {scheduled}"
        return _Bounds(scheduled, high, reasons.Scaling.SCHEDULED_FLOOR, told)
    return _Bounds(low, high, reasons.Scaling.RAISED_TO_MIN, f"replicas.min is {low}")


def _wanted(pool: ServingPool, measured: Measured, bounds: _Bounds) -> int:
    """What the load asks for, within bounds; zero only where something can wake the pool again."""
    need = measured.need.replicas if measured.need is not None else 1
    least = 0 if wakes_by_itself(pool.spec) else 1
    return bounds.clamp(max(least, need))


def _up(wanted: int, need: Need, measured: Measured, bounds: _Bounds) -> Verdict:
    if need.replicas > bounds.most:
        told = f"{need.message}: {need.replicas} are needed, replicas.max is {bounds.most}"
        return Verdict(wanted, reasons.Scaling.CAPPED_BY_MAX, told, measured)
    return Verdict(wanted, reasons.Scaling.LOAD_ROSE, need.message, measured)


def _down(  # noqa: PLR0913 - each is a value of its own
    pool: ServingPool,
    wanted: int,
    within: int,
    bounds: _Bounds,
    measured: Measured,
    load: PoolLoad | None,
    now: datetime,
) -> Verdict:
    """Only after the delay, and to the most that was needed in it; a new process watches for as long first."""
    told = pool.status.scale_down
    since = told.since if told is not None else whole(now)
    most = bounds.clamp(max(wanted, told.replicas)) if told is not None else wanted
    if most >= within:  # the bounds have moved
        since, most = whole(now), wanted
    watched_since = max(since, load.watched_since) if load is not None else now
    delay = (pool.spec.scaling or Scaling()).scale_down_delay
    if now - watched_since < delay.to_timedelta():
        held = _held(_had(pool), within, bounds, measured)
        return replace(held, scale_down=ScaleDown(since=since, replicas=most))
    if not delay.nanoseconds:
        most = wanted
    reason = reasons.Scaling.LOAD_FELL if most else reasons.Scaling.NO_LOAD
    need = measured.need.message if measured.need is not None else ""
    # Who was needed for a moment in that time may not be needed for the next such time.
    rest = ScaleDown(since=whole(now), replicas=wanted) if wanted < most else None
    return Verdict(most, reason, f"at most {most} were needed for {delay}; now {need}", measured, rest)


def _rise(
    pool: ServingPool,
    measured: Measured,
    bounds: _Bounds,
    within: int,
    now: datetime,
    settings: AutoscalingSettings,
) -> Verdict | None:
    """What was needed lately, once the load has been unknown for long; one replica at least."""
    if measured.fresh is not False:
        return None
    told = find_condition(pool.status.conditions, conditions.METRICS_FRESH)
    lost_at = told.last_transition_time if told is not None and told.status == conditions.FALSE else None
    if lost_at is None or now - lost_at < settings.raise_after:
        return None
    lately = [
        decision.replicas or 0
        for decision in pool.status.decisions
        if decision.time is not None and now - decision.time <= settings.recent
    ]
    raised = bounds.clamp(max(1, *lately, within))
    asked = measured.need.replicas if measured.need is not None else 0
    if raised <= within or asked > raised:
        return None
    told_since = f"the load is unknown since {lost_at:%H:%M:%S} UTC"
    return Verdict(raised, reasons.Scaling.METRICS_MISSING, f"{told_since}; {raised} were needed lately", measured)


def _held(had: int | None, within: int, bounds: _Bounds, measured: Measured) -> Verdict:
    """As many as before, unless the bounds have moved."""
    if had is None:
        return Verdict(within, reasons.Scaling.CREATED, f"begins with {within}", measured)
    if within == had:
        return Verdict(within, None, "", measured)
    if within > had:
        return Verdict(within, bounds.reason, bounds.message, measured)
    return Verdict(within, reasons.Scaling.CAPPED_BY_MAX, f"replicas.max is {bounds.most}", measured)

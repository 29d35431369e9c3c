"""What the watches hold -> `model.Snapshot`: the only reader. Incremental: each object is converted once per change.

The indexes here answer two questions without a walk over all pods: what each node's pods request, and which pods
belong to which job. A snapshot is then a few shallow copies, so planners may take as long as they like with it.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Generic, TypeVar

from stokehold.cluster.reading import Unreadable, settle
from stokehold.cluster.store import Key
from stokehold.model.accounting import total
from stokehold.model.snapshot import (
    Job,
    Namespace,
    Node,
    NodePool,
    Pod,
    PriorityClass,
    Queue,
    Resources,
    Snapshot,
)

T = TypeVar("T")
Wake = Callable[[], None]
Clock = Callable[[], datetime]


class Shelf(Generic[T]):
    """Values by name, of a kind that needs no index; wakes the cycle when one changes."""

    def __init__(self, wake: Wake) -> None:
        self.values: dict[str, T] = {}
        self._wake = wake

    def on_upsert(self, key: Key, old: T | None, new: T) -> None:
        """Keep the new value."""
        self.values[key[1]] = new
        if old != new:
            self._wake()

    def on_delete(self, key: Key, old: T) -> None:
        """Forget it."""
        self.values.pop(key[1], None)
        self._wake()


class Nodes:
    """Nodes by name; remembers which device plugins came back only just now."""

    def __init__(self, wake: Wake, clock: Clock) -> None:
        self.values: dict[str, Node] = {}
        self._wake = wake
        self._clock = clock

    def on_upsert(self, key: Key, old: Node | None, new: Node) -> None:
        """Keep the new value, with the time from which its devices may be trusted."""
        before = self.values.get(new.name)
        settled = settle(before, new, self._clock())
        self.values[new.name] = settled
        if before != settled:  # a kubelet's heartbeat changes nothing that a plan looks at
            self._wake()

    def on_delete(self, key: Key, old: Node) -> None:
        """Forget it."""
        self.values.pop(old.name, None)
        self._wake()


class Pods:
    """Pods by their node and by their job; only live ones count against a node."""

    def __init__(self, wake: Wake) -> None:
        self.by_owner: dict[str, dict[Key, Pod]] = {}
        self.strays: dict[Key, Pod] = {}
        """Workers without an owner; nobody's job."""
        self._by_node: dict[str, dict[Key, Resources]] = {}
        self._used: dict[str, Resources] = {}
        self._stale: set[str] = set()
        self._wake = wake

    def on_upsert(self, key: Key, old: Pod | None, new: Pod) -> None:
        """Move the pod to where it belongs now."""
        if old == new:
            return
        if old is not None:
            self._take_out(key, old)
        if new.node and not new.is_over:
            self._by_node.setdefault(new.node, {})[key] = new.requests
            self._stale.add(new.node)
        if new.worker is not None:
            self._home(new)[key] = new
        self._wake()

    def on_delete(self, key: Key, old: Pod) -> None:
        """Forget it; what it held is free."""
        self._take_out(key, old)
        self._wake()

    def used(self) -> dict[str, Resources]:
        """The sum of requests by node; only nodes whose pods changed are added up again."""
        for node in self._stale:
            pods = self._by_node.get(node)
            if pods:
                self._used[node] = total(pods.values())
            else:
                self._used.pop(node, None)
        self._stale.clear()
        return dict(self._used)

    def _home(self, pod: Pod) -> dict[Key, Pod]:
        return self.by_owner.setdefault(pod.owner_uid, {}) if pod.owner_uid else self.strays

    def _take_out(self, key: Key, pod: Pod) -> None:
        if pod.node and (pods := self._by_node.get(pod.node)) is not None:
            pods.pop(key, None)
            if not pods:
                del self._by_node[pod.node]
            self._stale.add(pod.node)
        if pod.worker is None:
            return
        home = self._home(pod)
        home.pop(key, None)
        if pod.owner_uid and not home:
            del self.by_owner[pod.owner_uid]


class Jobs:
    """TrainingJobs by namespace and name, and those that nobody can read."""

    def __init__(self, wake: Wake) -> None:
        self.values: dict[Key, Job] = {}
        self.unreadable: dict[Key, Unreadable] = {}
        self._wake = wake

    def on_upsert(self, key: Key, old: Job | Unreadable | None, new: Job | Unreadable) -> None:
        """Keep the new value."""
        self._forget(key)
        if isinstance(new, Job):
            self.values[key] = new
        else:
            self.unreadable[key] = new
        self._wake()

    def on_delete(self, key: Key, old: Job | Unreadable) -> None:
        """Forget it."""
        self._forget(key)
        self._wake()

    def _forget(self, key: Key) -> None:
        self.values.pop(key, None)
        self.unreadable.pop(key, None)


class Cluster:
    """All indexes together; `snapshot` freezes them."""

    def __init__(self, wake: Wake, clock: Clock) -> None:
        self.nodes = Nodes(wake, clock)
        self.pods = Pods(wake)
        self.jobs = Jobs(wake)
        self.queues: Shelf[Queue] = Shelf(wake)
        self.node_pools: Shelf[NodePool] = Shelf(wake)
        self.priority_classes: Shelf[PriorityClass] = Shelf(wake)
        self.namespaces: Shelf[Namespace] = Shelf(wake)
        self._refusals: dict[str, tuple[str, datetime]] = {}
        self._clock = clock

    def note_refusal(self, job: Job, message: str) -> None:
        """Remember in whose words the API server refused a job's pods; an empty message forgets it."""
        if message:
            self._refusals[job.uid] = (message, self._clock())
        else:
            self._refusals.pop(job.uid, None)

    def snapshot(self) -> Snapshot:
        """The cluster now."""
        jobs = {key: self._with_pods(job) for key, job in self.jobs.values.items()}
        return Snapshot(
            taken_at=self._clock(),
            nodes=dict(self.nodes.values),
            used=self.pods.used(),
            jobs=jobs,
            orphans=self._orphans(jobs),
            node_pools=dict(self.node_pools.values),
            queues=dict(self.queues.values),
            priority_classes=dict(self.priority_classes.values),
            namespaces=dict(self.namespaces.values),
        )

    def _with_pods(self, job: Job) -> Job:
        pods = self.pods.by_owner.get(job.uid)
        refusal = self._refusals.get(job.uid) if self._refusals else None
        if pods is None and refusal is None:
            return job
        message, at = refusal or ("", None)
        return replace(job, pods=tuple((pods or {}).values()), create_error=message, create_failed_at=at)

    def _orphans(self, jobs: dict[Key, Job]) -> tuple[Pod, ...]:
        """Workers without a job. One whose job cannot be read has a job all the same, and is left alone."""
        alive = {job.uid for job in jobs.values()} | {bad.uid for bad in self.jobs.unreadable.values()}
        gone = [pods for uid, pods in self.pods.by_owner.items() if uid not in alive]
        for uid in [uid for uid in self._refusals if uid not in alive]:
            del self._refusals[uid]
        return (*self.pods.strays.values(), *(pod for pods in gone for pod in pods.values()))

"""Values by what they are looked up by, kept current by the watches; each wakes the cycle when one has changed.

Two of them answer without a walk over all pods: what each node's pods request, and which pods belong to which job.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from stokehold.cluster.own_kinds import Unreadable
from stokehold.cluster.reading.nodes import settle
from stokehold.cluster.store import Key
from stokehold.model.accounting import Resources, total
from stokehold.model.kubelets import is_refusal
from stokehold.model.pods import Member, Pod, PodSet
from stokehold.model.snapshot import Job, Node, Workspace

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


class Namespaced(Generic[T]):
    """Values by namespace and name; wakes the cycle when one changes."""

    def __init__(self, wake: Wake) -> None:
        self.values: dict[Key, T] = {}
        self._wake = wake

    def on_upsert(self, key: Key, old: T | None, new: T) -> None:
        """Keep the new value."""
        self.values[key] = new
        if old != new:
            self._wake()

    def on_delete(self, key: Key, old: T) -> None:
        """Forget it."""
        self.values.pop(key, None)
        self._wake()


class PodSets:
    """StatefulSets or Deployments by the uid of the object of ours that owns them."""

    def __init__(self, wake: Wake) -> None:
        self.by_owner: dict[str, PodSet] = {}
        self._wake = wake

    def on_upsert(self, key: Key, old: PodSet | None, new: PodSet) -> None:
        """Keep the new value."""
        self.by_owner[new.owner_uid] = new
        if old != new:
            self._wake()

    def on_delete(self, key: Key, old: PodSet) -> None:
        """Forget it."""
        self.by_owner.pop(old.owner_uid, None)
        self._wake()


class Owners:
    """Of the children of one kind the uids of those that have one."""

    def __init__(self, wake: Wake) -> None:
        self._by_key: dict[Key, str] = {}
        self._wake = wake

    def on_upsert(self, key: Key, old: str | None, new: str) -> None:
        """Keep the new value."""
        self._by_key[key] = new
        if old != new:
            self._wake()

    def on_delete(self, key: Key, old: str) -> None:
        """Forget it."""
        self._by_key.pop(key, None)
        self._wake()

    def uids(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self._by_key.values())


class Nodes:
    """Nodes by name; remembers which device plugins came back only just now."""

    def __init__(self, wake: Wake, clock: Clock, settle_time: timedelta) -> None:
        self.values: dict[str, Node] = {}
        self._wake = wake
        self._clock = clock
        self._settle_time = settle_time

    def on_upsert(self, key: Key, old: Node | None, new: Node) -> None:
        """Keep the new value, with the time from which its devices may be trusted."""
        before = self.values.get(new.name)
        settled = settle(before, new, self._clock(), self._settle_time)
        self.values[new.name] = settled
        if before != settled:  # a kubelet's heartbeat changes nothing that a plan looks at
            self._wake()

    def on_delete(self, key: Key, old: Node) -> None:
        """Forget it."""
        self.values.pop(old.name, None)
        self._wake()


class Pods:
    """Pods by their node and by their job; live ones count against a node, and corpses that somebody holds."""

    def __init__(self, wake: Wake, hurry: Wake = lambda: None) -> None:
        """`hurry` is called for each workspace's pod that a kubelet did not take: its StatefulSet makes another."""
        self.by_owner: dict[str, dict[Key, Pod]] = {}
        self.strays: dict[Key, Pod] = {}
        """What looks like a worker and has no owner: nobody's job."""
        self.by_member: dict[tuple[str, Member], dict[Key, Pod]] = {}
        """Pods of workspaces and of serving pools, by namespace and label."""
        self.leaving: dict[Key, Pod] = {}
        """Those on a node that are being deleted."""
        self._fresh: dict[Key, Pod] = {}
        self._refused: list[Pod] = []
        self._by_node: dict[str, dict[Key, Pod]] = {}
        self._used: dict[str, Resources] = {}
        self._tenants: dict[str, tuple[str, ...]] = {}
        self._stale: set[str] = set()
        self._wake = wake
        self._hurry = hurry

    def on_upsert(self, key: Key, old: Pod | None, new: Pod) -> None:
        """Move the pod to where it belongs now."""
        if old == new:
            return
        if old is not None:
            self._take_out(key, old)
        elif new.worker is not None or new.member is not None:
            self._fresh[key] = new
        if _was_desk_refused(new) and not (old is not None and old.is_over):
            self._refused.append(new)
            self._hurry()
        if new.node and new.holds_resources:
            self._by_node.setdefault(new.node, {})[key] = new
            self._stale.add(new.node)
            if new.terminating_since is not None:
                self.leaving[key] = new
        if (home := self._home(new)) is not None:
            home[key] = new
        self._wake()

    def on_delete(self, key: Key, old: Pod) -> None:
        """Forget it; what it held is free."""
        self._fresh.pop(key, None)
        self._take_out(key, old)
        self._wake()

    def take_fresh(self) -> list[Pod]:
        """Those of ours that have been seen for the first time since the last call, as they were then."""
        fresh, self._fresh = list(self._fresh.values()), {}
        return fresh

    def take_refused(self) -> list[Pod]:
        """The workspaces' pods that a kubelet did not take, since the last call."""
        refused, self._refused = self._refused, []
        return refused

    def used(self) -> dict[str, Resources]:
        """The sum of requests by node; only nodes whose pods changed are added up again."""
        self._refresh()
        return dict(self._used)

    def tenants(self) -> dict[str, tuple[str, ...]]:
        """The pods by node that are not the node's own, as NAMESPACE/NAME."""
        self._refresh()
        return dict(self._tenants)

    def _refresh(self) -> None:
        for node in self._stale:
            pods = self._by_node.get(node, {})
            guests = tuple(sorted("/".join(key) for key, pod in pods.items() if not pod.of_node and not pod.held))
            _set_or_drop(self._used, node, total(pod.requests for pod in pods.values()))
            _set_or_drop(self._tenants, node, guests)
        self._stale.clear()

    def _home(self, pod: Pod) -> dict[Key, Pod] | None:
        """Labels are anybody's to change: what a TrainingJob owns or our finalizer holds is let go all the same."""
        if pod.of_job or (pod.worker is not None and pod.owner_uid):
            return self.by_owner.setdefault(pod.owner_uid, {})
        if pod.worker is not None or pod.tracked or (pod.member is not None and pod.member.kind == Job.KIND):
            return self.strays
        if pod.member is not None:
            return self.by_member.setdefault((pod.namespace, pod.member), {})
        return None

    def _take_out(self, key: Key, pod: Pod) -> None:
        self.leaving.pop(key, None)
        if pod.node and (pods := self._by_node.get(pod.node)) is not None:
            pods.pop(key, None)
            if not pods:
                del self._by_node[pod.node]
            self._stale.add(pod.node)
        home = self._home(pod)
        if home is None:
            return
        home.pop(key, None)
        if home:
            return
        if home is not self.strays and (pod.of_job or pod.worker is not None):
            self.by_owner.pop(pod.owner_uid, None)
        elif pod.member is not None:
            self.by_member.pop((pod.namespace, pod.member), None)


def _was_desk_refused(pod: Pod) -> bool:
    """Anybody can make a pod that looks like a workspace's; those of a StatefulSet have a controller."""
    of_desk = pod.member is not None and pod.member.kind == Workspace.KIND
    return of_desk and bool(pod.owner_uid) and is_refusal(pod.phase, pod.reason)


def _set_or_drop(index: dict[str, T], key: str, value: T) -> None:
    if value:
        index[key] = value
    else:
        index.pop(key, None)


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

"""What pods ask for beyond their spec: a LimitRange, a RuntimeClass or somebody's webhook has added it.

Only a pod tells, so it is learnt from those that come back, and from tries (`apply/trials`), for all that have the same
shape and live in the same namespace. It is forgotten after a while, for nobody tells when that changes. In memory
only: a new leader learns it from young pods, or from a try.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from stokehold.cluster.indexes import Clock
from stokehold.cluster.store import Key
from stokehold.model import names
from stokehold.model.demand import Amounts, asking, beyond
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job, Workspace

REMEMBERED = timedelta(minutes=30)

W = TypeVar("W", Job, Workspace)


@dataclass(frozen=True, slots=True)
class Addition:
    """What a pod that was created at `time` asked for, of that of which it was more than its spec says, if anything."""

    time: datetime
    amounts: Amounts


class Additions:
    """The newest by namespace and shape."""

    def __init__(self, clock: Clock) -> None:
        self._known: dict[tuple[str, str], Addition] = {}
        self._clock = clock

    def learn_from_workers(self, pods: Iterable[Pod], jobs: Mapping[Key, Job]) -> None:
        """Compare workers that were seen for the first time with what was planned for them."""
        for pod in pods:
            job = jobs.get((pod.namespace, pod.worker.job)) if pod.worker is not None else None
            if job is None or pod.worker is None:
                continue
            if (pod.owner_uid, pod.worker.generation) == (job.uid, job.generation):
                self.note(job, pod)

    def learn_from_workspaces(self, pods: Iterable[Pod], workspaces: Iterable[Workspace]) -> None:
        """The same for the pods of workspaces."""
        theirs = [pod for pod in pods if pod.owner_uid and pod.member is not None and pod.member.kind == Workspace.KIND]
        by_label = {(one.namespace, names.label_value(one.name)): one for one in workspaces} if theirs else {}
        for pod in theirs:
            owner = by_label.get((pod.namespace, pod.member.name)) if pod.member is not None else None
            if owner is not None:
                self.note(owner, pod)

    def forget_old(self) -> None:
        """What was seen too long ago may not be so any more."""
        if self._known:
            oldest = self._clock() - REMEMBERED
            self._known = {key: one for key, one in self._known.items() if one.time > oldest}

    def counted(self, owner: W) -> W:
        """The object with the demand that its pods will have."""
        amounts = self.added_to(owner)
        return replace(owner, added=amounts, demand=asking(owner.demand, amounts)) if amounts else owner

    def added_to(self, owner: Job | Workspace) -> Amounts | None:
        """What is added to its pods; None while nobody knows."""
        known = self._known.get((owner.namespace, owner.shape)) if self._known else None
        return known.amounts if known is not None else None

    def note(self, owner: Job | Workspace, pod: Pod) -> None:
        """What a pod of an object shows; `owner` is as it was read, without additions."""
        if pod.created_at is not None:
            self._learn(owner, Addition(pod.created_at, beyond(owner.demand, pod.requests)))

    def note_untried(self, owner: Job | Workspace) -> None:
        """No pod of it can be tried: its first one will tell."""
        self._learn(owner, Addition(self._clock(), ()))

    def _learn(self, owner: Job | Workspace, found: Addition) -> None:
        known = self._known.get((owner.namespace, owner.shape))
        if known is None or known.time <= found.time:
            self._known[owner.namespace, owner.shape] = found

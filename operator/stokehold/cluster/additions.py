"""What pods ask for beyond their spec: a LimitRange, a RuntimeClass or somebody's webhook has added it.

Nobody tells before a pod is there, so it is learnt from those that come back, for all that have the same shape and
live in the same namespace. It is forgotten after a while, for nobody tells either when nothing is added any more: one
more try finds that out. In memory only; a new leader learns it from young pods, or from one try.
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
    """What a pod that was created at `time` asked for, of that of which it was more than its spec says."""

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
                self._note(job, pod)

    def learn_from_workspaces(self, pods: Iterable[Pod], workspaces: Iterable[Workspace]) -> None:
        """The same for the pods of workspaces."""
        theirs = [pod for pod in pods if pod.owner_uid and pod.member is not None and pod.member.kind == Workspace.KIND]
        by_label = {(one.namespace, names.label_value(one.name)): one for one in workspaces} if theirs else {}
        for pod in theirs:
            owner = by_label.get((pod.namespace, pod.member.name)) if pod.member is not None else None
            if owner is not None:
                self._note(owner, pod)

    def forget_old(self) -> None:
        """What was seen too long ago may not be so any more."""
        if self._known:
            oldest = self._clock() - REMEMBERED
            self._known = {key: one for key, one in self._known.items() if one.time > oldest}

    def counted(self, owner: W) -> W:
        """The object with the demand that its pods will have."""
        known = self._known.get((owner.namespace, owner.shape)) if self._known else None
        if known is None:
            return owner
        return replace(owner, added=known.amounts, demand=asking(owner.demand, known.amounts))

    def _note(self, owner: Job | Workspace, pod: Pod) -> None:
        key, time = (owner.namespace, owner.shape), pod.created_at
        known = self._known.get(key)
        if time is None or (known is not None and known.time > time):
            return
        self._known.pop(key, None)
        if added := beyond(owner.demand, pod.requests):
            self._known[key] = Addition(time, added)

"""Which StatefulSets' pods a kubelet did not take.

A StatefulSet's controller deletes such a pod and makes the same again within milliseconds, on the same node and for
ever, so no snapshot can be relied on to see one: the watch is asked. What was done about it stands on the StatefulSet.
"""

from collections.abc import Iterable
from dataclasses import replace

from stokehold.cluster.indexes import Clock
from stokehold.model.kubelets import Refusal
from stokehold.model.pods import Pod, PodSet


class KubeletRefusals:
    """The last refusal by uid of the StatefulSet, for as long as its pod is wanted where it was refused."""

    def __init__(self, clock: Clock) -> None:
        self._last: dict[str, Refusal] = {}
        self._clock = clock

    def learn(self, refused: Iterable[Pod]) -> None:
        """Remember those that were seen since the last time."""
        for pod in refused:
            why = f"{pod.reason}: {pod.message}" if pod.message else pod.reason
            self._last[pod.owner_uid] = Refusal(pod.node, self._clock(), why)

    def noted(self, pod_set: PodSet, pods: Iterable[Pod]) -> PodSet:
        """The StatefulSet with its refusal; it is over when no pod is wanted any more, or when one runs."""
        known = self._last.get(pod_set.uid) if self._last else None
        if known is None:
            return pod_set
        if pod_set.replicas == 0 or any(pod.phase == "Running" and pod.owner_uid == pod_set.uid for pod in pods):
            del self._last[pod_set.uid]
            return pod_set
        return replace(pod_set, refusal=known)

    def forget_gone(self, known: Iterable[PodSet]) -> None:
        """Those of StatefulSets that are not among these any more."""
        if self._last:
            alive = {pod_set.uid for pod_set in known}
            self._last = {uid: one for uid, one in self._last.items() if uid in alive}

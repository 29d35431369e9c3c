"""Taints of nodes and tolerations of pods, and when one answers the other."""

from collections.abc import Iterable
from dataclasses import dataclass

GPU_TAINT_KEYS = ("nvidia.com/gpu", "amd.com/gpu", "stokehold.dev/gpu")
"""Taints that keep other work off GPU nodes; work that was given GPUs tolerates them."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A node taint; PreferNoSchedule keeps nobody away."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod toleration; an empty key with operator Exists tolerates everything."""

    key: str
    operator: str
    value: str
    effect: str

    def answers(self, taint: Taint) -> bool:
        """Whether this toleration tolerates the taint, by the rules of kube-scheduler."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return bool(self.key) and self.value == taint.value


def is_gpu_taint(taint: Taint) -> bool:
    """Whether the taint is there to keep work without GPUs off the node."""
    return taint.key in GPU_TAINT_KEYS and taint.effect == "NoSchedule"


def tolerates(tolerations: Iterable[Toleration], taints: Iterable[Taint]) -> bool:
    """Whether every taint that keeps pods away is tolerated."""
    wanted = [taint for taint in taints if taint.effect != "PreferNoSchedule"]
    return not wanted or all(any(t.answers(taint) for t in tolerations) for taint in wanted)

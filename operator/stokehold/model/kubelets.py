"""What kubelets say of pods that were bound to their node and that they do not take. Values and pure functions."""

from dataclasses import dataclass
from datetime import datetime

REASONS = ("UnexpectedAdmissionError", "NodeAffinity", "NodeSelector", "TopologyAffinityError")


@dataclass(frozen=True, slots=True)
class Refusal:
    """That a node's kubelet did not take a pod, when that was noticed, and in which words."""

    node: str
    at: datetime
    why: str = ""


def is_refusal(phase: str, reason: str) -> bool:
    """Whether a pod that ended so was never taken: a device plugin is away, or the kubelet sees other resources."""
    return phase == "Failed" and (reason in REASONS or reason.startswith("OutOf"))

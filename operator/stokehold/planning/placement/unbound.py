"""Why kube-scheduler has not bound a pod to the node that we chose. Pure."""

from collections.abc import Iterable

from stokehold.model import names
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job, VolumeClaim, Workspace


def why_unbound(pod: Pod, owner: Job | Workspace) -> str:
    """In its words, and with the claims that have no volume: while it waits for one to be made it says nothing."""
    said = pod.unschedulable or "kube-scheduler has not said why"
    empty = [
        f"volume claim {name}" for name, volume in _claims(owner) if volume is not None and volume.phase == "Pending"
    ]
    if not empty:
        return said
    return f"{said}; no volume has been provisioned for {' and '.join(empty)} (kubectl describe pvc says more)"


def _claims(owner: Job | Workspace) -> Iterable[tuple[str, VolumeClaim | None]]:
    if isinstance(owner, Job):
        return owner.volumes
    return ((names.volume_claim_name(owner.name), owner.volume), *owner.volumes)

"""Writes for the Services of work that runs."""

from stokehold.cluster import manifests, workspace_manifests
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.resources import SERVICES
from stokehold.model.actions import RestoreService
from stokehold.model.snapshot import Job
from stokehold.observability import logs

log = logs.get("apply")


async def restore(writes: Writes, action: RestoreService) -> None:
    """Applied, not created: what has lost its label alone is there under its name, and gets the label back."""
    owner = action.owner
    body = manifests.service(owner) if isinstance(owner, Job) else workspace_manifests.service(owner)
    body["metadata"]["annotations"] = writes.stamp()
    await writes.apply_own(SERVICES, body, owner)
    log.info("Service restored", kind=owner.KIND, owner="/".join(owner.key))

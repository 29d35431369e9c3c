"""Writes for DevWorkspaces: what they own, their start and their stop."""

from typing import Any

from stokehold.api.names import FRESH_VOLUME_ANNOTATION, STOPPED_ANNOTATION
from stokehold.cluster import workspace_manifests as manifests
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.client import PatchKind
from stokehold.cluster.errors import AlreadyExistsError, NotFoundError
from stokehold.cluster.own_kinds import stop_text
from stokehold.cluster.resources import DEV_WORKSPACES, PERSISTENT_VOLUME_CLAIMS, SERVICES, STATEFUL_SETS
from stokehold.model import names
from stokehold.model.actions import EndWorkspace, ResumeWorkspace, StartWorkspace, StopWorkspace
from stokehold.model.snapshot import Workspace
from stokehold.observability import logs

log = logs.get("apply")


async def start(writes: Writes, action: StartWorkspace) -> None:
    """Its volume and Service, should they be missing, then the StatefulSet with its one replica on the node."""
    workspace, placement = action.workspace, action.placement
    await _ensure_volume(writes, workspace)
    await writes.create_own(SERVICES, manifests.service(workspace), workspace)
    body = manifests.stateful_set(workspace, placement)
    known = workspace.pod_set
    if known is None:
        await writes.create_own(STATEFUL_SETS, body, workspace)
    else:
        body["metadata"] |= {"uid": known.uid, "resourceVersion": known.resource_version}
        await writes.patch(STATEFUL_SETS, known.name, body, namespace=known.namespace, kind=PatchKind.APPLY)
    name = f"{workspace.namespace}/{workspace.name}"
    log.info("workspace started", workspace=name, pool=placement.pool, node=placement.nodes[0])
    await writes.tell(workspace, action.notes)


async def end(writes: Writes, action: EndWorkspace) -> None:
    """The decision to stop and its record in one write, which fails if anybody has touched the workspace since."""
    patch = {
        "metadata": {"annotations": {STOPPED_ANNOTATION: stop_text(action.record)}},
        "spec": {"running": False},
    }
    await _patch(writes, action.workspace, patch)
    workspace, record = action.workspace, action.record
    log.info("workspace ended", workspace="/".join(workspace.key), reason=record.reason, why=record.message)
    await writes.tell(workspace, action.notes)


async def resume(writes: Writes, action: ResumeWorkspace) -> None:
    """`spec.running` as its schedule wants it."""
    await _patch(writes, action.workspace, {"metadata": {}, "spec": {"running": True}})
    await writes.tell(action.workspace, action.notes)


async def stop(writes: Writes, action: StopWorkspace) -> None:
    """No replica any more; nothing else of the StatefulSet changes."""
    known = action.workspace.pod_set
    if known is None:
        return
    patch = {
        "metadata": {"uid": known.uid, "resourceVersion": known.resource_version},
        "spec": {"replicas": 0},
    }
    await writes.patch(STATEFUL_SETS, known.name, patch, namespace=known.namespace)
    log.info("workspace stopped", workspace="/".join(action.workspace.key), why=action.why)


async def _patch(writes: Writes, workspace: Workspace, patch: dict[str, Any]) -> None:
    patch["metadata"] |= {"uid": workspace.uid, "resourceVersion": workspace.resource_version}
    await writes.patch(DEV_WORKSPACES, workspace.name, patch, namespace=workspace.namespace)


async def _ensure_volume(writes: Writes, workspace: Workspace) -> None:
    """Its claim. Never a dying one, and never silently a fresh one in place of one that had its files."""
    claim = manifests.volume_claim(workspace)
    if claim is None:
        return
    name = names.volume_claim_name(workspace.name)
    if workspace.status.start_time is not None:
        await _require_volume(writes, workspace, name)
    made = await writes.create_own(PERSISTENT_VOLUME_CLAIMS, claim, workspace)
    if made["metadata"].get("deletionTimestamp"):
        raise AlreadyExistsError(
            409, "AlreadyExists", f"its volume claim {name} is being deleted; wait until it has gone"
        )


async def _require_volume(writes: Writes, workspace: Workspace, name: str) -> None:
    fresh = workspace.annotations.get(FRESH_VOLUME_ANNOTATION) == name
    try:
        found = await writes.call(lambda: writes.api.get(PERSISTENT_VOLUME_CLAIMS, name, workspace.namespace))
    except NotFoundError:
        if fresh:
            return
        raise AlreadyExistsError(
            409,
            "VolumeLost",
            f"its volume claim {name} with its files is gone; to start with an empty one annotate the workspace with"
            f" {FRESH_VOLUME_ANNOTATION}={name}",
        ) from None
    if found.get("status", {}).get("phase") == "Lost":
        raise AlreadyExistsError(
            409, "VolumeLost", f"the volume behind its claim {name} is lost; restore it, or delete the claim"
        )

"""Writes for DevWorkspaces: what they own, their start and their stop."""

from typing import Any

from stokehold.api.names import FRESH_VOLUME_ANNOTATION, STOPPED_ANNOTATION
from stokehold.cluster import workspace_manifests as manifests
from stokehold.cluster.annotations import WANTED_BY
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.client import PatchKind
from stokehold.cluster.own_kinds import stop_text
from stokehold.cluster.resources import DEV_WORKSPACES, PERSISTENT_VOLUME_CLAIMS, SERVICES, STATEFUL_SETS
from stokehold.model import names
from stokehold.model.actions import (
    EndWorkspace,
    GrowVolume,
    KeepWorkspace,
    Note,
    ResumeWorkspace,
    StartWorkspace,
    StopWorkspace,
)
from stokehold.model.reasons import Event
from stokehold.model.snapshot import Workspace
from stokehold.observability import logs

log = logs.get("apply")


async def start(writes: Writes, action: StartWorkspace) -> None:
    """Its Service if that is missing, a new volume if it needs one, then the StatefulSet with a replica on the node."""
    workspace, placement = action.workspace, action.placement
    await writes.create_own(SERVICES, manifests.service(workspace), workspace)
    if action.new_volume and (claim := manifests.volume_claim(workspace)) is not None:
        await writes.create_own(PERSISTENT_VOLUME_CLAIMS, claim, workspace)
    await _use_up_consent(writes, workspace)
    body = manifests.stateful_set(workspace, placement)
    body["metadata"]["annotations"] |= writes.stamp()
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
    await _patch(writes, action.workspace, {STOPPED_ANNOTATION: stop_text(action.record)}, {"running": False})
    workspace, record = action.workspace, action.record
    log.info("workspace ended", workspace="/".join(workspace.key), reason=record.reason, why=record.message)
    await writes.tell(workspace, action.notes)


async def resume(writes: Writes, action: ResumeWorkspace) -> None:
    """`spec.running` as its schedule wants it."""
    await _patch(writes, action.workspace, {}, {"running": True})
    await writes.tell(action.workspace, action.notes)


async def stop(writes: Writes, action: StopWorkspace) -> None:
    """No replica any more, or just the one; nothing else of the StatefulSet changes."""
    known = action.workspace.pod_set
    if known is None:
        return
    patch = {
        "metadata": {"uid": known.uid, "resourceVersion": known.resource_version, "annotations": writes.stamp()},
        "spec": {"replicas": action.left},
    }
    await writes.patch(STATEFUL_SETS, known.name, patch, namespace=known.namespace)
    log.info("workspace stopped", workspace="/".join(action.workspace.key), why=action.why, left=action.left)


async def keep(writes: Writes, action: KeepWorkspace) -> None:
    """Only an annotation, but with it the resourceVersion is another one."""
    known = action.workspace.pod_set
    if known is None:
        return
    annotations = {WANTED_BY: str(action.workspace.generation)} | writes.stamp()
    metadata = {"uid": known.uid, "resourceVersion": known.resource_version, "annotations": annotations}
    await writes.patch(STATEFUL_SETS, known.name, {"metadata": metadata}, namespace=known.namespace)


async def grow(writes: Writes, action: GrowVolume) -> None:
    """The claim asks for more; how the volume and its file system follow is for the storage to do."""
    workspace, name = action.workspace, names.volume_claim_name(action.workspace.name)
    patch = {"spec": {"resources": {"requests": {"storage": action.size}}}}
    await writes.patch(PERSISTENT_VOLUME_CLAIMS, name, patch, namespace=workspace.namespace)
    log.info("volume grows", workspace="/".join(workspace.key), size=action.size)


async def tell_refused_size(writes: Writes, action: GrowVolume, why: str) -> None:
    """The owner asked for it and nobody else would say so."""
    note = Note(
        Event.VOLUME_NOT_GROWN, f"its volume cannot grow to {action.size}: {why}", f"grow {action.size}", warning=True
    )
    await writes.tell(action.workspace, (note,))


async def _use_up_consent(writes: Writes, workspace: Workspace) -> None:
    """Who has said that an empty volume will do has said it for this one start, not for the next loss of the files.

    At every start, for whoever made the volume may have died before it came to this.
    """
    if FRESH_VOLUME_ANNOTATION in workspace.annotations:
        patch = {"metadata": {"uid": workspace.uid, "annotations": {FRESH_VOLUME_ANNOTATION: None}}}
        await writes.patch(DEV_WORKSPACES, workspace.name, patch, namespace=workspace.namespace)


async def _patch(writes: Writes, workspace: Workspace, annotations: dict[str, str], spec: dict[str, Any]) -> None:
    metadata = {
        "uid": workspace.uid,
        "resourceVersion": workspace.resource_version,
        "annotations": annotations | writes.stamp(),
    }
    patch = {"metadata": metadata, "spec": spec}
    await writes.patch(DEV_WORKSPACES, workspace.name, patch, namespace=workspace.namespace)

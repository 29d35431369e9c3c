"""Writes for DevWorkspaces: what they own, their start and their stop."""

from dataclasses import replace
from typing import Any

import msgspec

from stokehold.api.names import FRESH_VOLUME_ANNOTATION, STOPPED_ANNOTATION
from stokehold.api.times import format_time
from stokehold.cluster import wire
from stokehold.cluster import workspace_manifests as manifests
from stokehold.cluster.annotations import REFUSED_BY, WANTED_BY
from stokehold.cluster.apply import services
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.client import PatchKind, pointer
from stokehold.cluster.errors import ConflictError
from stokehold.cluster.own_kinds import stop_text
from stokehold.cluster.reading.children import read_pod_set
from stokehold.cluster.resources import DEV_WORKSPACES, PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS
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
from stokehold.model.pods import PodSet
from stokehold.model.reasons import Event
from stokehold.model.snapshot import Workspace
from stokehold.observability import logs

log = logs.get("apply")

OF_STATUS = ("resource_version", "ready_replicas", "current_replicas", "updated_replicas", "problem", "refusal")
"""What of a StatefulSet changes while nobody changes what it should be."""


async def start(writes: Writes, action: StartWorkspace) -> None:
    """Its Service if that is missing, a new volume if it needs one, then the StatefulSet with a replica on the node."""
    workspace, placement = action.workspace, action.placement
    await services.bring_up_to_date(writes, manifests.service(workspace), workspace)
    if action.new_volume and (claim := manifests.volume_claim(workspace)) is not None:
        await writes.create_own(PERSISTENT_VOLUME_CLAIMS, claim, workspace)
    await _use_up_consent(writes, workspace)
    body = manifests.stateful_set(workspace, placement)
    body["metadata"]["annotations"] |= writes.stamp()
    known = workspace.pod_set
    if known is None:
        await writes.create_own(STATEFUL_SETS, body, workspace)
    else:
        await _rewrite(writes, known, body)
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
    """No replica any more, or just the one; nothing else of the StatefulSet changes. Then its status."""
    workspace, known = action.workspace, action.workspace.pod_set
    if known is None:
        return
    annotations = writes.stamp()
    if action.refusals:
        annotations |= {REFUSED_BY: " ".join(f"{one.node}={format_time(one.at)}" for one in action.refusals)}
    await _scale(writes, known, action.left, annotations)
    log.info("workspace stopped", workspace="/".join(workspace.key), why=action.why, left=action.left)
    if action.status is not None:
        await writes.write_status(workspace, action.status)
        await writes.tell(workspace, action.notes)


async def _rewrite(writes: Writes, known: PodSet, body: dict[str, Any]) -> None:
    """The template is replaced whole: a merge or an apply would keep what the user has taken out of the spec."""
    spec, annotations = body["spec"], body["metadata"]["annotations"]
    patch = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": known.resource_version},
        {"op": "replace", "path": "/spec/replicas", "value": spec["replicas"]},
        {"op": "replace", "path": "/spec/template", "value": spec["template"]},
        *(
            {"op": "add", "path": pointer("metadata", "annotations", key), "value": annotations[key]}
            for key in annotations
        ),
    ]
    await writes.patch(STATEFUL_SETS, known.name, patch, namespace=known.namespace, kind=PatchKind.JSON)


async def _scale(writes: Writes, known: PodSet, replicas: int, annotations: dict[str, str]) -> None:
    """Its controller writes the status at any time, many times a second while its pod fails: that is tried again."""
    for last_try in (False, False, False, True):
        metadata = {"uid": known.uid, "resourceVersion": known.resource_version, "annotations": annotations}
        patch = {"metadata": metadata, "spec": {"replicas": replicas}}
        try:
            await writes.patch(STATEFUL_SETS, known.name, patch, namespace=known.namespace)
        except ConflictError:
            if last_try or (newer := await _with_news_of_status(writes, known)) is None:
                raise
            known = newer
        else:
            return


async def _with_news_of_status(writes: Writes, known: PodSet) -> PodSet | None:
    """The StatefulSet as it is now; None when more than its status has changed."""
    found = await writes.call(lambda: writes.api.get(STATEFUL_SETS, known.name, known.namespace))
    fresh = read_pod_set(msgspec.convert(found, wire.PodSet))
    if fresh is None or replace(fresh, **{name: getattr(known, name) for name in OF_STATUS}) != known:
        return None
    return replace(known, resource_version=fresh.resource_version)


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

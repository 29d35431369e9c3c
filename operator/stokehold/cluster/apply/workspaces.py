"""Writes for DevWorkspaces: what they own, and their start."""

from stokehold.cluster import workspace_manifests as manifests
from stokehold.cluster.apply.writes import FIELD_MANAGER, Writes
from stokehold.cluster.client import PatchKind
from stokehold.cluster.resources import PERSISTENT_VOLUME_CLAIMS, SERVICES, STATEFUL_SETS
from stokehold.model.actions import StartWorkspace
from stokehold.observability import logs

log = logs.get("apply")


async def start(writes: Writes, action: StartWorkspace) -> None:
    """Its volume and Service, should they be missing, then the StatefulSet with its one replica on the node."""
    workspace, placement = action.workspace, action.placement
    if (claim := manifests.volume_claim(workspace)) is not None:
        await writes.create_own(PERSISTENT_VOLUME_CLAIMS, claim, workspace)
    await writes.create_own(SERVICES, manifests.service(workspace), workspace)
    body = manifests.stateful_set(workspace, placement)
    known = workspace.pod_set
    if known is None:
        await writes.create_own(STATEFUL_SETS, body, workspace)
    else:
        body["metadata"] |= {"uid": known.uid, "resourceVersion": known.resource_version}
        started = await writes.call(
            lambda: writes.api.patch(
                STATEFUL_SETS,
                known.name,
                body,
                namespace=known.namespace,
                kind=PatchKind.APPLY,
                field_manager=FIELD_MANAGER,
                force=True,
            )
        )
        writes.show(STATEFUL_SETS, started)
    name = f"{workspace.namespace}/{workspace.name}"
    log.info("workspace started", workspace=name, pool=placement.pool, node=placement.nodes[0])
    await writes.tell(workspace, action.notes)

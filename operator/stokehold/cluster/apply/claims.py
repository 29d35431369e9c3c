"""Writes for GPUNodeClaims and the nodes that they stand for. What costs money is asked of providers, not here."""

from stokehold.api.names import API_VERSION, MANAGED_BY, RELEASE_FINALIZER
from stokehold.cluster.annotations import CLOSED, PROVIDER
from stokehold.cluster.apply.writes import FIELD_MANAGER, Writes
from stokehold.cluster.errors import AlreadyExistsError
from stokehold.cluster.resources import GPU_NODE_CLAIMS, NODES
from stokehold.model.actions import CordonNode, CreateClaim, DeleteClaim, DeleteNode, ReleaseClaim
from stokehold.observability import logs

log = logs.get("apply")


async def create(writes: Writes, action: CreateClaim) -> None:
    """With the finalizer from the start: no machine may outlive its record."""
    provider = action.provider.model_dump_json(by_alias=True, exclude_none=True) if action.provider else None
    body = {
        "apiVersion": API_VERSION,
        "kind": "GPUNodeClaim",
        "metadata": {
            "name": action.name,
            "labels": dict(MANAGED_BY),
            "annotations": writes.stamp() | ({PROVIDER: provider} if provider else {}),
            "finalizers": [RELEASE_FINALIZER],
        },
        "spec": action.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    try:
        made = await writes.call(lambda: writes.api.create(GPU_NODE_CLAIMS, body, field_manager=FIELD_MANAGER))
    except AlreadyExistsError:
        return  # an earlier try made it, and the watch will tell
    writes.show(GPU_NODE_CLAIMS, made)
    work = action.spec.for_work
    log.info(
        "node claimed",
        claim=action.name,
        pool=action.spec.pool_name,
        zone=action.spec.zone or "",
        job=f"{work.namespace}/{work.name}" if work else "",
    )


async def cordon(writes: Writes, action: CordonNode) -> None:
    """Close or open the very node that was seen."""
    node = action.node
    metadata = {"uid": node.uid, "annotations": {CLOSED: "true" if action.closed else None} | writes.stamp()}
    patch = {"metadata": metadata, "spec": {"unschedulable": action.closed or None}}
    await writes.patch(NODES, node.name, patch)
    log.info("node closed" if action.closed else "node opened", node=node.name, why=action.why)


async def delete_node(writes: Writes, action: DeleteNode) -> None:
    """Its machine is gone; nobody else would take it away soon."""
    node = action.node
    await writes.call(lambda: writes.api.delete(NODES, node.name, uid=node.uid))
    log.info("node deleted", node=node.name, why=action.why)


async def delete(writes: Writes, action: DeleteClaim) -> None:
    """Begin to give it back, unless it has changed since it was looked at."""
    claim = action.claim
    deleted = await writes.call(
        lambda: writes.api.delete(GPU_NODE_CLAIMS, claim.name, uid=claim.uid, resource_version=claim.resource_version)
    )
    if deleted.get("kind") == "GPUNodeClaim" and deleted["metadata"].get("finalizers"):
        writes.show(GPU_NODE_CLAIMS, deleted)
    log.info("claim deleted", claim=claim.name, pool=claim.spec.pool_name, why=action.why)


async def release(writes: Writes, action: ReleaseClaim) -> None:
    """Take our finalizer off, and nobody else's: the object goes."""
    claim = action.claim
    others = [name for name in claim.finalizers if name != RELEASE_FINALIZER]
    metadata = {"uid": claim.uid, "resourceVersion": claim.resource_version, "finalizers": others or None}
    await writes.patch(GPU_NODE_CLAIMS, claim.name, {"metadata": metadata}, shows=False)  # the watch tells its end
    log.info("claim released", claim=claim.name, cost=str(claim.status.cost or ""))

"""Writes for InferencePools: the place of each replica."""

from stokehold.api.names import PLACEMENT_GATE
from stokehold.cluster.apply.writes import FIELD_MANAGER, Writes
from stokehold.cluster.client import PatchKind
from stokehold.cluster.manifests import require_node
from stokehold.cluster.resources import PODS
from stokehold.model.actions import PlaceReplica
from stokehold.observability import logs

log = logs.get("apply")


async def place(writes: Writes, action: PlaceReplica) -> None:
    """Pin the pod to its node and lift our gate in one patch; affinity may only be narrowed while a pod is gated."""
    pod, node = action.pod, action.placement.nodes[0]
    found = await writes.call(lambda: writes.api.get(PODS, pod.name, pod.namespace))
    spec = found["spec"]
    require_node(spec, node)
    gates = [gate for gate in spec.get("schedulingGates", ()) if gate["name"] != PLACEMENT_GATE]
    meta = found["metadata"]
    patch = {
        "metadata": {"uid": pod.uid, "resourceVersion": meta["resourceVersion"]},
        "spec": {"affinity": spec["affinity"], "schedulingGates": gates or None},
    }
    placed = await writes.call(
        lambda: writes.api.patch(
            PODS, pod.name, patch, namespace=pod.namespace, kind=PatchKind.MERGE, field_manager=FIELD_MANAGER
        )
    )
    writes.show(PODS, placed)
    log.info("replica placed", pod=f"{pod.namespace}/{pod.name}", pool=action.placement.pool, node=node)

"""Writes for InferencePools: what they own, the number of replicas, and the place of each."""

from typing import Any

from stokehold.api.names import PLACEMENT_GATE
from stokehold.api.times import format_time
from stokehold.api.v1alpha1.inference_pool import Rollout
from stokehold.cluster import serving_manifests as manifests
from stokehold.cluster.annotations import PLACED_AT
from stokehold.cluster.apply import services
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.client import PatchKind, pointer
from stokehold.cluster.errors import ApiError
from stokehold.cluster.manifests import require_node
from stokehold.cluster.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS
from stokehold.model.actions import PlaceReplica, WriteDeployment
from stokehold.model.pods import Pod, PodSet
from stokehold.observability import logs

log = logs.get("apply")

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
GOES_FIRST = "-1000"


async def write_deployment(writes: Writes, action: WriteDeployment) -> None:
    """The number of replicas, and with a new shape all children: the Deployment last, for its digest says that the
    others are up to date."""
    pool, known = action.pool, action.pool.pod_set
    if action.reshapes:
        await services.bring_up_to_date(writes, manifests.service(pool), pool)
        await writes.apply_own(POD_DISRUPTION_BUDGETS, manifests.disruption_budget(pool), pool)
    for pod in action.victims:
        await _mark(writes, pod)
    if known is None:
        await writes.create_own(DEPLOYMENTS, manifests.deployment(action), pool)
    else:
        await _patch(writes, action, known)
    log.info(
        "deployment written",
        pool=f"{pool.namespace}/{pool.name}",
        replicas=action.replicas,
        before=known.replicas if known is not None else 0,
        reshapes=action.reshapes,
    )


async def place(writes: Writes, action: PlaceReplica) -> None:
    """Pin the pod to its node and lift our gate in one patch; affinity may only be narrowed while a pod is gated."""
    pod, node = action.pod, action.placement.nodes[0]
    found = await writes.call(lambda: writes.api.get(PODS, pod.name, pod.namespace))
    spec, meta = found["spec"], found["metadata"]
    require_node(spec, node)
    gates = [gate for gate in spec.get("schedulingGates", ()) if gate["name"] != PLACEMENT_GATE]
    patch = {
        "metadata": {
            "uid": pod.uid,
            "resourceVersion": meta["resourceVersion"],
            "annotations": {PLACED_AT: format_time(writes.now()), **writes.stamp()},
        },
        "spec": {"affinity": spec["affinity"], "schedulingGates": gates or None},
    }
    await writes.patch(PODS, pod.name, patch, namespace=pod.namespace)
    log.info("replica placed", pod=f"{pod.namespace}/{pod.name}", pool=action.placement.pool, node=node)


async def _patch(writes: Writes, action: WriteDeployment, known: PodSet) -> None:
    """Parts are replaced whole: a merge would keep what the user has taken out of the spec."""
    patch: list[dict[str, Any]] = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": known.resource_version},
        {"op": "replace", "path": "/spec/replicas", "value": action.replicas},
    ]
    remembered = manifests.number_annotations(action) | writes.stamp()
    if action.reshapes:
        pool = action.pool
        remembered |= manifests.shape_annotations(action.shape)
        patch += [
            {"op": "replace", "path": "/spec/template", "value": manifests.template(pool, action.shape)},
            {"op": "replace", "path": "/spec/strategy", "value": manifests.strategy(pool.spec.rollout or Rollout())},
        ]
    patch += (
        {"op": "add", "path": pointer("metadata", "annotations", key), "value": value}
        for key, value in remembered.items()
    )
    await writes.patch(DEPLOYMENTS, known.name, patch, namespace=known.namespace, kind=PatchKind.JSON)


async def _mark(writes: Writes, pod: Pod) -> None:
    """Tell the ReplicaSet controller that this replica should go first; only a hint, so a failure stops nothing."""
    patch = {"metadata": {"uid": pod.uid, "annotations": {DELETION_COST: GOES_FIRST}}}
    try:
        await writes.patch(PODS, pod.name, patch, namespace=pod.namespace)
    except ApiError as error:
        log.debug("replica not marked", pod=f"{pod.namespace}/{pod.name}", error=str(error))

"""What a pool's replicas look like besides their number: which GPUs they ask for, and whether that has changed. Pure.

The digest is of what goes into the children, not of the children: a new version of the operator that writes them a
little differently replaces no replica by itself.
"""

from collections.abc import Collection

from stokehold.api.v1alpha1.inference_pool import InferencePoolSpec, Scaling
from stokehold.model.actions import ServingShape
from stokehold.model.demand import with_gpu_resource
from stokehold.model.shapes import POD_FIELDS, digest
from stokehold.model.snapshot import ServingPool, Snapshot
from stokehold.planning.autoscaling.measuring import metrics_of
from stokehold.planning.autoscaling.schedule import faults
from stokehold.planning.placement.pools import DEFAULT_GPU_RESOURCE, Pool, pools_for

SHAPING_FIELDS = (*POD_FIELDS, "gpus_per_replica", "disruption")
"""What of the spec goes into the children; of `scaling` and `rollout` only a part does."""


def shape_of(pool: ServingPool, snapshot: Snapshot, pools: Collection[Pool]) -> ServingShape:
    """The shape that the pool's children should have."""
    resource = _gpu_resource(pool, pools)
    named = snapshot.priority_classes.get(pool.spec.priority_class_name or "")
    # As for jobs: only a class that never preempts. Who must leave is decided here, not by kube-scheduler.
    priority_class = named.name if named is not None and not named.preempts else ""
    return ServingShape(resource, priority_class, _digest(pool.spec, resource, priority_class))


def why_not_shaped(pool: ServingPool, snapshot: Snapshot) -> str:
    """Why the children are left as they are; empty if they are not."""
    name = pool.spec.priority_class_name
    if name and name not in snapshot.priority_classes:
        return f"PriorityClass {name} does not exist: name an existing one in spec.priorityClassName, or leave it out"
    if pool.spec.rollout is not None and pool.spec.rollout.strategy == "Canary":
        return "rollout.strategy Canary is not built yet, so no version is rolled out: use RollingUpdate"
    return ""


def not_supported(pool: ServingPool) -> list[str]:
    """What the spec asks for in vain, each with what happens instead."""
    spec = pool.spec
    found = faults(spec.scaling.schedule) if spec.scaling else []
    if spec.rollout is not None and spec.rollout.strategy == "Canary":
        found.append("rollout.strategy Canary is not built yet: no version is rolled out; use RollingUpdate")
    if spec.fallback is not None:
        found.append("fallback is not built yet: requests are not sent to another pool")
    if any(metric.type == "GPU" for metric in metrics_of(spec)):
        found.append("scaling.metrics of type GPU are not built yet: the number of replicas cannot fall by itself")
    return found


def _gpu_resource(pool: ServingPool, pools: Collection[Pool]) -> str:
    """The name under which GPUs are asked for: as it is while a node pool has it, else that of the best node pool.

    A pod cannot change it when the ledger has chosen a node, so it must be chosen before.
    """
    if not pool.spec.gpus_per_replica:
        return ""
    names = [found.gpu_resource for found in pools_for(with_gpu_resource(pool.demand, ""), pools)]
    known = pool.pod_set.gpu_resource if pool.pod_set is not None else ""
    if known and (known in names or not names):
        return known
    return names[0] if names else DEFAULT_GPU_RESOURCE


def _digest(spec: InferencePoolSpec, gpu_resource: str, priority_class: str) -> str:
    scaling = spec.scaling or Scaling()
    parts = [
        spec.model_dump(mode="json", include=set(SHAPING_FIELDS), exclude_defaults=True),
        scaling.engine,
        scaling.drain_seconds,
        spec.rollout.max_surge if spec.rollout else 0,
        gpu_resource,
        priority_class,
    ]
    return digest(parts)

"""Serving pools as values, and what the API server would make of an autoscaling plan."""

from dataclasses import replace
from datetime import datetime

from builders import (
    NOW,
    a_node,
    a_pod_set,
    a_replica,
    a_serving_pool,
    a_snapshot,
)
from stokehold.api.v1alpha1.inference_pool import InferencePoolStatus
from stokehold.model.actions import Action, WriteDeployment, WriteStatus
from stokehold.model.load import PoolLoad
from stokehold.model.snapshot import ServingPool, Snapshot
from stokehold.planning.autoscaling.plan import plan_autoscaling
from stokehold.planning.autoscaling.settings import AutoscalingSettings
from stokehold.planning.autoscaling.shaping import shape_of

SETTINGS = AutoscalingSettings()
QUERY = "sum(requests)"
BY_QUERY = {"metrics": [{"type": "Prometheus", "target": "10", "query": QUERY}], "scaleDownDelay": "5m"}
BY_ENGINE = {"metrics": [{"type": "Concurrency", "target": "8"}], "scaleDownDelay": "5m"}


def running(has: int, *, status: dict | None = None, ready: int | None = None, **spec: object) -> ServingPool:
    """A pool whose Deployment has so many replicas, as its status wants."""
    ready = has if ready is None else ready
    pods = [a_replica(index, ready=index < ready) for index in range(has)]
    told = {"desiredReplicas": has, **(status or {})}
    pool = a_serving_pool(status=told, pods=pods, pod_set=a_pod_set(has, ready_replicas=ready), **spec)
    shape = shape_of(pool, a_snapshot(), ())
    return replace(pool, pod_set=replace(pool.pod_set, template=shape.digest))


def world(pool: ServingPool, load: PoolLoad | None = None, at: datetime = NOW, **fields: object) -> Snapshot:
    loads = {pool.key: load} if load is not None else {}
    return a_snapshot([a_node()], serving_pools={pool.key: pool}, loads=loads, taken_at=at, **fields)


def plan(snapshot: Snapshot) -> list[Action]:
    return list(plan_autoscaling(snapshot, SETTINGS))


def carried_out(snapshot: Snapshot, actions: list[Action]) -> Snapshot:
    """The cluster as it is when the API server has taken all of it, and no controller has moved yet."""
    (pool,) = snapshot.serving_pools.values()
    for action in actions:
        match action:
            case WriteStatus():
                pool = replace(pool, status=InferencePoolStatus.model_validate(action.status))
            case WriteDeployment():
                had = pool.pod_set or a_pod_set(0)
                digest = action.shape.digest if action.reshapes else had.template
                written = replace(
                    had,
                    replicas=action.replicas,
                    written_replicas=action.replicas,
                    undone_at=action.undone_at,
                    template=digest,
                    template_writer="" if action.reshapes else had.template_writer,
                    replicas_writer="",
                    gpu_resource=action.shape.gpu_resource,
                )
                pool = replace(pool, pod_set=written)
                if action.reshapes:
                    pool = replace(pool, has_service=True, has_budget=True)
    return replace(snapshot, serving_pools={pool.key: pool})


def settled(snapshot: Snapshot) -> tuple[ServingPool, list[Action]]:
    """The pool after the plan was carried out, and the plan."""
    actions = plan(snapshot)
    (pool,) = carried_out(snapshot, actions).serving_pools.values()
    return pool, actions


def desired(snapshot: Snapshot) -> int:
    wanted = settled(snapshot)[0].status.desired_replicas
    assert wanted is not None
    return wanted


def condition(pool: ServingPool, kind: str) -> tuple[str, str, str]:
    found = next(c for c in pool.status.conditions if c.type == kind)
    return found.status, found.reason, found.message


def shifted(load: PoolLoad, at: datetime) -> PoolLoad:
    """The same answers, given just before `at`."""
    replicas = {
        uid: replace(source, reading=replace(source.reading, at=at)) if source.reading else source
        for uid, source in load.replicas.items()
    }
    return replace(load, replicas=replicas)

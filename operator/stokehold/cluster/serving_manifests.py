"""Pure builders of what an InferencePool owns: its Deployment, its Service, its PodDisruptionBudget."""

from typing import Any

from stokehold.api.names import MANAGED_BY, PLACEMENT_GATE, SERVING_LABEL
from stokehold.api.times import format_time
from stokehold.api.v1alpha1.inference_pool import InferencePoolSpec, Rollout, Scaling
from stokehold.cluster.annotations import GPU_RESOURCE, TEMPLATE, UNDONE_AT, WRITTEN_REPLICAS
from stokehold.cluster.manifests import (
    Manifest,
    add_shared_memory,
    give_gpus,
    leave_silent_nodes,
    main_container,
    owner_reference,
)
from stokehold.model import names
from stokehold.model.actions import ServingShape, WriteDeployment
from stokehold.model.demand import shaped_pod
from stokehold.model.merge import strategic_merge
from stokehold.model.snapshot import ServingPool

HTTP = "http"
KEPT_REVISIONS = 3
PROGRESS_DEADLINE_SECONDS = 3600
"""A replica may wait for GPUs and load its model for long; what it waits for stands in the pool's status."""
LEAVES_SERVICE_SECONDS = 5
"""Before a replica is told to stop, the proxies of the Service have so long to hear that it goes."""
MOST_SECONDS_TO_LOAD = 3600

READY_PATHS = {"vllm": "/health", "sglang": "/health", "triton": "/v2/health/ready"}
"""Where an engine says that its model is loaded; any other is ready when its port answers."""


def deployment(action: WriteDeployment) -> Manifest:
    """The Deployment of a pool that has none yet."""
    pool = action.pool
    metadata = _metadata(pool)
    metadata["annotations"] = shape_annotations(action.shape) | number_annotations(action)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": action.replicas,
            "selector": {"matchLabels": _selector(pool)},
            "revisionHistoryLimit": KEPT_REVISIONS,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            "strategy": strategy(pool.spec.rollout or Rollout()),
            "template": template(pool, action.shape),
        },
    }


def shape_annotations(shape: ServingShape) -> dict[str, str]:
    """What we remember of the shape on the Deployment."""
    return {TEMPLATE: shape.digest, GPU_RESOURCE: shape.gpu_resource}


def number_annotations(action: WriteDeployment) -> dict[str, str]:
    """What we remember of the number of replicas on the Deployment."""
    undone = " ".join(format_time(at) for at in action.undone_at)
    return {WRITTEN_REPLICAS: str(action.replicas), UNDONE_AT: undone}


def strategy(rollout: Rollout) -> Manifest:
    """Replica by replica: without a spare GPU an old one must go before its successor finds room."""
    surge = rollout.max_surge
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0 if surge else 1}}


def template(pool: ServingPool, shape: ServingShape) -> Manifest:
    """The pod of one replica. With GPUs it stands behind our gate until the ledger has chosen its node."""
    spec = pool.spec
    shaped = shaped_pod(spec, spec.gpus_per_replica, "Always")
    pod = shaped["spec"]
    give_gpus(pod, spec.gpus_per_replica, shape.gpu_resource)
    add_shared_memory(pod)
    _serve(main_container(pod), spec)
    _drain(pod, (spec.scaling or Scaling()).drain_seconds)
    leave_silent_nodes(pod)
    pod.setdefault("enableServiceLinks", False)
    if spec.gpus_per_replica:
        pod["schedulingGates"] = [{"name": PLACEMENT_GATE}]
    if shape.pod_priority_class:
        pod["priorityClassName"] = shape.pod_priority_class
    return {"metadata": strategic_merge(shaped["metadata"], {"labels": _labels(pool)}), "spec": pod}


def service(pool: ServingPool) -> Manifest:
    """The address of the pool: its ready replicas."""
    ports = [{"name": HTTP, "port": pool.spec.port, "targetPort": pool.spec.port, "protocol": "TCP"}]
    spec = {"selector": _selector(pool), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(pool), "spec": spec}


def disruption_budget(pool: ServingPool) -> Manifest:
    """How many replicas may be drained at once. One that is not ready may always go: it serves nobody."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": _selector(pool)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    if pool.spec.disruption is not None:
        spec["minAvailable"] = pool.spec.disruption.min_available
    else:
        spec["maxUnavailable"] = 1
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": _metadata(pool), "spec": spec}


def _serve(main: Manifest, spec: InferencePoolSpec) -> None:
    """The port, and probes where the user has none: a model that is still loading must get no requests."""
    ports = main.setdefault("ports", [])
    if all(port.get("containerPort") != spec.port for port in ports):
        ports.append({"name": HTTP, "containerPort": spec.port})
    path = READY_PATHS.get((spec.scaling or Scaling()).engine)
    ask: Manifest = {"httpGet": {"path": path, "port": spec.port}} if path else {"tcpSocket": {"port": spec.port}}
    main.setdefault("readinessProbe", {**ask, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3})
    main.setdefault("startupProbe", {**ask, "periodSeconds": 5, "failureThreshold": MOST_SECONDS_TO_LOAD // 5})


def _drain(pod: Manifest, seconds: int) -> None:
    """First out of the Service, then the time to finish requests; what the user says of either stays."""
    pause = min(LEAVES_SERVICE_SECONDS, seconds)
    main = main_container(pod)
    if pause and "preStop" not in main.get("lifecycle", {}):
        main.setdefault("lifecycle", {})["preStop"] = {"sleep": {"seconds": pause}}
    pod.setdefault("terminationGracePeriodSeconds", max(1, pause + seconds))


def _metadata(pool: ServingPool) -> Manifest:
    return {
        "name": names.serving_name(pool.name),
        "namespace": pool.namespace,
        "labels": _labels(pool),
        "ownerReferences": [owner_reference(pool)],
    }


def _selector(pool: ServingPool) -> dict[str, str]:
    return {SERVING_LABEL: names.label_value(pool.name)}


def _labels(pool: ServingPool) -> dict[str, str]:
    return {**_selector(pool), **MANAGED_BY}

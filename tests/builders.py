"""Values of the model with boring defaults; what a test is about comes as keywords, which win over all else."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolSpec, GPUNodePoolStatus
from stokehold.api.v1alpha1.gpu_queue import GPUQueueSpec, GPUQueueStatus
from stokehold.api.v1alpha1.inference_pool import InferencePoolSpec, InferencePoolStatus
from stokehold.api.v1alpha1.training_job import TrainingJobSpec, TrainingJobStatus
from stokehold.model import names
from stokehold.model.accounting import total
from stokehold.model.demand import demand_of, replica_demand
from stokehold.model.load import PoolLoad, Reading, Signal, Source
from stokehold.model.pods import Member, Pod, PodSet, Worker
from stokehold.model.snapshot import Job, Node, NodePool, Queue, ServingPool, Snapshot

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GPU = "nvidia.com/gpu"
H100 = "NVIDIA-H100-80GB-HBM3"
A100 = "NVIDIA-A100-SXM4-80GB"
JOB_FIELDS = ("namespace", "uid", "generation", "proof", "deleting", "create_error", "create_failed_at")


def seconds_ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def a_node(name: str = "n1", *, gpus: int = 8, product: str = H100, **fields: Any) -> Node:
    """A node with 8 GPUs, 96 CPUs and 512 GiB; `amounts` adds to what it offers, product "" takes the label off."""
    amounts = {GPU: gpus, "cpu": 96_000, "memory": 2**39, "pods": 110, **fields.pop("amounts", {})}
    labels = {**({"nvidia.com/gpu.product": product} if product else {}), **fields.pop("labels", {})}
    return Node(**{"name": name, "labels": labels, "capacity": amounts, "allocatable": amounts, **fields})


def a_job(
    name: str = "job", *, age: float = 60, status: dict[str, Any] | None = None, pods: Iterable[Pod] = (), **rest: Any
) -> Job:
    """A waiting job of one worker with one GPU. Keywords in camelCase go to the spec."""
    fields = {field: rest.pop(field) for field in JOB_FIELDS if field in rest}
    spec = TrainingJobSpec.model_validate({"image": "x", **rest})
    defaults = {
        "namespace": "team-a",
        "name": name,
        "uid": f"uid-{name}",
        "resource_version": "1",
        "generation": 1,
        "created_at": seconds_ago(age),
        "spec": spec,
        "status": TrainingJobStatus.model_validate(status or {}),
        "demand": demand_of(spec),
        "pods": tuple(pods),
    }
    return Job(**{**defaults, **fields})


def a_pod(name: str = "pod", **fields: Any) -> Pod:
    """Somebody else's pod that runs on n1 with one GPU."""
    defaults = {
        "namespace": "team-a",
        "name": name,
        "uid": f"uid-{name}",
        "phase": "Running",
        "requests": {GPU: 1, "pods": 1},
        "node": "n1",
        "bound": True,
        "created_at": seconds_ago(50),
        "started_at": seconds_ago(50),
    }
    return Pod(**{**defaults, **fields})


def a_worker(
    job: Job,
    index: int = 0,
    *,
    attempt: int = 1,
    nodes: tuple[str, ...] | None = None,
    restarts: int = 0,
    gpu_type: str = "h100-80gb-hbm3",
    **fields: Any,
) -> Pod:
    """A running worker of a job; `nodes` is the gang's placement, one for each worker."""
    nodes = nodes or tuple(f"n{i + 1}" for i in range(job.spec.num_nodes))
    name = names.pod_name(job.name, attempt, index)
    worker = Worker(
        job.name, attempt, index, len(nodes), restarts, gpu_type, gpu_type, "on-prem", () if index else nodes
    )
    defaults = {
        "namespace": job.namespace,
        "uid": f"uid-{job.uid}-{attempt}-{index}",
        "requests": {**dict(job.demand.requests), **({GPU: job.demand.gpus} if job.demand.gpus else {})},
        "node": nodes[index],
        "owner_uid": job.uid,
        "worker": worker,
        "tracked": True,
    }
    return a_pod(name, **{**defaults, **fields})


def a_gang(job: Job, **fields: Any) -> tuple[Pod, ...]:
    """All workers of one attempt, alike."""
    size = len(fields.get("nodes") or range(job.spec.num_nodes))
    return tuple(a_worker(job, index, **fields) for index in range(size))


def a_serving_pool(
    name: str = "chat",
    *,
    status: dict[str, Any] | None = None,
    pods: Iterable[Pod] = (),
    pod_set: PodSet | None = None,
    **spec: Any,
) -> ServingPool:
    """A serving pool of 1 to 8 replicas with one GPU each. Keywords in camelCase go to the spec."""
    parsed = InferencePoolSpec.model_validate({"image": "x", "replicas": {"min": 1, "max": 8}, **spec})
    return ServingPool(
        namespace="team-a",
        name=name,
        uid=f"uid-{name}",
        resource_version="1",
        generation=1,
        created_at=seconds_ago(600),
        spec=parsed,
        status=InferencePoolStatus.model_validate(status or {}),
        demand=replica_demand(parsed),
        pod_set=pod_set,
        has_service=pod_set is not None,
        has_budget=pod_set is not None,
        pods=tuple(pods),
    )


def a_pod_set(replicas: int, **fields: Any) -> PodSet:
    """A Deployment all of whose replicas are ready and up to date."""
    counts = dict.fromkeys(("replicas", "ready_replicas", "current_replicas", "updated_replicas"), replicas)
    identity = {"namespace": "team-a", "name": "chat", "uid": "uid-d", "resource_version": "1", "owner_uid": "uid-chat"}
    return PodSet(**{**identity, **counts, "gpu_resource": GPU, **fields})


def a_replica(index: int = 0, pool: str = "chat", **fields: Any) -> Pod:
    """A ready replica that runs on n1."""
    defaults = {"member": Member("InferencePool", pool), "ready": True, "started_at": seconds_ago(300)}
    return a_pod(f"{pool}-{index}", **{**defaults, **fields})


def a_source(age: float = 5, problem: str = "", **values: float) -> Source:
    """What a replica said so many seconds ago; without values it has never said anything."""
    reading = Reading(seconds_ago(age), {Signal[key.upper()]: value for key, value in values.items()})
    return Source("http://10.0.0.1:8000/metrics", reading if values else None, problem)


def a_load(
    replicas: Iterable[Source] = (), queries: Mapping[str, Source] | None = None, since: float = 9e4
) -> PoolLoad:
    """The sources of a pool's replicas, in their order."""
    by_uid = {f"uid-chat-{index}": source for index, source in enumerate(replicas)}
    return PoolLoad(seconds_ago(since), by_uid, queries or {})


def a_pool(name: str = "h100", **spec: Any) -> NodePool:
    """A pool of the nodes with the label pool: NAME, for GPUs of type NAME."""
    bought = {} if "provider" in spec else {"nodeSelector": {"pool": name}}
    status = GPUNodePoolStatus.model_validate(spec.pop("status", {}))
    return NodePool(
        name=name,
        uid=f"uid-{name}",
        resource_version="1",
        generation=1,
        created_at=NOW,
        spec=GPUNodePoolSpec.model_validate({"gpuType": name, **bought, **spec}),
        status=status,
    )


def a_queue(name: str = "queue", **spec: Any) -> Queue:
    """A queue for every namespace, whose status is up to date if nothing that is not built yet is asked of it."""
    valid = {"type": "Valid", "status": "True", "reason": "Supported", "message": "all that the spec asks for is built"}
    valid |= {"observedGeneration": 1, "lastTransitionTime": NOW}
    told = {"observedGeneration": 1, "phase": "Active", "conditions": [valid]}
    return Queue(
        name=name,
        uid=f"uid-{name}",
        resource_version="1",
        generation=1,
        created_at=NOW,
        spec=GPUQueueSpec.model_validate({"namespaces": {}, **spec}),
        status=GPUQueueStatus.model_validate(spec.pop("status", told)),
    )


def used_by(pods: Iterable[Pod]) -> dict[str, dict[str, int]]:
    """What live pods take from their nodes: the slow and obvious count."""
    requests: dict[str, list[Mapping[str, int]]] = defaultdict(list)
    for pod in pods:
        if pod.node and not pod.is_over:
            requests[pod.node].append(pod.requests)
    return {node: total(parts) for node, parts in requests.items()}


def a_snapshot(
    nodes: Iterable[Node] = (), jobs: Iterable[Job] = (), used: Mapping[str, Any] | None = None, **fields: Any
) -> Snapshot:
    """The cluster at NOW; what is used is counted from the pods of the jobs and the orphans, unless given."""
    jobs = list(jobs)
    pods = [pod for job in jobs for pod in job.pods] + list(fields.get("orphans", ()))
    defaults = {
        "taken_at": NOW,
        "nodes": {node.name: node for node in nodes},
        "used": used_by(pods) if used is None else used,
        "jobs": {job.key: job for job in jobs},
    }
    named = ("node_pools", "queues", "priority_classes", "namespaces")
    given = {key: {v.name: v for v in value} if key in named else value for key, value in fields.items()}
    return Snapshot(**{**defaults, **given})

"""Pure builders of the objects that we create: workers, the gang's Service, Events."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec

from stokehold.api.names import (
    API_VERSION,
    ATTEMPT_LABEL,
    INDEX_LABEL,
    JOB_LABEL,
    MAIN_CONTAINER,
    TRACKING_FINALIZER,
)
from stokehold.api.times import format_time
from stokehold.cluster.annotations import GANG, JOB_NAME, Gang
from stokehold.model import names
from stokehold.model.actions import AdmitJob, Note
from stokehold.model.demand import worker_pod
from stokehold.model.merge import strategic_merge
from stokehold.model.snapshot import Job

RENDEZVOUS_PORT = 29500
EVICT_AFTER_SECONDS = 60
"""How long a worker stays on a node that does not answer; Kubernetes' own default is five minutes of idle peers."""

Manifest = dict[str, Any]


def worker(action: AdmitJob, index: int) -> Manifest:
    """The pod of one worker, pinned to its node."""
    job = action.job
    shaped = worker_pod(job.spec)
    metadata = {
        "name": names.pod_name(job.name, action.attempt, index),
        "namespace": job.namespace,
        "labels": _labels(job) | {ATTEMPT_LABEL: str(action.attempt), INDEX_LABEL: str(index)},
        "annotations": _annotations(action, index),
        "finalizers": [TRACKING_FINALIZER],
        "ownerReferences": [owner_reference(job)],
    }
    main = _main_container(action, index, shaped["spec"])
    spec = strategic_merge(shaped["spec"], {"containers": [main]})
    _main(spec)["env"] = main["env"]  # a merge keeps the user's variables in front, where ours would be unknown
    _hide_gpus(spec)
    _identity(spec, action, index)
    _shared_memory(spec)
    _checkpoint(spec, job)
    _pin(spec, action.placement.nodes[index])
    spec.setdefault("enableServiceLinks", False)  # hundreds of variables in large namespaces
    if action.pod_priority_class:
        spec["priorityClassName"] = action.pod_priority_class
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": strategic_merge(shaped["metadata"], metadata),
        "spec": spec,
    }


def service(job: Job) -> Manifest:
    """The headless Service that gives the workers of a gang their addresses, before they are ready too."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(job.name),
            "namespace": job.namespace,
            "labels": _labels(job),
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_LABEL: names.label_value(job.name)},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def event(job: Job, note: Note, at: datetime, reporter: str) -> Manifest:
    """An Event about a job. Its name follows from the news, so that telling it again is refused, not repeated."""
    digest = sha256(f"{job.uid} {note.key}".encode()).hexdigest()[:12]
    time = format_time(at)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{names.stem(job.name)}.{digest}", "namespace": job.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "namespace": job.namespace,
            "name": job.name,
            "uid": job.uid,
            "resourceVersion": job.resource_version,
        },
        "type": "Warning" if note.warning else "Normal",
        "reason": note.reason,
        "message": note.message[:1024],
        "source": {"component": "stokehold"},
        "reportingComponent": "stokehold.dev/operator",
        "reportingInstance": reporter,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


def owner_reference(job: Job) -> Manifest:
    """The reference that makes the job the controller of an object."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _labels(job: Job) -> dict[str, str]:
    return {JOB_LABEL: names.label_value(job.name), "app.kubernetes.io/managed-by": "stokehold"}


def _annotations(action: AdmitJob, index: int) -> dict[str, str]:
    placement = action.placement
    gang = Gang(
        size=len(placement.nodes),
        restarts=action.restarts,
        pool=placement.pool,
        gpu_type=placement.gpu_type,
        capacity=placement.capacity,
        nodes=placement.nodes if index == 0 else (),
    )
    annotations = {GANG: msgspec.json.encode(gang).decode()}
    if names.label_value(action.job.name) != action.job.name:
        annotations[JOB_NAME] = action.job.name
    return annotations


def _main_container(action: AdmitJob, index: int, shaped: Mapping[str, Any]) -> Manifest:
    """What is laid over the user's container: GPUs, rendezvous. Our variables stand first, so `$(NAME)` works."""
    main = next(c for c in shaped["containers"] if c["name"] == MAIN_CONTAINER)
    theirs = main.get("env", [])
    taken = {entry["name"] for entry in theirs}
    ours = [{"name": k, "value": v} for k, v in _environment(action, index).items() if k not in taken]
    container: Manifest = {"name": MAIN_CONTAINER, "env": [*ours, *theirs]}
    if gpus := action.job.spec.gpus_per_node:
        amount = {action.placement.gpu_resource: str(gpus)}
        container["resources"] = {"requests": amount, "limits": amount}
    return container


def _environment(action: AdmitJob, index: int) -> dict[str, str]:
    job, size = action.job, len(action.placement.nodes)
    gpus = job.spec.gpus_per_node
    lead = names.hostname(job.name, 0)
    master = f"{lead}.{names.service_name(job.name)}.{job.namespace}.svc" if size > 1 else "localhost"
    environment = {
        "PET_NNODES": str(size),
        "PET_NPROC_PER_NODE": str(gpus or 1),
        "PET_NODE_RANK": str(index),
        "PET_MASTER_ADDR": master,
        "PET_MASTER_PORT": str(RENDEZVOUS_PORT),
        "MASTER_ADDR": master,
        "MASTER_PORT": str(RENDEZVOUS_PORT),
        "WORLD_SIZE": str(size),
        "RANK": str(index),
        "STOKEHOLD_JOB": job.name,
        "STOKEHOLD_ATTEMPT": str(action.attempt),
        "STOKEHOLD_RESTARTS": str(action.restarts),
    }
    if job.spec.checkpoint:
        environment["CHECKPOINT_DIR"] = job.spec.checkpoint.path
    if not gpus:
        # Without a request the runtime would show every GPU of the node to a container that paid for none.
        environment |= {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}
    return environment


def _hide_gpus(spec: Manifest) -> None:
    """Containers beside the main one get no GPU, so they see none, whatever variables their images set."""
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        if container["name"] != MAIN_CONTAINER:
            container["env"] = [*container.get("env", ()), {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]


def _identity(spec: Manifest, action: AdmitJob, index: int) -> None:
    spec["hostname"] = names.hostname(action.job.name, index)
    if len(action.placement.nodes) > 1:
        spec["subdomain"] = names.service_name(action.job.name)


def _shared_memory(spec: Manifest) -> None:
    """NCCL and data loaders need more than the runtime's 64 MiB of /dev/shm."""
    main = _main(spec)
    mounts = main.setdefault("volumeMounts", [])
    if any(mount.get("mountPath") == "/dev/shm" for mount in mounts):  # noqa: S108 - the path inside the pod
        return
    mounts.append({"name": "stokehold-shm", "mountPath": "/dev/shm"})  # noqa: S108 - the path inside the pod
    spec.setdefault("volumes", []).append({"name": "stokehold-shm", "emptyDir": {"medium": "Memory"}})


def _checkpoint(spec: Manifest, job: Job) -> None:
    checkpoint = job.spec.checkpoint
    if checkpoint is None:
        return
    if checkpoint.claim_name is None:
        spec["terminationGracePeriodSeconds"] = max(1, round(checkpoint.grace_period.seconds))
        return  # the program saves to an object store by itself
    _main(spec).setdefault("volumeMounts", []).append({"name": "stokehold-checkpoint", "mountPath": checkpoint.path})
    spec.setdefault("volumes", []).append(
        {"name": "stokehold-checkpoint", "persistentVolumeClaim": {"claimName": checkpoint.claim_name}}
    )
    spec["terminationGracePeriodSeconds"] = max(1, round(checkpoint.grace_period.seconds))


def _pin(spec: Manifest, node: str) -> None:
    """Require this node by name, beside whatever the user's template asks of nodes; kube-scheduler still binds."""
    required = (
        spec.setdefault("affinity", {})
        .setdefault("nodeAffinity", {})
        .setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    pinned = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [term | {"matchFields": [pinned]} for term in terms]
    spec.setdefault("tolerations", []).extend(
        {
            "key": f"node.kubernetes.io/{trouble}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": EVICT_AFTER_SECONDS,
        }
        for trouble in ("not-ready", "unreachable")
    )


def _main(spec: Manifest) -> Manifest:
    return next(c for c in spec["containers"] if c["name"] == MAIN_CONTAINER)

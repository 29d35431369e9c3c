"""Pure builders of the objects that we create: workers, the gang's Service, Events."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from stokehold.api.names import (
    API_VERSION,
    ATTEMPT_LABEL,
    INDEX_LABEL,
    JOB_LABEL,
    MAIN_CONTAINER,
    MANAGED_BY,
    TRACKING_FINALIZER,
)
from stokehold.api.times import format_time
from stokehold.cluster.annotations import GANG, JOB_NAME, Gang
from stokehold.model import names
from stokehold.model.actions import AdmitJob, Note
from stokehold.model.demand import shaped_pod
from stokehold.model.merge import strategic_merge
from stokehold.model.snapshot import Job, OwnObject
from stokehold.model.taints import Taint

RENDEZVOUS_PORT = 29500
EVICT_AFTER_SECONDS = 60
"""How long a worker stays on a node that does not answer; Kubernetes' own default is five minutes of idle peers."""

Manifest = dict[str, Any]


def worker(action: AdmitJob, index: int) -> Manifest:
    """The pod of one worker, pinned to its node."""
    job = action.job
    shaped = shaped_pod(job.spec, 0, "Never")  # its nodes are known, and so are their taints
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
    main_container(spec)["env"] = main["env"]  # a merge keeps the user's variables in front, where ours are unknown
    give_gpus(spec, job.spec.gpus_per_node, action.placement.gpu_resource)
    _identity(spec, action, index)
    add_shared_memory(spec)
    _checkpoint(spec, job)
    pin(spec, action.placement.nodes[index])
    tolerate(spec, action.placement.taints)
    spec.setdefault("enableServiceLinks", False)  # hundreds of variables in large namespaces
    _keep_tokens_away(spec)
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


class Subject(Protocol):
    """An object of ours that an Event can be about."""

    @property
    def KIND(self) -> str:  # noqa: N802 - as objects of the model have it
        """Its kind."""

    @property
    def namespace(self) -> str:
        """Its namespace; empty when it has none."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def uid(self) -> str:
        """Its identity."""

    @property
    def resource_version(self) -> str:
        """The version that the Event is about."""


def event(about: Subject, note: Note, at: datetime, reporter: str) -> Manifest:
    """An Event about one of our objects. Its name follows from the news, so that telling it again is refused.

    Events about cluster-scoped objects live in the namespace default.
    """
    digest = sha256(f"{about.uid} {note.key}".encode()).hexdigest()[:12]
    time = format_time(at)
    version = {"resourceVersion": about.resource_version} if about.resource_version else {}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{names.stem(about.name)}.{digest}", "namespace": about.namespace or "default"},
        "involvedObject": {
            "apiVersion": "v1" if about.KIND == "Pod" else API_VERSION,
            "kind": about.KIND,
            **({"namespace": about.namespace} if about.namespace else {}),
            "name": about.name,
            "uid": about.uid,
            **version,
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


def owner_reference(owner: OwnObject) -> Manifest:
    """The reference that makes one of our objects the controller of another."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.KIND,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _labels(job: Job) -> dict[str, str]:
    return {JOB_LABEL: names.label_value(job.name), **MANAGED_BY}


def _annotations(action: AdmitJob, index: int) -> dict[str, str]:
    placement = action.placement
    gang = Gang(
        size=len(placement.nodes),
        restarts=action.restarts,
        pool=placement.pool,
        gpu_type=placement.gpu_type,
        capacity=placement.capacity,
        nodes=placement.nodes if index == 0 else (),
        generation=action.job.generation,
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
    return {"name": MAIN_CONTAINER, "env": [*ours, *theirs]}


def _environment(action: AdmitJob, index: int) -> dict[str, str]:
    """How the workers find each other. A worker that is alone gets what torchrun does not assume by itself.

    Each variable counts: it is written, copied and compared in all of the pod's writes (docs/designs/0007).
    """
    job, size = action.job, len(action.placement.nodes)
    lead = names.hostname(job.name, 0)
    master = f"{lead}.{names.service_name(job.name)}.{job.namespace}.svc" if size > 1 else "localhost"
    environment = {
        "PET_NPROC_PER_NODE": str(job.spec.gpus_per_node or 1),
        "MASTER_ADDR": master,
        "MASTER_PORT": str(RENDEZVOUS_PORT),
        "WORLD_SIZE": str(size),
        "RANK": str(index),
    }
    if size > 1:
        environment |= {
            "PET_NNODES": str(size),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": master,
            "PET_MASTER_PORT": str(RENDEZVOUS_PORT),
        }
    if job.spec.checkpoint:
        environment |= {"CHECKPOINT_DIR": job.spec.checkpoint.path, "STOKEHOLD_ATTEMPT": str(action.attempt)}
    return environment


def give_gpus(spec: Manifest, gpus: int, resource: str) -> None:
    """The GPUs go to the main container; all others see none, whatever variables their images set.

    Without a request the runtime would show every GPU of the node to a container that paid for none.
    """
    hidden = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        if container["name"] != MAIN_CONTAINER:
            container["env"] = [*container.get("env", ()), *hidden]
        elif gpus:
            for part in ("requests", "limits"):
                container.setdefault("resources", {}).setdefault(part, {})[resource] = str(gpus)
        else:
            container["env"] = [*container.get("env", ()), *hidden, {"name": "CUDA_VISIBLE_DEVICES", "value": ""}]


def _keep_tokens_away(spec: Manifest) -> None:
    """Training needs no word with the API server: whoever names a service account wants its token, nobody else."""
    if "serviceAccountName" not in spec:
        spec.setdefault("automountServiceAccountToken", False)


def _identity(spec: Manifest, action: AdmitJob, index: int) -> None:
    spec["hostname"] = names.hostname(action.job.name, index)
    if len(action.placement.nodes) > 1:
        spec["subdomain"] = names.service_name(action.job.name)


def add_shared_memory(spec: Manifest) -> None:
    """NCCL and data loaders need more than the runtime's 64 MiB of /dev/shm."""
    main = main_container(spec)
    mounts = main.setdefault("volumeMounts", [])
    if any(mount.get("mountPath") == "/dev/shm" for mount in mounts):  # noqa: S108 - the path inside the pod
        return
    mounts.append({"name": "stokehold-shm", "mountPath": "/dev/shm"})  # noqa: S108 - the path inside the pod
    spec.setdefault("volumes", []).append({"name": "stokehold-shm", "emptyDir": {"medium": "Memory"}})


def _checkpoint(spec: Manifest, job: Job) -> None:
    checkpoint = job.spec.checkpoint
    if checkpoint is None:
        return
    spec["terminationGracePeriodSeconds"] = max(1, round(checkpoint.grace_period.seconds))
    if checkpoint.claim_name is None:
        return  # the program saves to an object store by itself
    main_container(spec).setdefault("volumeMounts", []).append(
        {"name": "stokehold-checkpoint", "mountPath": checkpoint.path}
    )
    spec.setdefault("volumes", []).append(
        {"name": "stokehold-checkpoint", "persistentVolumeClaim": {"claimName": checkpoint.claim_name}}
    )


def require_node(spec: Manifest, node: str) -> None:
    """Require this node by name, beside whatever the user's template asks of nodes; kube-scheduler still binds."""
    required = (
        spec.setdefault("affinity", {})
        .setdefault("nodeAffinity", {})
        .setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    pinned = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [term | {"matchFields": [pinned]} for term in terms]


def pin(spec: Manifest, node: str) -> None:
    """Require the node, and leave it soon when it does not answer."""
    require_node(spec, node)
    leave_silent_nodes(spec)


def leave_silent_nodes(spec: Manifest) -> None:
    """Leave a node soon when it does not answer."""
    spec.setdefault("tolerations", []).extend(
        {
            "key": f"node.kubernetes.io/{trouble}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": EVICT_AFTER_SECONDS,
        }
        for trouble in ("not-ready", "unreachable")
    )


def tolerate(spec: Manifest, taints: Iterable[Taint]) -> None:
    """Let the pod onto nodes that are tainted because they were bought for our work."""
    spec.setdefault("tolerations", []).extend(
        {"key": taint.key, "operator": "Exists", "effect": taint.effect} for taint in taints
    )


def main_container(spec: Manifest) -> Manifest:
    """The container that runs the user's image."""
    return next(c for c in spec["containers"] if c["name"] == MAIN_CONTAINER)

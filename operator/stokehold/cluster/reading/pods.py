"""A pod of the API server -> a pod of the model."""

from datetime import timedelta

import msgspec

from stokehold.api.names import (
    ATTEMPT_LABEL,
    GROUP,
    INDEX_LABEL,
    JOB_LABEL,
    MAIN_CONTAINER,
    PLACEMENT_GATE,
    SERVING_LABEL,
    TRACKING_FINALIZER,
    WORKSPACE_LABEL,
)
from stokehold.cluster import wire
from stokehold.cluster.annotations import GANG, JOB_NAME, PLACED_AT, Gang
from stokehold.cluster.reading.fields import is_true, pinned_node, time_in
from stokehold.cluster.resources import DEV_WORKSPACES, INFERENCE_POOLS, TRAINING_JOBS
from stokehold.model import accounting
from stokehold.model.accounting import Resources
from stokehold.model.pods import DELETED, Member, Pod, Worker

MIRROR = "kubernetes.io/config.mirror"
"""On what a kubelet shows of its static pods."""

PULL_TROUBLES = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
OTHER_TROUBLES = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
"""Reasons of the kubelet for which somebody must mend something before a container starts."""

MEMBERSHIP = (
    (DEV_WORKSPACES.kind, WORKSPACE_LABEL),
    (INFERENCE_POOLS.kind, SERVING_LABEL),
    (TRAINING_JOBS.kind, JOB_LABEL),
)

LARGEST_GANG = 4096
"""What the API allows in spec.numNodes."""


def read_pod(raw: wire.Pod) -> Pod:
    """A pod; its requests are charged to the node it is bound to, else to the one that we pinned it to.

    Ours have a controller. A pod without one that only looks like ours holds nothing until it is bound.
    """
    meta, status = raw.metadata, raw.status
    controller = next((ref for ref in meta.owner_references if ref.controller), None)
    worker = _worker(meta)
    member = _member(meta) if worker is None else None
    like_worker = worker is not None or (member is not None and member.kind == TRAINING_JOBS.kind)
    of_job = controller is not None and _is_job(controller)
    # Others' pods count as for kube-scheduler: not at all once they have ended, whoever keeps them.
    is_ours = controller is not None and (worker is not None or member is not None or of_job)
    conditions = {condition.type: condition for condition in status.conditions}
    scheduled = conditions.get("PodScheduled")
    ended = _end_of_main(status)
    return Pod(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        phase=status.phase,
        requests=_pod_requests(raw.spec),
        node=raw.spec.node_name or (pinned_node(raw.spec) if is_ours else ""),
        bound=bool(raw.spec.node_name),
        owner_uid=controller.uid if controller and (not like_worker or of_job) else "",
        of_job=of_job,
        worker=worker,
        member=member,
        gated=any(gate.name == PLACEMENT_GATE for gate in raw.spec.scheduling_gates),
        placed_at=time_in(meta.annotations.get(PLACED_AT)),
        address=status.pod_ip if member else "",
        tracked=TRACKING_FINALIZER in meta.finalizers,
        terminating_since=meta.deletion_timestamp,
        held=is_ours and _is_held(meta, ended),
        created_at=meta.creation_timestamp,
        started_at=status.start_time,
        finished_at=ended.finished_at if ended else None,
        ready=is_true(conditions.get("Ready")),
        exit_code=ended.exit_code if ended else None,
        reason=status.reason or _why_it_failed(raw, ended),
        message=status.message,
        unschedulable=scheduled.message if scheduled and not is_true(scheduled) else "",
        trouble=_trouble(status),
        disrupted=is_true(conditions.get("DisruptionTarget")),
        of_node=MIRROR in meta.annotations or (controller is not None and controller.kind in ("DaemonSet", "Node")),
    )


def _is_job(owner: wire.OwnerReference) -> bool:
    """Whoever copies a worker's labels into a Deployment has pods that look like ours and are not."""
    return owner.kind == TRAINING_JOBS.kind and owner.api_version.partition("/")[0] == GROUP


def _worker(meta: wire.Metadata) -> Worker | None:
    labels, annotations = meta.labels, meta.annotations
    try:
        gang = msgspec.json.decode(annotations[GANG], type=Gang)
        attempt, index = int(labels[ATTEMPT_LABEL]), int(labels[INDEX_LABEL])
        if attempt < 1 or not 0 <= index < gang.size <= LARGEST_GANG:
            return None  # labels are anybody's to write; a gang of a billion would stop every plan
        return Worker(
            job=annotations.get(JOB_NAME) or labels[JOB_LABEL],
            attempt=attempt,
            index=index,
            gang_size=gang.size,
            restarts=gang.restarts,
            pool=gang.pool,
            gpu_type=gang.gpu_type,
            capacity=gang.capacity,
            placement=gang.nodes,
            generation=gang.generation,
        )
    except (KeyError, ValueError, RecursionError):  # what is no JSON of ours is a ValueError too
        return None


def _member(meta: wire.Metadata) -> Member | None:
    for kind, label in MEMBERSHIP:
        if name := meta.labels.get(label):
            return Member(kind, name)
    return None


def _pod_requests(spec: wire.PodSpec) -> Resources:
    pod_level = _container(wire.Container(resources=spec.resources)) if spec.resources else None
    return accounting.count_requests(
        [_container(c) for c in spec.containers],
        [_container(c) for c in spec.init_containers],
        pod_level,
        spec.overhead,
    )


def _container(raw: wire.Container) -> accounting.Container:
    resources = raw.resources or wire.Resources()
    return accounting.Container(resources.requests, resources.limits, raw.restart_policy == "Always")


def _end_of_main(status: wire.PodStatus) -> wire.Terminated | None:
    """The end of the worker's own container, or of the first that failed."""
    ends = {s.name: s.state.terminated for s in status.container_statuses if s.state and s.state.terminated}
    failed = next((end for end in ends.values() if end.exit_code), None)
    return failed or ends.get(MAIN_CONTAINER) or next(iter(ends.values()), None)


def _why_it_failed(raw: wire.Pod, ended: wire.Terminated | None) -> str:
    """The container's reason; DELETED if the pod was asked to go before it ended.

    A pod that has ended already is deleted without a grace period; of one that ran until then the kubelet takes the
    grace period off once it has ended, and so sets the time back to that at which it was asked to go.
    """
    if ended is None or raw.status.phase != "Failed":
        return ""
    asked_at, grace = raw.metadata.deletion_timestamp, raw.metadata.deletion_grace_period_seconds
    if asked_at is None:
        return ended.reason
    is_answer = grace > 0 or (ended.finished_at is not None and ended.finished_at >= asked_at)
    return DELETED if is_answer else ended.reason


def _is_held(meta: wire.Metadata, ended: wire.Terminated | None) -> bool:
    """Whether what it was asked to end is kept by more than our own finalizer, which waits for its outcome alone."""
    if meta.deletion_timestamp is None or not set(meta.finalizers) - {TRACKING_FINALIZER}:
        return False
    asked = meta.deletion_timestamp - timedelta(seconds=meta.deletion_grace_period_seconds)
    return ended is not None and ended.finished_at is not None and ended.finished_at >= asked


def _trouble(status: wire.PodStatus) -> str:
    """Why a container will hardly start by itself; the same words for as long as that lasts."""
    for container in (*status.init_container_statuses, *status.container_statuses):
        waits = container.state.waiting if container.state else None
        if waits is None or waits.reason not in (*PULL_TROUBLES, *OTHER_TROUBLES):
            continue
        if waits.reason in PULL_TROUBLES:  # reason and message change with each try
            return f"its image {container.image} cannot be pulled"
        return f"{waits.reason}: {waits.message}" if waits.message else waits.reason
    return ""

"""One object of the API server -> one value of the model. Pure; all tolerance for odd objects is here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta

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
from stokehold.api.times import parse_time
from stokehold.cluster import wire
from stokehold.cluster.annotations import (
    CLOSED,
    GANG,
    GPU_COUNT,
    GPU_RESOURCE,
    JOB_NAME,
    PLACED_AT,
    REFUSED_BY,
    TEMPLATE,
    TERM,
    UNDONE_AT,
    WANTED_BY,
    WRITTEN_REPLICAS,
    Gang,
)
from stokehold.cluster.ownership import REPLICAS, other_writer
from stokehold.cluster.ownership import TEMPLATE as TEMPLATE_SPEC
from stokehold.cluster.resources import DEV_WORKSPACES, FIELD_MANAGER, INFERENCE_POOLS, TRAINING_JOBS
from stokehold.model import accounting, names
from stokehold.model.accounting import Resources
from stokehold.model.demand import Match, Terms, terms_of
from stokehold.model.kubelets import Refusal
from stokehold.model.pods import DELETED, Member, Pod, PodSet, Worker
from stokehold.model.snapshot import (
    Autoscaler,
    Holidays,
    Namespace,
    Node,
    PriorityClass,
    StorageClass,
    VolumeClaim,
)
from stokehold.model.taints import Taint

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

CHILD_NAMES = {INFERENCE_POOLS.kind: names.serving_name, DEV_WORKSPACES.kind: names.workspace_name}
"""How the one StatefulSet, Deployment, Service and budget of an owner is called."""
SERVICE_NAMES = {**CHILD_NAMES, TRAINING_JOBS.kind: names.service_name}

PLACE_LABELS = {
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
}
"""Labels of volumes by which kube-scheduler keeps pods near them, and those of nodes that they are compared with."""

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
"""On the StorageClass of claims that name none."""

SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})
"""Access modes in which several nodes may have a volume at once."""

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
        node=raw.spec.node_name or (_pinned_node(raw.spec) if is_ours else ""),
        bound=bool(raw.spec.node_name),
        owner_uid=controller.uid if controller and (not like_worker or of_job) else "",
        of_job=of_job,
        worker=worker,
        member=member,
        gated=any(gate.name == PLACEMENT_GATE for gate in raw.spec.scheduling_gates),
        placed_at=_time(meta.annotations.get(PLACED_AT)),
        address=status.pod_ip if member else "",
        tracked=TRACKING_FINALIZER in meta.finalizers,
        terminating_since=meta.deletion_timestamp,
        held=is_ours and _is_held(meta, ended),
        created_at=meta.creation_timestamp,
        started_at=status.start_time,
        finished_at=ended.finished_at if ended else None,
        ready=_holds(conditions.get("Ready")),
        exit_code=ended.exit_code if ended else None,
        reason=status.reason or _why_it_failed(raw, ended),
        message=status.message,
        unschedulable=scheduled.message if scheduled and not _holds(scheduled) else "",
        trouble=_trouble(status),
        disrupted=_holds(conditions.get("DisruptionTarget")),
        of_node=MIRROR in meta.annotations or (controller is not None and controller.kind in ("DaemonSet", "Node")),
    )


def read_node(raw: wire.Node) -> Node:
    """A node; only a condition Ready that is True makes it ready."""
    ready = next((c for c in raw.status.conditions if c.type == "Ready"), None)
    return Node(
        name=raw.metadata.name,
        labels=raw.metadata.labels,
        capacity=accounting.amounts(raw.status.capacity),
        allocatable=accounting.amounts(raw.status.allocatable),
        taints=tuple(Taint(t.key, t.value, t.effect) for t in raw.spec.taints),
        ready=_holds(ready) and raw.metadata.deletion_timestamp is None,
        unschedulable=raw.spec.unschedulable,
        closed_by_us=raw.spec.unschedulable and CLOSED in raw.metadata.annotations,
        uid=raw.metadata.uid,
        provider_id=raw.spec.provider_id,
    )


def settle(old: Node | None, new: Node, now: datetime, settle_time: timedelta) -> Node:
    """Distrust a device plugin that has just come back, for it often flaps.

    A count below what the node had marks it, or at first sight one below what the node has; a rise starts the clock.
    """
    after = _devices(new.allocatable)
    if old is None:
        fell = any(after.get(name, 0) < count for name, count in _devices(new.capacity).items())
        return replace(new, settles_at=now if fell else None, proven_at=now + settle_time)
    before = _devices(old.allocatable)
    names = before.keys() | after.keys()
    fell = any(after.get(name, 0) < before.get(name, 0) for name in names)
    rose = any(after.get(name, 0) > before.get(name, 0) for name in names)
    if fell or (rose and old.settles_at is not None):
        return replace(new, settles_at=now + settle_time, proven_at=old.proven_at)
    return replace(new, settles_at=old.settles_at, proven_at=old.proven_at)


def read_namespace(raw: wire.Namespace) -> Namespace:
    """A namespace."""
    going = raw.status.phase == "Terminating" or raw.metadata.deletion_timestamp is not None
    return Namespace(raw.metadata.name, raw.metadata.labels, going, raw.metadata.uid)


def read_priority_class(raw: wire.PriorityClass) -> PriorityClass:
    """A PriorityClass."""
    return PriorityClass(raw.metadata.name, raw.value, raw.global_default, raw.preemption_policy != "Never")


def read_pod_set(raw: wire.PodSet) -> PodSet | None:
    """A StatefulSet or Deployment of ours; None for a copy under another name, which takes labels and owner along."""
    meta = raw.metadata
    owner = _owner_of_child(meta, CHILD_NAMES)
    if owner is None:
        return None
    return PodSet(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        owner_uid=owner,
        replicas=raw.spec.replicas,
        ready_replicas=raw.status.ready_replicas,
        current_replicas=raw.status.replicas,
        updated_replicas=raw.status.updated_replicas,
        problem=next((c.message for c in raw.status.conditions if c.type == "ReplicaFailure" and _holds(c)), ""),
        paused=raw.spec.paused,
        node=_pinned_node(raw.spec.template.spec),
        template=meta.annotations.get(TEMPLATE, ""),
        gpu_resource=meta.annotations.get(GPU_RESOURCE, ""),
        term=_count(meta.annotations.get(TERM)) or 0,
        wanted_by=_count(meta.annotations.get(WANTED_BY)) or 0,
        gpus=_count(meta.annotations.get(GPU_COUNT)),
        written_replicas=_count(meta.annotations.get(WRITTEN_REPLICAS)),
        refusals=tuple(_refusals(meta.annotations.get(REFUSED_BY, ""))),
        undone_at=_times(meta.annotations.get(UNDONE_AT, "")),
        replicas_writer=other_writer(meta.managed_fields, FIELD_MANAGER, REPLICAS),
        template_writer=other_writer(meta.managed_fields, FIELD_MANAGER, TEMPLATE_SPEC),
    )


def read_volume_claim(raw: wire.VolumeClaim) -> VolumeClaim:
    """The volume claim of a workspace."""
    return VolumeClaim(
        phase=raw.status.phase,
        deleting=raw.metadata.deletion_timestamp is not None,
        volume=raw.spec.volume_name,
        storage_class=raw.spec.storage_class_name,
        size=str(raw.spec.resources.requests.get("storage", "")),
        on_one_node=bool(raw.spec.access_modes) and not SHARED_MODES & set(raw.spec.access_modes),
    )


def read_volume(raw: wire.Volume) -> Terms | None:
    """From which nodes a volume can be reached; None for one that all nodes can reach."""
    affinity = raw.spec.node_affinity
    terms = terms_of(affinity.required) if affinity is not None and affinity.required else ()
    labels = raw.metadata.labels
    told = [(key, labels[label]) for label, key in PLACE_LABELS.items() if label in labels]
    places = tuple(Match(key, "In", tuple(places.split("__"))) for key, places in told)
    if places:
        terms = tuple((*term, *places) for term in terms or ((),))
    return terms or None


def read_storage_class(raw: wire.StorageClass) -> StorageClass:
    """Where volumes of a class may be made."""
    terms = tuple(
        tuple(Match(one.key, "In", tuple(one.values)) for one in term.match_label_expressions)
        for term in raw.allowed_topologies
    )
    return StorageClass(raw.metadata.name, terms, raw.metadata.annotations.get(DEFAULT_CLASS) == "true")


def read_holidays(raw: wire.ConfigMap) -> Holidays:
    """The days off that a ConfigMap has as its keys."""
    days: set[date] = set()
    strange: list[str] = []
    for key in sorted(raw.data):
        try:
            days.add(date.fromisoformat(key))
        except ValueError:
            strange.append(key)
    return Holidays(frozenset(days), tuple(strange))


def child_reader(label: str) -> Callable[[wire.Child], str | None]:
    """Of Services and budgets with this label: the uid of their owner, None for what is nobody's.

    The label is looked at although the watch selects by it: what we write comes to the watches of all labels.
    One on its way out is there until it is gone: before that nobody can make another of its name.
    """

    def read(raw: wire.Child) -> str | None:
        return _owner_of_child(raw.metadata, SERVICE_NAMES) if label in raw.metadata.labels else None

    return read


def read_autoscaler(raw: wire.Autoscaler) -> Autoscaler | None:
    """An autoscaler that scales one of our pools; None for all others, and for what is on its way out."""
    target = raw.spec.scale_target_ref
    ours = (target.kind, target.api_version.partition("/")[0]) == (INFERENCE_POOLS.kind, GROUP)
    if not ours or raw.metadata.deletion_timestamp is not None:
        return None
    can = any(one.type == "ScalingActive" and one.status == "True" for one in raw.status.conditions)
    return Autoscaler(raw.metadata.name, target.name, can or raw.status.last_scale_time is not None)


def _is_job(owner: wire.OwnerReference) -> bool:
    """Whoever copies a worker's labels into a Deployment has pods that look like ours and are not."""
    return owner.kind == TRAINING_JOBS.kind and owner.api_version.partition("/")[0] == GROUP


def _owner_of_child(meta: wire.Metadata, called: Mapping[str, Callable[[str], str]]) -> str | None:
    """The uid of the object of ours whose child has this very name; `called` makes it of the owner's, by kind."""
    ref = next((ref for ref in meta.owner_references if ref.controller), None)
    ours = ref is not None and ref.api_version.partition("/")[0] == GROUP
    if ref is None or not ours or ref.kind not in called or called[ref.kind](ref.name) != meta.name:
        return None
    return ref.uid


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


def _pinned_node(spec: wire.PodSpec) -> str:
    affinity = spec.affinity.node_affinity if spec.affinity else None
    terms = affinity.required.node_selector_terms if affinity and affinity.required else []
    for term in terms:
        for field in term.match_fields:
            if field.key == "metadata.name" and len(field.values) == 1:
                return field.values[0]
    return ""


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


def _holds(condition: wire.Condition | None) -> bool:
    return condition is not None and condition.status == "True"


def _times(text: str) -> tuple[datetime, ...]:
    return tuple(at for at in map(_time, text.split()) if at is not None)


def _refusals(text: str) -> Iterator[Refusal]:
    for part in text.split():
        node, _, at = part.rpartition("=")
        time = _time(at)
        if node and time is not None:
            yield Refusal(node, time)


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and text.isascii() else None


def _time(text: str | None) -> datetime | None:
    """An instant in an annotation; None when nobody can read it."""
    return parse_time(text) if text else None


def _devices(allocatable: Resources) -> dict[str, int]:
    """The device resources of a node: names with a domain, such as nvidia.com/gpu."""
    return {name: count for name, count in allocatable.items() if "/" in name}

"""One object of the API server -> one value of the model. Pure; all tolerance for odd objects is here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stokehold.api.names import (
    ATTEMPT_LABEL,
    FINISHED_ANNOTATION,
    INDEX_LABEL,
    JOB_LABEL,
    KEY_PREFIX,
    MAIN_CONTAINER,
    PLACEMENT_GATE,
    SERVING_LABEL,
    STOPPED_ANNOTATION,
    TRACKING_FINALIZER,
    WORKSPACE_LABEL,
)
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.gpu_node import GPUNode
from stokehold.api.v1alpha1.gpu_node_claim import GPUNodeClaim
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePool
from stokehold.api.v1alpha1.gpu_queue import GPUQueue
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import FAILED, SUCCEEDED, TrainingJob, TrainingJobStatus
from stokehold.cluster import wire
from stokehold.cluster.annotations import (
    GANG,
    GPU_RESOURCE,
    JOB_NAME,
    PLACED_AT,
    TEMPLATE,
    UNDONE_AT,
    WRITTEN_REPLICAS,
    Gang,
)
from stokehold.cluster.ownership import REPLICAS, other_writer
from stokehold.cluster.ownership import TEMPLATE as TEMPLATE_SPEC
from stokehold.cluster.resources import FIELD_MANAGER
from stokehold.model import accounting
from stokehold.model.demand import demand_of, replica_demand, workspace_demand
from stokehold.model.snapshot import (
    Claim,
    Job,
    Member,
    Namespace,
    Node,
    NodePool,
    Pod,
    PodSet,
    PriorityClass,
    Proof,
    Queue,
    Resources,
    ServingPool,
    Sighting,
    StopRecord,
    Worker,
    Workspace,
)
from stokehold.model.taints import Taint

SETTLE = timedelta(seconds=30)
"""A device plugin that came back is trusted after this: it often flaps."""


LARGEST_GANG = 4096
"""What the API allows in spec.numNodes."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A TrainingJob that exists but cannot be understood: it and its pods are left alone."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    why: str


class ProofText(msgspec.Struct, rename="camel"):
    """The JSON of the annotation that proves a job's end."""

    outcome: str
    attempt: int
    restarts: int
    completion_time: datetime
    reason: str = ""
    message: str = ""


class StopText(msgspec.Struct, rename="camel"):
    """The JSON of the annotation that says why a workspace was stopped."""

    reason: str
    message: str
    time: datetime


def read_pod(raw: wire.Pod) -> Pod:
    """A pod; its requests are charged to the node it is bound to, else to the one that we pinned it to."""
    meta, status = raw.metadata, raw.status
    controller = next((ref for ref in meta.owner_references if ref.controller), None)
    worker, member = _worker(meta), _member(meta)
    conditions = {condition.type: condition for condition in status.conditions}
    scheduled = conditions.get("PodScheduled")
    ended = _end_of_main(status)
    return Pod(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        phase=status.phase,
        requests=_pod_requests(raw.spec),
        node=raw.spec.node_name or (_pinned_node(raw.spec) if worker or member else ""),
        bound=bool(raw.spec.node_name),
        owner_uid=controller.uid if controller else "",
        worker=worker,
        member=member,
        gated=any(gate.name == PLACEMENT_GATE for gate in raw.spec.scheduling_gates),
        placed_at=_time(meta.annotations.get(PLACED_AT)),
        address=status.pod_ip if member else "",
        tracked=TRACKING_FINALIZER in meta.finalizers,
        terminating_since=meta.deletion_timestamp,
        created_at=meta.creation_timestamp,
        started_at=status.start_time,
        finished_at=ended.finished_at if ended else None,
        ready=_holds(conditions.get("Ready")),
        exit_code=ended.exit_code if ended else None,
        reason=status.reason or (ended.reason if ended and status.phase == "Failed" else ""),
        message=status.message,
        unschedulable=scheduled.message if scheduled and not _holds(scheduled) else "",
        disrupted=_holds(conditions.get("DisruptionTarget")),
        of_node=controller is not None and controller.kind in ("DaemonSet", "Node"),
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
        uid=raw.metadata.uid,
        provider_id=raw.spec.provider_id,
    )


def settle(old: Node | None, new: Node, now: datetime) -> Node:
    """Distrust a device plugin that has just come back: the node takes nothing new until the count was stable.

    A count below what the node had marks it; a rise starts the clock. New nodes are trusted at once.
    """
    if old is None:
        return new
    before, after = _devices(old.allocatable), _devices(new.allocatable)
    names = before.keys() | after.keys()
    fell = any(after.get(name, 0) < before.get(name, 0) for name in names)
    rose = any(after.get(name, 0) > before.get(name, 0) for name in names)
    if fell or (rose and old.settles_at is not None):
        return replace(new, settles_at=now + SETTLE)
    return replace(new, settles_at=old.settles_at)


def read_namespace(raw: wire.Namespace) -> Namespace:
    """A namespace."""
    going = raw.status.phase == "Terminating" or raw.metadata.deletion_timestamp is not None
    return Namespace(raw.metadata.name, raw.metadata.labels, going, raw.metadata.uid)


def read_priority_class(raw: wire.PriorityClass) -> PriorityClass:
    """A PriorityClass."""
    return PriorityClass(raw.metadata.name, raw.value, raw.global_default, raw.preemption_policy != "Never")


def read_job(raw: wire.OwnKind, known: "Job | Unreadable | None" = None) -> "Job | Unreadable":
    """A TrainingJob without its pods; the spec of `known`, the value read before, is taken over if it is the same."""
    meta = raw.metadata
    try:
        status = _status(raw.status) if _is_same(known, meta) else None
        if isinstance(known, Job) and status is not None:
            spec, demand = known.spec, known.demand
        else:
            parsed = TrainingJob.read(_document("TrainingJob", raw))
            spec, status, demand = parsed.spec, parsed.status or TrainingJobStatus(), demand_of(parsed.spec)
    except ValueError as error:
        return Unreadable(meta.namespace, meta.name, meta.uid, meta.resource_version, _first_line(error))
    return Job(**_identity(meta), spec=spec, status=status, demand=demand, proof=_proof(meta.annotations, status))


def read_queue(raw: wire.OwnKind) -> Queue:
    """A GPUQueue; raises ValueError when it cannot be understood."""
    parsed = GPUQueue.read(_document("GPUQueue", raw))
    return Queue(raw.metadata.name, raw.metadata.uid, parsed.spec)


def read_node_pool(raw: wire.OwnKind) -> NodePool:
    """A GPUNodePool; raises ValueError when it cannot be understood."""
    parsed = GPUNodePool.read(_document("GPUNodePool", raw))
    return NodePool(**_identity(raw.metadata), spec=parsed.spec, status=parsed.status)


def read_workspace(raw: wire.OwnKind) -> Workspace:
    """A DevWorkspace without its pods; raises ValueError when it cannot be understood."""
    parsed = DevWorkspace.read(_document("DevWorkspace", raw))
    ours = {key: value for key, value in raw.metadata.annotations.items() if key.startswith(KEY_PREFIX)}
    return Workspace(
        **_identity(raw.metadata),
        spec=parsed.spec,
        status=parsed.status,
        demand=workspace_demand(parsed.spec),
        annotations=ours,
        stop_record=_stop_record(ours),
    )


def read_serving_pool(raw: wire.OwnKind) -> ServingPool:
    """An InferencePool without its pods; raises ValueError when it cannot be understood."""
    parsed = InferencePool.read(_document("InferencePool", raw))
    return ServingPool(
        **_identity(raw.metadata), spec=parsed.spec, status=parsed.status, demand=replica_demand(parsed.spec)
    )


def read_claim(raw: wire.OwnKind) -> Claim:
    """A GPUNodeClaim; raises ValueError when it cannot be understood."""
    parsed = GPUNodeClaim.read(_document("GPUNodeClaim", raw))
    return Claim(
        **_identity(raw.metadata),
        spec=parsed.spec,
        status=parsed.status,
        finalizers=tuple(raw.metadata.finalizers),
        deleting_since=raw.metadata.deletion_timestamp,
    )


def read_sighting(raw: wire.OwnKind) -> Sighting:
    """A GPUNode; raises ValueError when it cannot be understood."""
    return Sighting(raw.metadata.name, GPUNode.read(_document("GPUNode", raw)).status)


def read_pod_set(raw: wire.PodSet) -> PodSet:
    """A StatefulSet or Deployment of ours."""
    meta = raw.metadata
    owner = next((ref.uid for ref in meta.owner_references if ref.controller), "")
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
        node=_pinned_node(raw.spec.template.spec),
        template=meta.annotations.get(TEMPLATE, ""),
        gpu_resource=meta.annotations.get(GPU_RESOURCE, ""),
        written_replicas=_count(meta.annotations.get(WRITTEN_REPLICAS)),
        undone_at=_times(meta.annotations.get(UNDONE_AT, "")),
        replicas_writer=other_writer(meta.managed_fields, FIELD_MANAGER, REPLICAS),
        template_writer=other_writer(meta.managed_fields, FIELD_MANAGER, TEMPLATE_SPEC),
    )


def read_serving_owner(raw: wire.Child) -> str | None:
    """The uid of the serving pool that a child belongs to; None for what is on its way out or no pool's."""
    meta = raw.metadata
    if meta.deletion_timestamp is not None or SERVING_LABEL not in meta.labels:
        return None
    return next((ref.uid for ref in meta.owner_references if ref.controller), None)


def _identity(meta: wire.Metadata) -> dict[str, Any]:
    return {
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resource_version": meta.resource_version,
        "generation": meta.generation,
        "created_at": meta.creation_timestamp or EPOCH,
        "deleting": meta.deletion_timestamp is not None,
    }


def _document(kind: str, raw: wire.OwnKind) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": raw.metadata.name}, "spec": raw.spec, "status": raw.status}


def _is_same(known: Job | Unreadable | None, meta: wire.Metadata) -> bool:
    return isinstance(known, Job) and known.uid == meta.uid and known.generation == meta.generation


def _status(raw: Mapping[str, Any]) -> TrainingJobStatus | None:
    """The status; None when a part of it is strange, and must be left out with more care."""
    try:
        return TrainingJobStatus.model_validate(raw, extra="ignore")
    except ValueError:
        return None


def _first_line(error: ValueError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines()[1:3]) or str(error)


def _proof(annotations: Mapping[str, str], status: TrainingJobStatus) -> Proof | None:
    text = annotations.get(FINISHED_ANNOTATION)
    if text is None:
        return None
    try:
        read = msgspec.json.decode(text, type=ProofText)
    except msgspec.MsgspecError:
        # An annotation that nobody can read still says that the job has ended: never run it again.
        outcome = status.phase if status.phase in (SUCCEEDED, FAILED) else FAILED
        told = "the annotation that proves the end cannot be read"
        at = status.completion_time or EPOCH
        return Proof(outcome, status.attempt or 1, status.restarts or 0, at, "Unreadable", told)
    return Proof(read.outcome, read.attempt, read.restarts, read.completion_time, read.reason, read.message)


def proof_text(proof: Proof) -> str:
    """The annotation's value for a proof; `read_job` reads it back."""
    text = ProofText(proof.outcome, proof.attempt, proof.restarts, proof.completed_at, proof.reason, proof.message)
    return msgspec.json.encode(text).decode()


def _stop_record(annotations: Mapping[str, str]) -> StopRecord | None:
    try:
        read = msgspec.json.decode(annotations[STOPPED_ANNOTATION], type=StopText)
    except (KeyError, msgspec.MsgspecError):
        return None
    return StopRecord(read.reason, read.message, read.time) if read.time.tzinfo else None


def stop_text(record: StopRecord) -> str:
    """The annotation's value for a stop; `read_workspace` reads it back."""
    return msgspec.json.encode(StopText(record.reason, record.message, record.time)).decode()


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
    except (KeyError, ValueError):  # what is no JSON of ours is a ValueError too
        return None


def _member(meta: wire.Metadata) -> Member | None:
    for kind, label in (("DevWorkspace", WORKSPACE_LABEL), ("InferencePool", SERVING_LABEL)):
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


def _holds(condition: wire.Condition | None) -> bool:
    return condition is not None and condition.status == "True"


def _times(text: str) -> tuple[datetime, ...]:
    return tuple(at for at in map(_time, text.split()) if at is not None)


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and text.isascii() else None


def _time(text: str | None) -> datetime | None:
    """An instant in an annotation; None when nobody can read it."""
    try:
        parsed = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return parsed if parsed is not None and parsed.tzinfo is not None else None


def _devices(allocatable: Resources) -> dict[str, int]:
    """The device resources of a node: names with a domain, such as nvidia.com/gpu."""
    return {name: count for name, count in allocatable.items() if "/" in name}

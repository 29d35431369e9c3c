"""What a planner may ask for: a closed union of values, each small enough to be carried out by one or a few calls.

Every action is idempotent: carried out twice, or by an operator that has just lost its lease, it changes nothing
that the newer state would not allow (deterministic names, uid and resourceVersion preconditions).
"""

from dataclasses import dataclass
from typing import Any

from stokehold.model.snapshot import Job, OwnObject, Pod, Proof, ServingPool, StopRecord, Workspace


@dataclass(frozen=True, slots=True)
class Placement:
    """Where work goes: one pool, one GPU type, and a node for each of its pods."""

    pool: str
    gpu_type: str
    capacity: str
    gpu_resource: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """An Event for the object's owner; `key` makes its name, so that the same news is told once."""

    reason: str
    message: str
    key: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class AdmitJob:
    """Create the workers `missing` of an attempt on the nodes chosen for them; the lead pod goes first."""

    job: Job
    attempt: int
    restarts: int
    placement: Placement
    missing: tuple[int, ...]
    pod_priority_class: str = ""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Replace an object's status; refused by the API server if the object has changed since the snapshot."""

    subject: OwnObject
    status: dict[str, Any]
    notes: tuple[Note, ...] = ()
    closes_attempt: str = ""
    """The reason for which it closes a job's current attempt, if it does."""


@dataclass(frozen=True, slots=True)
class FinishJob:
    """Record for good that the job is over: first the proof on the object itself, then the status.

    Without a status only the proof is written: the status says it already.
    """

    job: Job
    proof: Proof
    status: dict[str, Any] | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Take our finalizer off a pod whose outcome has been recorded, or whose job is gone."""

    pod: Pod
    why: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod of an attempt that is over; its own grace period applies."""

    pod: Pod
    why: str


@dataclass(frozen=True, slots=True)
class StartWorkspace:
    """Pin the workspace's StatefulSet to the node chosen for it and give it one replica; make what is missing first."""

    workspace: Workspace
    placement: Placement
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class EndWorkspace:
    """Set `spec.running` to false and write down why, in one write; refused if the workspace has changed since."""

    workspace: Workspace
    record: StopRecord
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class ResumeWorkspace:
    """Set `spec.running` to true; refused if the workspace has changed since."""

    workspace: Workspace
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class StopWorkspace:
    """Take the workspace's one replica away; its volume and its Service stay."""

    workspace: Workspace
    why: str


@dataclass(frozen=True, slots=True)
class PlaceReplica:
    """Pin a replica's pod to its node and lift its scheduling gate, in one patch."""

    pool: ServingPool
    pod: Pod
    placement: Placement


Action = (
    AdmitJob
    | WriteStatus
    | FinishJob
    | ReleasePod
    | DeletePod
    | StartWorkspace
    | EndWorkspace
    | ResumeWorkspace
    | StopWorkspace
    | PlaceReplica
)

"""What a planner may ask for: a closed union of values, each small enough to be carried out by one or a few calls.

Every action is idempotent: carried out twice, or by an operator that has just lost its lease, it changes nothing
that the newer state would not allow (deterministic names, uid and resourceVersion preconditions).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from stokehold.api.v1alpha1.gpu_node_claim import GPUNodeClaimSpec
from stokehold.api.v1alpha1.providers import Provider
from stokehold.model.capacity import Instance, NodeRequest
from stokehold.model.kubelets import Refusal
from stokehold.model.pods import Pod
from stokehold.model.snapshot import (
    Claim,
    Job,
    Node,
    NodePool,
    OwnObject,
    Proof,
    ServingPool,
    Sighting,
    StopRecord,
    Workspace,
)
from stokehold.model.taints import Taint


@dataclass(frozen=True, slots=True)
class Placement:
    """Where work goes: one pool, one GPU type, and a node for each of its pods."""

    pool: str
    gpu_type: str
    capacity: str
    gpu_resource: str
    nodes: tuple[str, ...]
    taints: tuple[Taint, ...] = ()
    """Taints of the pool's nodes; the pods are made to tolerate them."""


@dataclass(frozen=True, slots=True)
class Note:
    """An Event for the object's owner, with one of `reasons`; `key` makes its name: the same news is told once."""

    reason: StrEnum
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
    can_wait: bool = False
    """Tells only how full something is: worth a write now and then."""
    decides: str = ""
    """The reason for which it gives a serving pool another number of replicas, if it does."""


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
    """Delete a pod that is of no use any more; its own grace period applies."""

    pod: Pod
    why: str


@dataclass(frozen=True, slots=True)
class DeleteOrphan:
    """Delete a worker, unless the API server knows the TrainingJob that owns it; with the lead goes the Service."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class RestoreService:
    """Make the Service of work that has its nodes once more: somebody has deleted it."""

    owner: Job | Workspace
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class StartWorkspace:
    """Pin the workspace's StatefulSet to the node chosen for it and give it one replica; make what is missing first."""

    workspace: Workspace
    placement: Placement
    new_volume: bool = False
    """An empty volume will do: it has none yet, or its owner wants a fresh one."""
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
    """Take the workspace's one replica away, or those that somebody has added to it; volume and Service stay.

    A status is written once that is done: only a stop that has happened counts as a start that has failed.
    """

    workspace: Workspace
    why: str
    left: int = 0
    """How many replicas stay."""
    refusals: tuple[Refusal, ...] = ()
    """By kubelets, of its pod of late: what its StatefulSet remembers. Empty leaves that as it is."""
    status: dict[str, Any] | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepWorkspace:
    """Note on the StatefulSet of a workspace that its present spec wants it to run.

    A stop that was planned for an older spec and is still on its way is refused then.
    """

    workspace: Workspace


@dataclass(frozen=True, slots=True)
class GrowVolume:
    """Ask for a larger volume for a workspace's files; its pod runs on."""

    workspace: Workspace
    size: str
    """The new size, as a quantity."""


@dataclass(frozen=True, slots=True)
class TellOfNode:
    """Events about a GPUNode. `known` are the keys of all that is the case now: what needs no telling again."""

    sighting: Sighting
    notes: tuple[Note, ...]
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class PlaceReplica:
    """Pin a replica's pod to its node and lift its scheduling gate, in one patch."""

    pool: ServingPool
    pod: Pod
    placement: Placement


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """Write down that a node is wanted, before anybody is asked for it. A claim of that name may be there already."""

    name: str
    spec: GPUNodeClaimSpec
    provider: Provider | None = None
    """Of the pool: kept with the claim, whose node must be given back although the pool may be gone by then."""


@dataclass(frozen=True, slots=True)
class LaunchNode:
    """Ask the pool's provider for the claim's node; asking again under the same request id buys nothing twice."""

    claim: Claim
    pool: NodePool
    request: NodeRequest


@dataclass(frozen=True, slots=True)
class TerminateNode:
    """Have the provider take the claim's machine away; one that it does not know is gone already."""

    claim: Claim
    pool: NodePool


@dataclass(frozen=True, slots=True)
class TerminateOrphan:
    """Have the provider take away a machine that no claim stands for."""

    pool: NodePool
    instance: Instance
    why: str


@dataclass(frozen=True, slots=True)
class CordonNode:
    """Close a node for new pods, or open it again."""

    node: Node
    closed: bool
    why: str


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Delete the Node object of a machine that is gone."""

    node: Node
    why: str


@dataclass(frozen=True, slots=True)
class DeleteClaim:
    """Give the claim's node back; the finalizer keeps the record until that is done."""

    claim: Claim
    why: str


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """Take our finalizer off a claim whose machine is gone: the end of the record."""

    claim: Claim


ClaimAction = CreateClaim | CordonNode | DeleteNode | DeleteClaim | ReleaseClaim
"""Writes about nodes that were bought."""

ProviderCall = LaunchNode | TerminateNode | TerminateOrphan
"""Carried out by a provider, not by the API server."""


@dataclass(frozen=True, slots=True)
class ServingShape:
    """What shapes the replicas of a pool besides its spec, and the digest of both."""

    gpu_resource: str
    pod_priority_class: str
    digest: str


@dataclass(frozen=True, slots=True)
class WriteDeployment:
    """Give a serving pool its Deployment with so many replicas; the only writer of that number.

    A new shape also brings its template, its Service and its PodDisruptionBudget up to date.
    """

    pool: ServingPool
    replicas: int
    shape: ServingShape
    reshapes: bool
    victims: tuple[Pod, ...] = ()
    """On the way down: the replicas that should go first."""
    undone_at: tuple[datetime, ...] = ()
    """When what others wrote was undone, this time included; remembered on the Deployment."""


Action = (
    AdmitJob
    | WriteStatus
    | FinishJob
    | ReleasePod
    | DeletePod
    | DeleteOrphan
    | RestoreService
    | StartWorkspace
    | PlaceReplica
    | WriteDeployment
    | ClaimAction
    | ProviderCall
    | EndWorkspace
    | ResumeWorkspace
    | StopWorkspace
    | KeepWorkspace
    | GrowVolume
    | TellOfNode
)

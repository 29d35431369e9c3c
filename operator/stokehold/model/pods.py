"""Pods as the planners see them: what each takes, whose it is, and the sets in which our objects have them."""

from dataclasses import dataclass
from datetime import datetime

from stokehold.model.accounting import Resources
from stokehold.model.kubelets import Refusal

DELETED = "Deleted"
"""The reason of a pod that failed because somebody had asked it to go: its exit code is the answer to a signal."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What our labels and annotations on a pod say: which attempt and index of which gang it is."""

    job: str
    attempt: int
    index: int
    gang_size: int
    restarts: int
    pool: str = ""
    gpu_type: str = ""
    capacity: str = ""
    placement: tuple[str, ...] = ()
    """Node by index, on the lead pod (index 0) alone: with it a half-created gang can be completed."""
    generation: int = 0
    """The generation of the job's spec that the worker was made from; 0 is unknown."""


@dataclass(frozen=True, slots=True)
class Member:
    """What our label on a pod says: to which object of ours in its namespace it belongs.

    A TrainingJob only where nothing says which of its workers it is.
    """

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, reduced to what accounting and life cycle need.

    `node` is where its requests are charged: the node it is bound to, or the one that we pinned it to.
    """

    namespace: str
    name: str
    uid: str
    phase: str
    requests: Resources
    node: str = ""
    bound: bool = False
    owner_uid: str = ""
    of_job: bool = False
    """Its controller is a TrainingJob, whatever its labels say."""
    worker: Worker | None = None
    member: Member | None = None
    gated: bool = False
    """Waits behind our scheduling gate until the ledger has chosen a node."""
    placed_at: datetime | None = None
    """When the gate was lifted."""
    address: str = ""
    """Its IP, as its kubelet says."""
    tracked: bool = False
    """Carries our finalizer: its outcome has not been recorded yet."""
    terminating_since: datetime | None = None
    held: bool = False
    """Ours, ended when it was asked to go, and kept by a finalizer of somebody else, who is not done with it there."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    ready: bool = False
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    unschedulable: str = ""
    """kube-scheduler's message while it cannot bind the pod."""
    trouble: str = ""
    """What keeps a container from starting until somebody mends it."""
    disrupted: bool = False
    """Has the condition DisruptionTarget: evicted, preempted, or its node was lost."""
    orphaned_since: datetime | None = None
    """Since when its TrainingJob is known to be gone; None while it is there, or while nobody can know."""
    of_node: bool = False
    """Belongs to its node (a DaemonSet's or a static pod): an empty node has it too."""

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)

    @property
    def is_over(self) -> bool:
        """Has ended for good."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def holds_resources(self) -> bool:
        """Whether what it requests is nobody else's: a corpse that somebody holds counts until it is gone."""
        return not self.is_over or self.held

    @property
    def is_active(self) -> bool:
        """Neither over nor on its way out: what controllers count as a replica."""
        return not self.is_over and self.terminating_since is None


@dataclass(frozen=True, slots=True)
class PodSet:
    """A StatefulSet or Deployment of ours: the replicas it should have, and on which node its template pins them."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    owner_uid: str
    replicas: int
    ready_replicas: int = 0
    current_replicas: int = 0
    """How many pods exist."""
    updated_replicas: int = 0
    """How many of them have the newest template."""
    problem: str = ""
    """Why its controller cannot create pods, in its words."""
    paused: bool = False
    """Whether somebody has paused it: no new template reaches its pods."""
    node: str = ""
    template: str = ""
    """The digest of what we last wrote, from an annotation."""
    gpu_resource: str = ""
    """The name under which its pods ask for GPUs, from an annotation."""
    term: int = 0
    """In which term of the leadership it was written last, from an annotation; 0 is unknown."""
    wanted_by: int = 0
    """The generation of the workspace that last wanted it to run, from an annotation; 0 is unknown."""
    gpus: int | None = None
    """How many each of its pods has, from an annotation."""
    written_replicas: int | None = None
    """The number of replicas that we wrote last, from an annotation."""
    undone_at: tuple[datetime, ...] = ()
    """When we last undid what others had written, from an annotation."""
    refusal: Refusal | None = None
    """Of its pod, by the kubelet of the node that it is pinned to now."""
    refusals: tuple[Refusal, ...] = ()
    """Those before it of late, from an annotation."""
    replicas_writer: str = ""
    template_writer: str = ""
    """Who else has written the number, or a part of the pods' spec, as managedFields say."""

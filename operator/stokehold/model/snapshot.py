"""The cluster at one instant, as the planners see it.

Everything here is a frozen value without methods that do I/O. A reader in `cluster/` makes these values from
what the watches hold; planners derive all they need from one `Snapshot`, so the same plan can be made again
from a saved one. `None` means unknown and is never treated as zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import ClassVar

from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceSpec, DevWorkspaceStatus
from stokehold.api.v1alpha1.gpu_node import GPUNodeStatus
from stokehold.api.v1alpha1.gpu_node_claim import Beneficiary, GPUNodeClaimSpec, GPUNodeClaimStatus
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolSpec, GPUNodePoolStatus
from stokehold.api.v1alpha1.gpu_queue import GPUQueueSpec, GPUQueueStatus
from stokehold.api.v1alpha1.inference_pool import InferencePoolSpec, InferencePoolStatus
from stokehold.api.v1alpha1.providers import Provider
from stokehold.api.v1alpha1.training_job import TrainingJobSpec, TrainingJobStatus
from stokehold.model.accounting import Resources
from stokehold.model.capacity import Answer, Listing
from stokehold.model.demand import Amounts, Demand, Terms
from stokehold.model.load import PoolLoad
from stokehold.model.pods import Pod, PodSet
from stokehold.model.taints import Taint


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the API server shows it, and since when its device plugin can be trusted."""

    name: str
    labels: Mapping[str, str]
    capacity: Resources
    allocatable: Resources
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    unschedulable: bool = False
    closed_by_us: bool = False
    """Unschedulable because it was to be given back."""
    settles_at: datetime | None = None
    """Set once a count of devices fell: until then the node takes nothing new."""
    proven_at: datetime | None = None
    """When this process will have watched it for long enough to know by itself whether it is stable."""
    uid: str = ""
    provider_id: str = ""
    """The machine, as its provider names it."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The record in an annotation of the job itself that it has finished; outlives status and pods."""

    outcome: str
    attempt: int
    restarts: int
    completed_at: datetime
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnObject:
    """An object of one of our kinds; cluster-scoped ones have the namespace ""."""

    KIND: ClassVar[str]

    namespace: str = ""
    name: str
    uid: str
    resource_version: str
    generation: int
    created_at: datetime
    deleting: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """A PersistentVolumeClaim."""

    phase: str
    deleting: bool = False
    volume: str = ""
    """The name of the volume that it is bound to."""
    storage_class: str = ""
    size: str = ""
    """What the claim asks for, as a quantity; empty when that is not known."""
    refused_size: str = ""
    """The size to which the API server would not let it grow."""
    on_one_node: bool = False
    """Whether only one node at a time can have it."""


@dataclass(frozen=True, slots=True)
class StorageClass:
    """What claims without a volume yet get theirs from."""

    name: str
    allowed: Terms
    """The nodes for which it makes volumes; empty means all."""
    is_default: bool = False


Reach = tuple[tuple[str, Terms], ...]
"""By claim of a pod the nodes that can reach the volume, or for which it can be made; without those that all can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(OwnObject):
    """A TrainingJob with the pods that name it as their owner, whatever attempt they belong to."""

    KIND = "TrainingJob"

    spec: TrainingJobSpec
    status: TrainingJobStatus
    demand: Demand
    shape: str = ""
    """Of its pods; those of one shape get the same additions to their requests."""
    added: Amounts = ()
    """What its pods ask for, of that of which it is more than the spec says; part of `demand`."""
    claims: tuple[str, ...] = ()
    """The volume claims that its pods name, its checkpoints' among them."""
    volumes: tuple[tuple[str, VolumeClaim | None], ...] = ()
    """Those claims; None for one that does not exist."""
    reach: Reach = ()
    pods: tuple[Pod, ...] = ()
    proof: Proof | None = None
    create_error: str = ""
    """Why the API server refused this job's pods or Service the last time, in its words."""
    create_failed_at: datetime | None = None
    create_failures: int = 0
    """How often in a row, since its spec was changed last."""
    name_taken: bool = False
    """Whether it was refused because somebody else has an object of a name that it needs."""


@dataclass(frozen=True, slots=True)
class StopRecord:
    """Why and when the operator stopped a workspace, from an annotation that was written with `spec.running`."""

    reason: str
    message: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Notebook:
    """What a workspace's Jupyter server said when it was asked at `time`; with an `error` it has said nothing."""

    time: datetime
    pod_uid: str
    error: str = ""
    busy_kernels: int = 0
    kernels: int = 0
    connections: int = 0
    last_activity: datetime | None = None
    """The last message of a kernel or a terminal, else the server's start; by our clock, not by the server's."""


@dataclass(frozen=True, slots=True)
class Holidays:
    """The days off of a ConfigMap, and those of its keys that are no days."""

    days: frozenset[date]
    strange: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace(OwnObject):
    """A DevWorkspace with its StatefulSet, its volume claim and its pods: one, or two while an old one terminates."""

    KIND = "DevWorkspace"

    spec: DevWorkspaceSpec
    status: DevWorkspaceStatus
    demand: Demand
    shape: str = ""
    """Of its pod; those of one shape get the same additions to their requests."""
    added: Amounts = ()
    """What its pod asks for, of that of which it is more than the spec says; part of `demand`."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Ours alone (stokehold.dev/...): how users ask for a snooze."""
    stop_record: StopRecord | None = None
    """Of the operator's last stop; it stays when the workspace is started again."""
    claims: tuple[str, ...] = ()
    """The volume claims that its pod names besides the one for its files."""
    volumes: tuple[tuple[str, VolumeClaim | None], ...] = ()
    """Those claims; None for one that does not exist."""
    volume: VolumeClaim | None = None
    reach: Reach = ()
    holidays: Holidays | None = None
    """Those that its schedule names; None while there is no such ConfigMap."""
    pod_set: PodSet | None = None
    pods: tuple[Pod, ...] = ()
    create_error: str = ""
    """Why the API server refused its StatefulSet, volume or Service the last time, in its words."""
    create_failed_at: datetime | None = None
    create_failures: int = 0
    """How often in a row, since its spec was changed last."""
    name_taken: bool = False
    """Whether it was refused because somebody else has an object of a name that it needs."""


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler that scales a serving pool; `decides` once it has set a number or says that it can."""

    name: str
    pool: str
    decides: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPool(OwnObject):
    """An InferencePool with its Deployment and the pods of all its replicas."""

    KIND = "InferencePool"

    spec: InferencePoolSpec
    status: InferencePoolStatus
    demand: Demand
    claims: tuple[str, ...] = ()
    """The volume claims that its pods name."""
    volumes: tuple[tuple[str, VolumeClaim | None], ...] = ()
    """Those claims; None for one that does not exist."""
    reach: Reach = ()
    pod_set: PodSet | None = None
    autoscaler: Autoscaler | None = None
    """The other who scales it."""
    has_service: bool = False
    has_budget: bool = False
    """Whether it has its PodDisruptionBudget."""
    pods: tuple[Pod, ...] = ()
    create_error: str = ""
    """Why the API server refused its Deployment or Service the last time, in its words."""
    create_failed_at: datetime | None = None
    create_failures: int = 0
    """How often in a row, since its spec was changed last."""
    name_taken: bool = False
    """Whether it was refused because somebody else has an object of a name that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(OwnObject):
    """A GPUNodeClaim: one node asked for."""

    KIND = "GPUNodeClaim"

    spec: GPUNodeClaimSpec
    status: GPUNodeClaimStatus
    provider: Provider | None = None
    """Of its pool when it was made; None on claims of older versions."""
    finalizers: tuple[str, ...] = ()
    deleting_since: datetime | None = None
    status_refused: bool = False
    """The API server did not take its last status: the schema is an older or a newer one."""

    @property
    def work(self) -> Beneficiary | None:
        """What the node is for: what it was bought for, unless other work has taken it over since."""
        return self.status.reused_for or self.spec.for_work


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting(OwnObject):
    """What the agent of the node of this name wrote last: a GPUNode. Its age is for the planner to judge."""

    KIND = "GPUNode"

    status: GPUNodeStatus
    told: frozenset[str] = frozenset()
    """The keys of the news that this process has told of it in Events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool(OwnObject):
    """A GPUNodePool."""

    KIND = "GPUNodePool"

    spec: GPUNodePoolSpec
    status: GPUNodePoolStatus = field(default_factory=GPUNodePoolStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue(OwnObject):
    """A GPUQueue."""

    KIND = "GPUQueue"

    spec: GPUQueueSpec
    status: GPUQueueStatus = field(default_factory=GPUQueueStatus)


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """A PriorityClass; `preempts` says whether kube-scheduler may evict others for pods that carry it."""

    name: str
    value: int
    is_default: bool = False
    preempts: bool = True


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; a terminating one accepts nothing new."""

    name: str
    labels: Mapping[str, str]
    terminating: bool = False
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Restores:
    """How often in a row the Service of running work was made anew, and when last."""

    times: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at `taken_at`. Every mapping is by name (namespaced things by namespace and name)."""

    taken_at: datetime
    term: int = 0
    """How often the leadership had changed hands when this process began to lead."""
    steady_since: datetime | None = None
    """Since when the API server has served us without an outage; None if nobody knows of one."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    used: Mapping[str, Resources] = field(default_factory=dict)
    """What the live pods on each node request, foreign and terminating ones included, as kube-scheduler counts."""
    leaving: tuple[Pod, ...] = ()
    """The live pods on nodes that are being deleted; they are part of `used` until they are gone."""
    jobs: Mapping[tuple[str, str], Job] = field(default_factory=dict)
    orphans: tuple[Pod, ...] = ()
    """Workers whose TrainingJob is gone, and what only looks like workers: they hold their nodes and their names."""
    node_pools: Mapping[str, NodePool] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    priority_classes: Mapping[str, PriorityClass] = field(default_factory=dict)
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    workspaces: Mapping[tuple[str, str], Workspace] = field(default_factory=dict)
    with_service: frozenset[str] | None = None
    """Uids of the jobs and workspaces that have their Service; None if nobody has looked."""
    restores: Mapping[str, Restores] = field(default_factory=dict)
    """By uid of the job or workspace. Lost with the process: the next one begins with short pauses again."""
    serving_pools: Mapping[tuple[str, str], ServingPool] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    unread_claims: frozenset[str] = frozenset()
    """Uids of GPUNodeClaims that exist and cannot be read: their machines are nobody's orphans."""
    unread_pools: frozenset[str] = frozenset()
    """Names of GPUNodePools that exist and could never be read: of their nodes none is given back or bought again."""
    loads: Mapping[tuple[str, str], PoolLoad] = field(default_factory=dict)
    """By serving pool; one that nobody has asked yet has none."""
    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    """By node; a node without an agent has none."""
    tenants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By node: the live pods that would be lost with it, foreign ones included, those of DaemonSets not."""
    listings: Mapping[str, Listing] = field(default_factory=dict)
    """By pool: the machines that its provider said it runs for us, when it was asked last."""
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """By uid of the claim: what its provider answered last. Lost with the process, and asked for again then."""
    notebooks: Mapping[tuple[str, str], Notebook] = field(default_factory=dict)
    """By workspace, for those whose Jupyter server is asked."""

    def time_given(self, since: datetime) -> timedelta:
        """How long others could have acted on what is so since then; an outage of the API server gives them no time."""
        return self.taken_at - (max(since, self.steady_since) if self.steady_since is not None else since)

    def is_going(self, owner: OwnObject) -> bool:
        """Whether it, or the namespace that it lives in, is being deleted: nothing new is created for it."""
        namespace = self.namespaces.get(owner.namespace)
        return owner.deleting or (namespace is not None and namespace.terminating)

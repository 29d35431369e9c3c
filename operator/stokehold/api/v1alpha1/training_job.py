"""TrainingJob: a gang of pods that trains a model, and what became of it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stokehold.api.base import REFUSE_NULL, Bool, Column, Int, Kind, Part, Resource, Rule
from stokehold.api.conditions import Conditions
from stokehold.api.durations import Duration, at_most, between
from stokehold.api.fields import (
    AbsolutePath,
    Arguments,
    CapacityClasses,
    GpuTypes,
    Image,
    ObjectName,
    ShortName,
)
from stokehold.api.money import Amount
from stokehold.api.pod_template import PodTemplate
from stokehold.api.pods import Env, EnvFroms, Resources, VolumeMounts, Volumes
from stokehold.api.times import Timestamp
from stokehold.api.v1alpha1.shared import QueueStatus

Runtime = Annotated[Duration, between("1s", "365d")]
Signal = Literal["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"]

# Words of status.phase. The schema does not list them, so that an older or newer version can be read.
PENDING = "Pending"
SUSPENDED = "Suspended"
STARTING = "Starting"
RUNNING = "Running"
RESTARTING = "Restarting"
SUCCEEDED = "Succeeded"
FAILED = "Failed"


class Topology(Part):
    """How close together the nodes of the gang are. Set either required or preferred.

    The levels, such as rack or zone, are named by the platform team in topologyLevels of the GPUNodePools.
    """

    RULES = (
        Rule(
            "must set exactly one of required and preferred, each the alias of a topology level such as rack",
            cel="has(self.required) != has(self.preferred)",
            holds=lambda topology: (topology.required is None) != (topology.preferred is None),
        ),
    )

    required: ShortName | None = None
    """All nodes are taken from one domain of this level, for example one rack. The job waits while no domain has
    room for the whole gang."""
    preferred: ShortName | None = None
    """The nodes are taken from one domain of this level where possible, else from as few domains as possible. The
    job does not wait for it."""


class Checkpoint(Part):
    """Where the program saves its state, and how it is asked to.

    A job that checkpoints loses little when its nodes are taken away.
    """

    claim_name: ObjectName | None = None
    """The PersistentVolumeClaim in the same namespace that is mounted at path in each pod. Leave it out when the
    program saves to an object store by itself."""
    path: AbsolutePath = "/checkpoints"
    """The folder for checkpoints. The program finds it in the environment variable CHECKPOINT_DIR."""
    signal: Signal = "SIGTERM"
    """The signal that asks the program to save and exit before its pods are taken away. Not built yet: it gets SIGTERM,
    or what its image names."""
    grace_period: Annotated[Duration, between("1s", "1h")] = Duration.parse("5m")
    """How long the program has after the signal before it is killed, for example 5m."""


class FailurePolicy(Part):
    """What happens when a pod fails."""

    max_restarts: Annotated[Int, Field(ge=0, le=100)] = 3
    """How often the whole gang is started again after the program has failed. What the cluster does to it, such as the
    loss of a node, does not count."""


class TrainingJobSpec(Part):
    """What to run, on how many GPUs of which types, and for how long."""

    RULES = (
        Rule(
            "minNodes must be at most numNodes",
            cel="!has(self.minNodes) || !has(self.numNodes) || self.minNodes <= self.numNodes",
            holds=lambda spec: spec.min_nodes is None or spec.min_nodes <= spec.num_nodes,
            field=".minNodes",
        ),
        at_most("expectedRuntime", "maxRuntime"),
        Rule(
            "dataClass cannot be changed or removed once it is set; create a new job instead",
            cel="!has(oldSelf.dataClass) || (has(self.dataClass) && self.dataClass == oldSelf.dataClass)",
            field=".dataClass",
        ),
    )

    queue_name: ObjectName | None = None
    """The GPUQueue that the job waits in. Left out, it is the queue of the namespace."""
    priority_class_name: ObjectName | None = None
    """The PriorityClass of the job: who goes first. Left out, it is train-normal where that exists, else the cluster's
    default."""
    image: Image
    """The container image with the program, for example registry.example/llama:1."""
    command: Arguments = ()
    """The program to run in each pod, for example [torchrun, train.py]. Left out, it is the image's own."""
    args: Arguments = ()
    """The arguments of the program. $(NAME) stands for an environment variable, $(CHECKPOINT_DIR) for example."""
    env: Env = ()
    """Environment variables of the program. The addresses that torchrun needs (PET_*, MASTER_ADDR, WORLD_SIZE, RANK)
    are added by the operator."""
    env_from: EnvFroms = ()
    """ConfigMaps and Secrets whose keys become environment variables."""
    volumes: Volumes = ()
    """Volumes besides the checkpoint claim and /dev/shm, which the operator adds."""
    volume_mounts: VolumeMounts = ()
    """Where the volumes appear in the container."""
    resources: Resources | None = None
    """CPU and memory of each pod. GPUs are asked for by gpusPerNode."""
    num_nodes: Annotated[Int, Field(ge=1, le=4096), REFUSE_NULL] = 1
    """How many pods the gang has, each on its own share of a node. All of them start together or none does."""
    min_nodes: Annotated[Int, Field(ge=1, le=4096)] | None = None
    """The smallest gang that is of use, for an elastic program: the job may start with fewer than numNodes. To go on
    when some are taken away is not built yet: it starts again. Left out, it is numNodes."""
    gpus_per_node: Annotated[Int, Field(ge=0, le=64), REFUSE_NULL] = 1
    """How many GPUs each pod has. With 0 the pods run on CPUs and see no GPU."""
    gpu_types: GpuTypes = ()
    """The types of GPU that the job can use, the best first, for example [h100, a100-80gb]. One type is chosen for the
    whole gang. Left out, any type will do."""
    topology: Topology | None = None
    """How close together the nodes of the gang are. Set either required or preferred to a level of the topology, such
    as rack or zone; the platform team names the levels in topologyLevels of the GPUNodePools. Left out, it does not
    matter."""
    checkpoint: Checkpoint | None = None
    """Where the program saves its state. Left out, a job that is taken off its nodes starts anew."""
    expected_runtime: Runtime | None = None
    """How long the job will take by the user's own estimate, for example 6h. Shorter jobs can fill gaps that longer
    ones must leave, so an honest estimate starts sooner. Nothing is stopped for exceeding it. Not built yet: it changes
    nothing."""
    max_runtime: Runtime | None = None
    """After how much running time, over all attempts, the job is stopped and fails, for example 24h. Left out, it is
    the queue's defaultMaxRuntime."""
    capacity: CapacityClasses | None = None
    """The classes of capacity that the job may use, the preferred first, for example [on-prem, spot]. The order is a
    wish: price decides between equals. Left out, every class that the queue and the data class permit."""
    data_class: ShortName | None = None
    """How confidential the data is, for example public, internal, restricted or another name that the platform team
    declares. The job runs only on pools that list the class. Left out, it is treated as the most restricted one. It
    cannot change once set."""
    failure_policy: FailurePolicy = FailurePolicy()
    """What happens when a pod fails."""
    suspend: Bool = False
    """Whether the job is held back. Set on a running job, its pods end within their grace
    period and its GPUs are given back."""
    pod_template: PodTemplate | None = None
    """Whatever else the pods need, as a partial PodTemplateSpec that is merged into the operator's own by strategic
    merge; the container is called main. Nodes, schedulers, priorities, GPUs and the host cannot be reached from
    here."""


class Placement(Part):
    """Where the job runs."""

    pool: str = ""
    """The GPUNodePool."""
    gpu_type: str = ""
    """The type of the GPUs."""
    capacity: str = ""
    """The class of capacity: on-prem, reserved, spot or on-demand."""
    nodes: tuple[str, ...] = ()
    """The nodes, one for each pod in the order of their index."""


class CheckpointStatus(Part):
    """What is known of the saved state."""

    last_time: Timestamp | None = None
    """When the last checkpoint was seen. Not told yet."""


class Usage(Part):
    """What the job has used so far, over all attempts."""

    run_seconds: Int | None = None
    """Seconds during which the gang has run."""
    gpu_seconds: Int | None = None
    """GPU-seconds during which GPUs were held for the job."""
    lost_gpu_seconds: Int | None = None
    """GPU-seconds of attempts that did not succeed, whatever a checkpoint has saved of them."""
    cost: Amount | None = None
    """The cost of the GPU-seconds, in currency."""
    currency: str | None = None
    """The currency of the cost, for example EUR."""
    energy_wh: Int | None = None
    """The energy that the GPUs have used, in watt-hours, as their own counters tell. Not told yet."""
    co2_grams: Annotated[Int | None, Field(alias="co2Grams")] = None
    """The emissions of that energy, in grams of CO2, by the carbon intensity of the pool. Not told yet."""


class Failure(Part):
    """The last failure of an attempt."""

    time: Timestamp | None = None
    """When it failed."""
    reason: str = ""
    """Why, as one CamelCase word."""
    message: str = ""
    """Why, as a sentence."""
    node: str = ""
    """The node of the pod that failed first."""
    exit_code: Int | None = None
    """The exit code of that pod's program. Left out when it did not exit by itself."""
    counts_as_restart: Bool | None = None
    """Whether it uses up one of failurePolicy.maxRestarts. Failures of nodes do not."""


class Eviction(Part):
    """A time at which the job had to give its GPUs back."""

    time: Timestamp | None = None
    """When it happened."""
    reason: str = ""
    """Why, as one CamelCase word, for example NodeFailures."""
    node: str = ""
    """The node that caused it, if one did."""


class TrainingJobStatus(Part):
    """What became of the job."""

    observed_generation: Int | None = None
    """The metadata.generation that this status describes."""
    term: Int | None = None
    """In which term of the leadership this was written: the leaseTransitions of the operator's Lease."""
    phase: str = ""
    """Where the job stands: Pending, Suspended, Starting, Running, Restarting, Succeeded or Failed."""
    conditions: Conditions = ()
    """The state in detail: QuotaReserved, Admitted, PodsReady, Evicted, Requeued, CapacityProvisioned and Finished;
    Valid is False where the spec asks for something that is not built yet."""
    placement: Placement | None = None
    """Where the job runs, or ran last."""
    attempt: Int | None = None
    """The number of the present attempt. The first is 1."""
    restarts: Int | None = None
    """How many of failurePolicy.maxRestarts are used up."""
    queue: QueueStatus | None = None
    """Why the job waits, since it does, and for what."""
    checkpoint: CheckpointStatus | None = None
    """What is known of the saved state."""
    usage: Usage | None = None
    """What the job has used so far."""
    start_time: Timestamp | None = None
    """When the first attempt began to run."""
    completion_time: Timestamp | None = None
    """When the job ended, well or badly."""
    requeue_at: Timestamp | None = None
    """Until when the job holds back before its next attempt."""
    last_failure: Failure | None = None
    """The last failure of an attempt."""
    evictions: tuple[Eviction, ...] = ()
    """The last five times at which the job had to give its GPUs back, the latest last."""


class TrainingJob(Kind):
    """A program that trains a model on one or more nodes with GPUs.

    All pods of the job start together or none does. While it waits, status.queue tells why and until when; when it has
    ended, status.usage tells what it cost. A job that has ended never runs again.
    """

    RESOURCE: ClassVar = Resource(
        plural="trainingjobs",
        short_name="tj",
        namespaced=True,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Queue", ".spec.queueName"),
            Column("Nodes", ".spec.numNodes", "integer"),
            Column("GPUs/Node", ".spec.gpusPerNode", "integer"),
            Column("Reason", ".status.queue.reason"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("GPU", ".status.placement.gpuType", wide=True),
            Column("Pool", ".status.placement.pool", wide=True),
            Column("Attempt", ".status.attempt", "integer", wide=True),
            Column("Restarts", ".status.restarts", "integer", wide=True),
            Column("Cost", ".status.usage.cost", wide=True),
            Column("Message", ".status.queue.message", wide=True),
        ),
        selectable_fields=(".spec.queueName", ".status.phase"),
    )

    kind: Literal["TrainingJob"] = "TrainingJob"
    spec: TrainingJobSpec
    """What to run, on how many GPUs of which types, and for how long."""
    status: TrainingJobStatus = TrainingJobStatus()
    """What became of the job. Written by the operator."""

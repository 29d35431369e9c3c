"""InferencePool: replicas that serve a model, how many of them, and how a new version takes over."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict, WithJsonSchema

from stokehold.api.base import REFUSE_NULL, Bool, Column, Int, Kind, Part, Resource, Rule, Scale
from stokehold.api.conditions import Conditions
from stokehold.api.durations import Duration, between
from stokehold.api.fields import Arguments, Cron, GpuTypes, Image, ObjectName, Port, TimeZone
from stokehold.api.money import Amount, PositiveAmount
from stokehold.api.pod_template import PodTemplate
from stokehold.api.pods import Env, EnvFroms, Resources, VolumeMounts, Volumes
from stokehold.api.times import Timestamp
from stokehold.api.v1alpha1.shared import QueueStatus

Count = Annotated[Int, Field(ge=0, le=1000)]
Percent = Annotated[Int, Field(ge=1, le=100)]


def _is_share(value: int | str) -> bool:
    if isinstance(value, int):
        return 0 <= value <= 1000
    return value.endswith("%") and value[:-1].isdecimal() and value.isascii() and int(value[:-1]) <= 100


CountOrPercent = Annotated[
    Annotated[int, Strict()] | Annotated[str, Field(max_length=4)],
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], "maxLength": 4}
    ),
    Rule(
        "must be a number of replicas from 0 to 1000, or a share of them such as '50%'",
        cel="type(self) == int ? self >= 0 && self <= 1000 : self.matches('^(100|[0-9]{1,2})%$')",
        holds=_is_share,
    ),
]


class Replicas(Part):
    """Between how many replicas the pool is scaled."""

    RULES = (
        Rule(
            "min must be at most max",
            cel="!has(self.min) || self.min <= self.max",
            holds=lambda replicas: replicas.min <= replicas.max,
            field=".min",
        ),
    )

    min: Annotated[Count, REFUSE_NULL] = 1
    """The fewest replicas. With 0 the pool can be scaled to nothing while nobody asks it anything."""
    max: Annotated[Int, Field(ge=1, le=1000)]
    """The most replicas."""
    desired: Count = 1  # with a default, for the API server serves no scale without the field
    """How many replicas an external autoscaler wants. Written only through the scale subresource, by a
    HorizontalPodAutoscaler, KEDA or kubectl scale, and followed between min and max while scaling.mode is External or a
    HorizontalPodAutoscaler scales the pool."""


class Metric(Part):
    """One measure of load, and how much of it one replica should have."""

    RULES = (
        Rule(
            "query must be set when type is Prometheus, and only then",
            cel="has(self.query) == (self.type == 'Prometheus')",
            holds=lambda metric: (metric.query is not None) == (metric.type == "Prometheus"),
            field=".query",
        ),
    )

    type: Literal["Queue", "Concurrency", "RequestRate", "KVCache", "GPU", "Prometheus"]
    """What is measured: requests that wait in the engine (Queue), requests in work with those that must be started to
    work off the queue (Concurrency), requests a second (RequestRate), the share of the KV cache in use (KVCache, 0 to
    1), the share of the GPUs that is busy (GPU, 0 to 1; not built yet, it is never read), or the result of query
    (Prometheus)."""
    target: PositiveAmount
    """How much of it one replica should have, as a decimal in a string, for example "8"."""
    query: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The query, in PromQL, whose result is the total over all replicas."""


class ScheduledFloor(Part):
    """A time of the day or week in which the pool has more replicas than its load asks for."""

    time_zone: TimeZone = "UTC"
    """The time zone of start and end, for example Europe/Berlin."""
    start: Cron
    """When it begins, in five fields of cron, for example 0 8 * * 1-5."""
    end: Cron
    """When it ends, in five fields of cron, for example 0 18 * * 1-5."""
    min_replicas: Count
    """The fewest replicas in that time."""


class Scaling(Part):
    """How the number of replicas follows the load."""

    mode: Literal["Operator", "External"] = "Operator"
    """Who decides: the Operator by the fields below, or an External autoscaler by the scale subresource. Two of them
    would undo each other's work, so the Operator also stands aside while a HorizontalPodAutoscaler scales the pool."""
    metrics: Annotated[tuple[Metric, ...], Field(max_length=8)] = ()
    """What the load is measured by. The measure that asks for most replicas decides. Left out, it is Concurrency with
    a target of 32: the engine's requests in work, and those that wait."""
    engine: Literal["vllm", "sglang", "triton", "custom"] = "vllm"
    """The inference engine, which decides the names of its metrics: vllm, sglang, triton or custom. With custom only
    metrics of the type Prometheus can be measured."""
    drain_seconds: Annotated[Int, Field(ge=0, le=3600)] = 30
    """In how many seconds requests that wait should have been worked off, and how many a replica has to finish its
    own before it is stopped."""
    scale_down_delay: Annotated[Duration, between("0s", "24h")] = Duration.parse("5m")
    """How long fewer replicas must have been enough before one is taken away, for example 5m."""
    schedule: Annotated[tuple[ScheduledFloor, ...], Field(max_length=16)] = ()
    """Times in which there are more replicas than the load asks for."""


class Analysis(Part):
    """When a canary is as good as what it replaces."""

    window: Annotated[Duration, between("10s", "24h")] = Duration.parse("5m")
    """How long each step is watched, for example 5m."""
    min_requests: Annotated[Int, Field(ge=1, le=1_000_000)] = 100
    """How many requests the canary must have answered before it is judged."""
    max_error_percent: Annotated[
        Amount,
        Rule(
            "must be at most 100",
            cel="self.matches('^([0-9]{1,2}([.][0-9]+)?|100)$')",
            holds=lambda percent: percent <= 100,
        ),
    ] = Decimal("1")
    """How many of a hundred requests may fail beyond those of the stable version, as a decimal in a string."""
    max_latency_increase_percent: Annotated[Int, Field(ge=0, le=1000)] = 20
    """How much slower the canary may be at the 95th percentile, in percent of the stable version."""
    on_inconclusive: Literal["Hold", "Rollback"] = "Hold"
    """What happens when the canary gets too few requests to be judged: Hold waits for more, Rollback gives up."""


class Rollout(Part):
    """How a new version takes over."""

    RULES = (
        Rule(
            "steps and analysis may be set only when strategy is Canary",
            cel="self.strategy == 'Canary' || (!has(self.analysis) && (!has(self.steps) || self.steps.size() == 0))",
            holds=lambda rollout: rollout.strategy == "Canary" or not (rollout.steps or rollout.analysis),
        ),
    )

    strategy: Literal["Canary", "RollingUpdate"] = "RollingUpdate"
    """RollingUpdate replaces replica by replica. Canary shifts the traffic in steps and goes back when the new version
    is worse; it is not built yet, and no version is rolled out."""
    steps: Annotated[
        tuple[Percent, ...],
        Field(max_length=10),
        Rule(
            "must be percentages that rise from step to step, such as [10, 50]",
            cel="self.all(step, self.exists_one(other, other == step)) && self.isSorted()",
            holds=lambda steps: list(steps) == sorted(set(steps)),
        ),
    ] = ()
    """The shares of the traffic that the canary gets one after the other, in percent. Left out, [10, 50]. Not
    built yet."""
    analysis: Analysis | None = None
    """When the canary is good enough for the next step. Left out, each step is only waited for until its replicas are
    ready. Not built yet."""
    max_surge: Count = 0
    """How many replicas there may be beyond the wanted ones during a rollout. With 0 no spare GPU is needed."""


class PoolReference(Part):
    """Another InferencePool in the same namespace."""

    name: ObjectName
    """Its name."""


class Fallback(Part):
    """Where requests go that this pool cannot take."""

    pool_ref: PoolReference
    """Another InferencePool in the same namespace, for example one with a smaller model."""


class Disruption(Part):
    """How many replicas are left alone by voluntary disruptions, such as the draining of a node."""

    min_available: CountOrPercent
    """The fewest replicas that stay up, as a number or a share, for example 1 or "50%"."""


class InferencePoolSpec(Part):
    """What to serve, on which GPUs, with how many replicas."""

    RULES = (
        Rule(
            "scaling.schedule[].minReplicas must be at most replicas.max",
            cel=(
                "!has(self.scaling) || !has(self.scaling.schedule)"
                " || self.scaling.schedule.all(floor, floor.minReplicas <= self.replicas.max)"
            ),
            holds=lambda spec: (
                spec.scaling is None or all(floor.min_replicas <= spec.replicas.max for floor in spec.scaling.schedule)
            ),
            field=".scaling.schedule",
        ),
    )

    priority_class_name: ObjectName | None = None
    """The PriorityClass of the replicas: who goes first. Left out, it is serve where that exists, else the cluster's
    default."""
    image: Image
    """The container image with the inference server, for example registry.example/vllm:1."""
    command: Arguments = ()
    """The program to run in each replica. Left out, it is the image's own."""
    args: Arguments = ()
    """The arguments of the program, for example [--model, /models/llama]."""
    env: Env = ()
    """Environment variables of the program."""
    env_from: EnvFroms = ()
    """ConfigMaps and Secrets whose keys become environment variables."""
    volumes: Volumes = ()
    """Volumes besides /dev/shm, which the operator adds; for example the claim with the model."""
    volume_mounts: VolumeMounts = ()
    """Where the volumes appear in the container."""
    port: Port = 8000
    """The port that the program serves on, both its answers and its metrics."""
    resources: Resources | None = None
    """CPU and memory of each replica. GPUs are asked for by gpusPerReplica."""
    gpus_per_replica: Annotated[Int, Field(ge=0, le=64), REFUSE_NULL] = 1
    """How many GPUs each replica has, all on one node. With 0 it runs on CPUs and sees no GPU."""
    gpu_types: GpuTypes = ()
    """The types of GPU that will do, the best first, for example [l40s, a100-80gb]. Left out, any type."""
    replicas: Replicas
    """Between how many replicas the pool is scaled, for example {min: 2, max: 20}."""
    scaling: Scaling | None = None
    """How the number of replicas follows the load. Left out, it follows the engine's queue and its requests in work."""
    rollout: Rollout | None = None
    """How a new version takes over. Left out, replica by replica without a spare GPU."""
    fallback: Fallback | None = None
    """Where requests go that this pool cannot take. Not built yet: they wait."""
    disruption: Disruption | None = None
    """How many replicas are left alone by voluntary disruptions. Left out, all but one."""
    pod_template: PodTemplate | None = None
    """Whatever else the pods need, as a partial PodTemplateSpec that is merged into the operator's own by strategic
    merge; the container is called main. Nodes, schedulers, priorities, GPUs and the host cannot be reached from
    here."""


class Decision(Part):
    """A number of replicas that the operator has chosen, and from what."""

    time: Timestamp | None = None
    """When it was chosen."""
    replicas: Int | None = None
    """How many replicas."""
    reason: str = ""
    """Why, as one CamelCase word, for example CappedByMax."""
    message: str = ""
    """Why, as a sentence with the numbers."""


class ScaleDown(Part):
    """Fewer replicas than there are have been enough for a while; when scaleDownDelay is over, some are given back."""

    since: Timestamp
    """Since when."""
    replicas: Int
    """The most that were needed in that time."""


class RolloutStatus(Part):
    """How far a new version has come."""

    stable_revision: str = ""
    """The revision that has most of the traffic."""
    canary_revision: str = ""
    """The revision that is on trial. Empty when none is."""
    canary_percent: Int | None = None
    """The share of the traffic that the canary gets, in percent."""
    message: str = ""
    """What the rollout waits for."""
    paused: Bool | None = None
    """Whether the rollout waits for people."""


class InferencePoolStatus(Part):
    """What the pool has at present."""

    observed_generation: Int | None = None
    """The metadata.generation that this status describes."""
    term: Int | None = None
    """In which term of the leadership this was written: the leaseTransitions of the operator's Lease."""
    phase: str = ""
    """Where the pool stands: Pending, Ready, Scaling, Degraded, RollingOut or Zero."""
    conditions: Conditions = ()
    """The state in detail: Ready, MetricsFresh, CapacityAvailable, ScalingActive and Valid."""
    replicas: Int | None = None
    """How many replicas exist. The scale subresource shows it."""
    ready_replicas: Int | None = None
    """How many replicas can take requests."""
    desired_replicas: Int | None = None
    """How many replicas the operator wants."""
    selector: str = ""
    """The label selector of the replicas' pods, as text. The scale subresource shows it."""
    gpu_type: str = ""
    """The type of GPU that the replicas have. Not told yet."""
    scale_down: ScaleDown | None = None
    """What is about to be given back. Left out while all replicas are needed or the load is not known."""
    decisions: tuple[Decision, ...] = ()
    """The last numbers of replicas that were chosen, the latest last."""
    rollout: RolloutStatus | None = None
    """How far a new version has come. Not told yet."""
    queue: QueueStatus | None = None
    """Why replicas wait, since some do, and for what."""


class InferencePool(Kind):
    """Replicas of an inference server, scaled with the load.

    Another API group has a kind of the same name: always write inferencepools.stokehold.dev, or the short name gpool.
    """

    RESOURCE: ClassVar = Resource(
        plural="inferencepools",
        short_name="gpool",
        namespaced=True,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Ready", ".status.readyReplicas", "integer"),
            Column("Desired", ".status.desiredReplicas", "integer"),
            Column("Min", ".spec.replicas.min", "integer"),
            Column("Max", ".spec.replicas.max", "integer"),
            Column("GPUs/Replica", ".spec.gpusPerReplica", "integer"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("GPU", ".status.gpuType", wide=True),
            Column("Engine", ".spec.scaling.engine", wide=True),
            Column("Canary", ".status.rollout.canaryPercent", "integer", wide=True),
            Column("Reason", ".status.queue.reason", wide=True),
        ),
        selectable_fields=(".status.phase",),
        scale=Scale(".spec.replicas.desired", ".status.replicas", ".status.selector"),
    )

    kind: Literal["InferencePool"] = "InferencePool"
    spec: InferencePoolSpec
    """What to serve, on which GPUs, with how many replicas."""
    status: InferencePoolStatus = InferencePoolStatus()
    """What the pool has at present. Written by the operator."""

"""GPUQueue: who may use how many GPUs, what may be borrowed and taken back, and how much it may cost."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stokehold.api.base import Column, Int, Kind, Part, Resource, Rule
from stokehold.api.conditions import Conditions
from stokehold.api.durations import Duration, between
from stokehold.api.fields import DataClasses, GpuType, LabelKey, Labels, ObjectName, unique, unique_by
from stokehold.api.money import Amount, Currency, PositiveAmount
from stokehold.api.times import Timestamp

GpuCount = Annotated[Int, Field(ge=0, le=1_000_000)]


class SelectorRequirement(Part):
    """One condition on the labels of a namespace."""

    RULES = (
        Rule(
            "values must be given for In and NotIn, and only for them",
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            holds=lambda one: (one.operator in ("In", "NotIn")) == bool(one.values),
            field=".values",
        ),
    )

    key: LabelKey
    """The key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared."""
    values: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=64)] = ()
    """The values to compare with, for In and NotIn."""


class NamespaceSelector(Part):
    """Which namespaces, by their labels. All conditions must hold; an empty selector takes every namespace.

    A single namespace is selected by its label kubernetes.io/metadata.name.
    """

    match_labels: Labels = Field(default_factory=dict)
    """Labels that a namespace must have with exactly these values."""
    match_expressions: Annotated[tuple[SelectorRequirement, ...], Field(max_length=16)] = ()
    """Conditions on the labels of a namespace."""


class Quota(Part):
    """How many GPUs of one type the queue has."""

    RULES = (
        Rule(
            "lendingLimit must be at most nominal",
            cel="!has(self.lendingLimit) || self.lendingLimit <= self.nominal",
            holds=lambda quota: quota.lending_limit is None or quota.lending_limit <= quota.nominal,
            field=".lendingLimit",
        ),
    )

    gpu_type: GpuType
    """The type of GPU, for example h100."""
    nominal: GpuCount
    """How many GPUs are the queue's own. Work within it can always take back what others have borrowed."""
    borrowing_limit: GpuCount | None = None
    """How many GPUs the queue may use beyond nominal while others leave them idle. Left out, there is no limit; 0
    forbids it."""
    lending_limit: GpuCount | None = None
    """How many of the nominal GPUs others may use while this queue leaves them idle. Left out, all of them; 0 keeps
    them free."""


class Preemption(Part):
    """Whose running work may be stopped for waiting work of this queue."""

    within_queue: Literal["Never", "LowerPriority", "LowerOrNewerEqualPriority"] = "LowerPriority"
    """What may be stopped in the queue itself: Never anything, LowerPriority work, or also newer work of equal
    priority (LowerOrNewerEqualPriority)."""
    reclaim: Literal["Never", "LowerPriority", "Any"] = "Any"
    """What may be stopped in other queues that have borrowed from this one: Never anything, LowerPriority work, or
    Any."""
    min_runtime: Annotated[Duration, between("0s", "7d")] = Duration.parse("0s")
    """How long work has run at least before it may be stopped, for example 15m."""


class Budget(Part):
    """How much money the queue may spend on capacity that is paid by the hour."""

    amount: PositiveAmount
    """How much may be spent in one period, as a decimal in a string, for example "25000" or "1250.50"."""
    currency: Currency
    """The currency of the amounts, as a code of ISO 4217, for example EUR."""
    period: Literal["Day", "Week", "Month", "Quarter", "Year"] = "Month"
    """After which time the spending starts again from zero. Periods begin at midnight UTC, weeks on Monday."""
    burn_rate_per_hour: PositiveAmount | None = None
    """How much may be spent in any hour, as a decimal in a string, for example "120". Left out, there is no such
    limit."""
    on_soft: Annotated[
        tuple[Annotated[Int, Field(ge=1, le=100)], ...], Field(max_length=10), unique("a percentage")
    ] = (50, 80)
    """At which percentages of the amount a warning is given."""
    on_hard: Literal["BlockBurst", "Suspend"] = "BlockBurst"
    """What happens when the amount is spent: BlockBurst buys no more nodes, Suspend also checkpoints and suspends the
    jobs that run on bought ones."""


class GPUQueueSpec(Part):
    """The share of the GPUs that a team has, and the rules for it."""

    parent: ObjectName | None = None
    """The GPUQueue above this one. Queues below one parent borrow from each other before they borrow elsewhere. Left
    out, the queue is at the top. Not built yet: it changes nothing."""
    weight: Annotated[Int, Field(ge=1, le=10_000)] = 100
    """The share of idle GPUs that the queue gets when several want to borrow them: one of 200 gets twice that of
    100. Not built yet: it changes nothing."""
    namespaces: NamespaceSelector | None = None
    """The namespaces whose work may use the queue. Left out, none may, as fits a queue that only groups others; an
    empty selector means all."""
    quotas: Annotated[
        tuple[Quota, ...],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["gpuType"]},
        ),
        unique_by("gpuType"),
    ] = ()
    """How many GPUs of each type the queue has. GPUs of a type that is not listed can only be borrowed. Not
    built yet: its work may use all that is free."""
    preemption: Preemption = Preemption()
    """Whose running work may be stopped for waiting work of this queue. Not built yet: nothing is stopped."""
    budget: Budget | None = None
    """How much money the queue may spend. Left out, there is no limit. Not built yet: nothing is held back."""
    data_classes: DataClasses = ()
    """The data classes that jobs of this queue may have, for example [public, internal]. Left out, any."""
    default_max_runtime: Annotated[Duration, between("1s", "365d")] | None = None
    """The maxRuntime of jobs that do not set one, for example 24h. Left out, they may run for ever."""


class GpuAmount(Part):
    """A number of GPUs of one type."""

    gpu_type: str
    """The type of GPU."""
    gpus: Int
    """How many."""


class PendingWork(Part):
    """What waits in the queue."""

    jobs: Int | None = None
    """How many jobs wait."""
    gpus: Int | None = None
    """How many GPUs they ask for together."""


class Spend(Part):
    """What was spent in the present period of the budget."""

    amount: Amount | None = None
    """How much, in currency."""
    currency: str | None = None
    """The currency, for example EUR."""
    period_start: Timestamp | None = None
    """When the period began."""
    burn_rate_per_hour: Amount | None = None
    """How much is being spent in an hour at present."""


class Forecast(Part):
    """What will have been spent at the end of the period if all running work goes on as expected."""

    amount: Amount | None = None
    """How much, in currency."""
    currency: str | None = None
    """The currency, for example EUR."""
    period_end: Timestamp | None = None
    """When the period ends."""
    exhausted_at: Timestamp | None = None
    """When the budget will be spent. Left out when it lasts."""


GpuAmounts = Annotated[
    tuple[GpuAmount, ...],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["gpuType"]}),
]


class GPUQueueStatus(Part):
    """What the queue uses and what waits in it."""

    observed_generation: Int | None = None
    """The metadata.generation that this status describes."""
    term: Int | None = None
    """In which term of the leadership this was written: the leaseTransitions of the operator's Lease."""
    phase: str = ""
    """Whether the queue admits work: Active."""
    conditions: Conditions = ()
    """The state in detail: Valid, False while the spec asks for something that is not built yet."""
    used: GpuAmounts = ()
    """GPUs that work of this queue holds, by type. Not told yet."""
    borrowed: GpuAmounts = ()
    """GPUs out of used that belong to other queues, by type. Not told yet."""
    used_gpus: Int | None = None
    """GPUs that work of this queue holds, of all types. Not told yet."""
    borrowed_gpus: Int | None = None
    """GPUs out of usedGpus that belong to other queues. Not told yet."""
    pending: PendingWork | None = None
    """What waits in the queue. Not told yet."""
    spend: Spend | None = None
    """What was spent in the present period of the budget. Not told yet."""
    forecast: Forecast | None = None
    """What will have been spent at the end of the period. Not told yet."""


class GPUQueue(Kind):
    """The share of the GPUs that a team has: quotas, borrowing, preemption and a budget.

    Without any GPUQueue there is one implicit queue without limits.
    """

    RULES = (
        Rule(
            "spec.parent must be another queue",
            cel="!has(self.spec.parent) || self.spec.parent != self.metadata.name",
            holds=lambda queue: not queue.metadata.name or queue.spec.parent != queue.metadata.name,
            field=".spec.parent",
        ),
    )

    RESOURCE: ClassVar = Resource(
        plural="gpuqueues",
        short_name="gq",
        namespaced=False,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Parent", ".spec.parent"),
            Column("Weight", ".spec.weight", "integer"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Budget", ".spec.budget.amount", wide=True),
            Column("Currency", ".spec.budget.currency", wide=True),
        ),
        selectable_fields=(".spec.parent", ".status.phase"),
    )

    kind: Literal["GPUQueue"] = "GPUQueue"
    spec: GPUQueueSpec
    """The share of the GPUs that a team has, and the rules for it."""
    status: GPUQueueStatus = GPUQueueStatus()
    """What the queue uses and what waits in it. Written by the operator."""

"""GPUNodePool: nodes with one type of GPU, either there already or to be had from a provider."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stokehold.api.base import Column, Int, Kind, Part, Resource, Rule
from stokehold.api.conditions import Conditions
from stokehold.api.durations import Duration, between
from stokehold.api.fields import (
    CapacityClass,
    DataClasses,
    GpuType,
    LabelKey,
    Labels,
    ShortName,
    SomeLabels,
    exactly_one,
    unique,
    unique_by,
)
from stokehold.api.money import Amount, Currency, PositiveAmount
from stokehold.api.quantities import Quantity
from stokehold.api.times import Timestamp
from stokehold.api.v1alpha1.providers import Provider

Percent = Annotated[Int, Field(ge=0, le=100)]
Region = Annotated[str, Field(min_length=1, max_length=63)]


class Taint(Part):
    """A taint of the pool's nodes."""

    key: LabelKey
    """The key of the taint."""
    value: Annotated[str, Field(max_length=63)] = ""
    """The value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    """What the taint does to pods that do not tolerate it."""


class NodeShape(Part):
    """What a node of the pool offers besides its GPUs, as far as pods can use it.

    It is needed for nodes that do not exist yet; of those that do, the node itself is believed.
    """

    cpu: Quantity | None = None
    """The CPUs that pods can use, for example 190."""
    memory: Quantity | None = None
    """The memory that pods can use, for example 1900Gi."""
    ephemeral_storage: Quantity | None = None
    """The local disk that pods can use, for example 3Ti."""
    pods: Annotated[Int, Field(ge=1, le=10_000)] = 110
    """How many pods fit on the node."""
    labels: Labels = Field(default_factory=dict)
    """The labels that the node will have."""
    taints: Annotated[tuple[Taint, ...], Field(max_length=16)] = ()
    """The taints that the node will have. The operator makes its pods tolerate them."""


class Price(Part):
    """What the pool costs while a node of it is there. Set exactly one of the two amounts."""

    RULES = (exactly_one(("perNodeHour", "perGpuHour"), "must set exactly one of perNodeHour and perGpuHour"),)

    per_node_hour: Amount | None = None
    """The price of one node for one hour, as a decimal in a string, for example "55.04"."""
    per_gpu_hour: Amount | None = None
    """The price of one GPU for one hour, as a decimal in a string, for example "6.88"."""
    currency: Currency
    """The currency, as a code of ISO 4217, for example USD."""


class CostModel(Part):
    """What an own node costs, for showing and comparing: purchase, power, room and people.

    Placement uses the cost of one more busy hour; reports use the whole cost, spread over the lifetime.
    """

    currency: Currency
    """The currency of all amounts, as a code of ISO 4217, for example EUR."""
    capex_per_node: PositiveAmount
    """The purchase price of one node, as a decimal in a string, for example "350000"."""
    years: Annotated[Int, Field(ge=1, le=20)] = 4
    """Over how many years the purchase is spread."""
    overhead_percent: Percent = 12
    """The share of network and cabling, in percent of the purchase price."""
    residual_percent: Percent = 15
    """What the node can be sold for at the end, in percent of the purchase price."""
    maintenance_percent_per_year: Percent = 5
    """What maintenance costs each year, in percent of the purchase price."""
    max_power_watts: Annotated[Int, Field(ge=1, le=1_000_000)]
    """The power that a node draws under full load, in watts, for example 10200."""
    load_percent: Percent = 70
    """The power that a busy node draws on average, in percent of maxPowerWatts."""
    power_usage_effectiveness: PositiveAmount = Decimal("1.4")
    """The power that the building draws for each watt of the node, as a decimal in a string."""
    electricity_per_kwh: Amount
    """The price of one kilowatt-hour, as a decimal in a string, for example "0.12"."""
    facility_per_kw_month: Amount | None = None
    """The price of room and cooling for one kilowatt and month, as a decimal in a string, for example "180"."""
    staff_per_node_year: Amount | None = None
    """The cost of people for one node and year, as a decimal in a string, for example "2400"."""


class PoolLimits(Part):
    """The bounds of what the pool may grow to."""

    max_nodes: Annotated[Int, Field(ge=0, le=10_000)]
    """How many nodes the provider may be asked for at one time. With 0 nothing is bought."""


class Trigger(Part):
    """How much must be waited for before nodes are bought: either is enough."""

    gpus: Annotated[Int, Field(ge=1, le=1_000_000)] | None = None
    """For so many GPUs together, of all gangs that do not fit. Once nodes are coming, half as many are enough. Left
    out, what the operator was started with (--burst-gpus)."""
    age: Annotated[Duration, between("0s", "24h")] | None = None
    """Or one gang for so long, for example 30s. Left out, what the operator was started with (--burst-age)."""


class ScaleDown(Part):
    """When bought nodes are given back."""

    delay: Annotated[Duration, between("0s", "24h")] = Duration.parse("5m")
    """How long a node stays idle before it is given back, for example 5m."""


class TopologyLevel(Part):
    """A level of the topology, such as the rack, and the label that names a node's domain on it."""

    alias: ShortName
    """The name that jobs use in topology, for example rack."""
    node_label: LabelKey
    """The label of the nodes whose value is the domain, for example topology.example.com/rack."""


class GPUNodePoolSpec(Part):
    """Which nodes the pool has or can get, what they offer and what they cost."""

    RULES = (
        Rule(
            "must set exactly one of nodeSelector (nodes that are there) and provider (nodes to be bought)",
            cel="has(self.nodeSelector) != has(self.provider)",
            holds=lambda pool: (pool.node_selector is None) != (pool.provider is None),
        ),
        Rule(
            "limits.maxNodes must be set when provider is, so that what is bought has a bound",
            cel="!has(self.provider) || has(self.limits)",
            holds=lambda pool: pool.provider is None or pool.limits is not None,
        ),
        Rule(
            "gpusPerNode must be set when provider is, for there is no node yet to look at",
            cel="!has(self.provider) || has(self.gpusPerNode)",
            holds=lambda pool: pool.provider is None or pool.gpus_per_node is not None,
        ),
        Rule(
            "keepWarm must be at most limits.maxNodes",
            cel="!has(self.limits) || self.keepWarm <= self.limits.maxNodes",
            holds=lambda pool: pool.limits is None or pool.keep_warm <= pool.limits.max_nodes,
            field=".keepWarm",
        ),
        Rule(
            "must set at most one of price and costModel",
            cel="!(has(self.price) && has(self.costModel))",
            holds=lambda pool: pool.price is None or pool.cost_model is None,
        ),
    )

    node_selector: SomeLabels | None = None
    """The labels of the nodes that are the pool, all with exactly these values. Set this or provider."""
    provider: Provider | None = None
    """Where the nodes of the pool come from when they are needed. Set this or nodeSelector."""
    resource_name: Annotated[
        LabelKey,
        Rule(
            "must be the full name of an extended resource, such as nvidia.com/gpu or amd.com/gpu",
            cel="self.contains('/')",
            holds=lambda name: "/" in name,
        ),
    ] = "nvidia.com/gpu"
    """The resource by which the nodes offer their GPUs, for example amd.com/gpu or nvidia.com/mig-1g.10gb."""
    gpu_type: GpuType
    """The type of GPU, by the name that jobs and queues use, for example h100."""
    gpus_per_node: Annotated[Int, Field(ge=1, le=64)] | None = None
    """How many GPUs a node has. Left out for nodes that are there, each node is looked at."""
    node_shape: NodeShape | None = None
    """What a node offers besides its GPUs. Needed to plan with nodes that do not exist yet."""
    capacity_class: CapacityClass = "on-prem"
    """The class of capacity: on-prem, reserved (paid in any case), spot (may be taken away) or on-demand."""
    region: Region | None = None
    """The region that the nodes are in, for example eu-central-1."""
    zones: Annotated[tuple[Region, ...], Field(max_length=16), unique("a zone")] = ()
    """The zones that nodes can be had in. All nodes of one gang come from one zone."""
    data_classes: DataClasses = ()
    """The data classes whose jobs may run here, for example [public, internal]. Left out, none may when the pool has
    a provider or its capacityClass is not on-prem, and all may otherwise."""
    price: Price | None = None
    """What the pool costs, when there is a price. Set this or costModel."""
    cost_model: CostModel | None = None
    """What the pool costs, from what the nodes cost to buy and to run. Set this or price. Not built yet: use of
    the pool costs nothing."""
    carbon_intensity: Annotated[Int, Field(ge=0, le=5_000)] | None = None
    """The emissions of the electricity, in grams of CO2 for each kilowatt-hour, for example 380. Not built yet: no
    emissions are told."""
    limits: PoolLimits | None = None
    """The bounds of what the pool may grow to. Required with a provider."""
    keep_warm: Annotated[Int, Field(ge=0, le=10_000)] = 0
    """How many nodes are kept although nothing runs on them, so that work can start at once."""
    trigger: Trigger = Trigger()
    """How much must be waited for before nodes are bought."""
    scale_down: ScaleDown = ScaleDown()
    """When bought nodes are given back."""
    topology_levels: Annotated[
        tuple[TopologyLevel, ...],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["alias"]},
        ),
        unique_by("alias"),
    ] = ()
    """The levels of the topology, the widest first, for example zone, then rack."""


class NodeCounts(Part):
    """How many nodes the pool has."""

    total: Int | None = None
    """Nodes that belong to the pool."""
    ready: Int | None = None
    """Nodes that are Ready and offer their GPUs."""
    requested: Int | None = None
    """Nodes that were asked for and are not ready yet."""


class GpuCounts(Part):
    """How many GPUs the pool has."""

    total: Int | None = None
    """GPUs that the nodes offer."""
    used: Int | None = None
    """GPUs that pods hold."""
    terminating: Int | None = None
    """Those of used whose pods are being deleted and have not gone yet."""
    free: Int | None = None
    """GPUs that a new pod could have."""


class Offering(Part):
    """A kind of node that the provider could not deliver of late, and until when it is not asked again."""

    zone: str = ""
    """The zone. Left out, it is every zone."""
    reason: str = ""
    """Why it could not: Capacity, Quota, Config, Auth, Timeout, GpuMissing, Unfit or Gone."""
    message: str = ""
    """What the provider said."""
    blocked_until: Timestamp | None = None
    """When it is asked again."""
    failed_at: Timestamp | None = None
    """When it failed last."""
    failures: Int | None = None
    """How often in a row. Each time it is left alone for longer."""


class GPUNodePoolStatus(Part):
    """What the pool has at present."""

    observed_generation: Int | None = None
    """The metadata.generation that this status describes."""
    term: Int | None = None
    """In which term of the leadership this was written: the leaseTransitions of the operator's Lease."""
    phase: str = ""
    """Whether the pool can take work: Ready, or Empty while no node can."""
    conditions: Conditions = ()
    """The state in detail: Ready, Valid, and DevicesReady, whose message names the nodes that have lost GPUs."""
    nodes: NodeCounts | None = None
    """How many nodes the pool has."""
    gpus: GpuCounts | None = None
    """How many GPUs the pool has."""
    gpus_missing_on: tuple[str, ...] = ()
    """The nodes that miss GPUs, or whose GPUs came back a moment ago: what a new leader must know. At most 500."""
    cost_per_gpu_hour: Amount | None = None
    """What one GPU costs for one hour, all included, in currency."""
    marginal_cost_per_gpu_hour: Amount | None = None
    """What one more busy GPU costs for one hour, in currency. Placement compares this."""
    currency: str | None = None
    """The currency of the costs, for example EUR."""
    offerings: tuple[Offering, ...] = ()
    """What the provider could not deliver of late."""


class GPUNodePool(Kind):
    """Nodes with one type of GPU: either nodes that carry certain labels, or nodes that a provider delivers.

    Without any GPUNodePool each GPU product that the vendor's labels name is an implicit pool.
    """

    RESOURCE: ClassVar = Resource(
        plural="gpunodepools",
        short_name="gnp",
        namespaced=False,
        columns=(
            Column("Phase", ".status.phase"),
            Column("GPU", ".spec.gpuType"),
            Column("Class", ".spec.capacityClass"),
            Column("Nodes", ".status.nodes.ready", "integer"),
            Column("GPUs", ".status.gpus.total", "integer"),
            Column("Free", ".status.gpus.free", "integer"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Max", ".spec.limits.maxNodes", "integer", wide=True),
            Column("Region", ".spec.region", wide=True),
            Column("Cost", ".status.costPerGpuHour", wide=True),
            Column("Currency", ".status.currency", wide=True),
        ),
        selectable_fields=(".spec.gpuType", ".spec.capacityClass"),
    )

    kind: Literal["GPUNodePool"] = "GPUNodePool"
    spec: GPUNodePoolSpec
    """Which nodes the pool has or can get, what they offer and what they cost."""
    status: GPUNodePoolStatus = GPUNodePoolStatus()
    """What the pool has at present. Written by the operator."""

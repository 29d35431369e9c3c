"""GPUNodeClaim: one node asked for, written before money is spent."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stokehold.api.base import Column, Int, Kind, Part, Resource, Rule
from stokehold.api.conditions import Conditions
from stokehold.api.durations import Duration, between
from stokehold.api.fields import CapacityClass, GpuType, LabelKey, ObjectName, ShortName
from stokehold.api.money import Amount, Currency
from stokehold.api.times import Timestamp

# Words of status.phase, in the order in which a claim passes through them.
REQUESTED = "Requested"
LAUNCHED = "Launched"
REGISTERED = "Registered"
READY = "Ready"
DRAINING = "Draining"
RELEASED = "Released"
FAILED = "Failed"


class Beneficiary(Part):
    """The work that the node is for."""

    kind: Literal["TrainingJob", "InferencePool", "DevWorkspace"] = "TrainingJob"
    """The kind of the work."""
    namespace: ShortName
    """Its namespace."""
    name: ObjectName
    """Its name."""
    uid: Annotated[str, Field(min_length=1, max_length=64)]
    """Its metadata.uid. A node is bought once for one attempt of one uid, unless the pool of the first is gone."""
    attempt: Annotated[Int, Field(ge=1, le=1_000_000)] = 1
    """The attempt of the job that the node is for. The first is 1."""
    nodes: Annotated[Int, Field(ge=1, le=10_000)] = 1
    """How many nodes were asked for together. The work starts on all of them or on none."""


class HourlyPrice(Part):
    """What the node costs for one hour, as known when it was asked for."""

    amount: Amount
    """The price, as a decimal in a string, for example "55.04"."""
    currency: Currency
    """The currency, as a code of ISO 4217, for example USD."""


class GPUNodeClaimSpec(Part):
    """The node that is asked for, and for whom. It cannot be changed; delete the claim to give the node back."""

    RULES = (
        Rule(
            "spec cannot be changed: delete the claim to give the node back, and make another",
            cel="self == oldSelf",
        ),
    )

    pool_name: ObjectName
    """The GPUNodePool whose provider is asked."""
    gpu_type: GpuType
    """The type of GPU, for example h100."""
    gpus_per_node: Annotated[Int, Field(ge=1, le=64)]
    """How many GPUs the node must have before it counts as ready."""
    resource_name: LabelKey = "nvidia.com/gpu"
    """The resource by which the node will offer its GPUs."""
    capacity_class: CapacityClass
    """The class of capacity: on-prem, reserved, spot or on-demand."""
    zone: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The zone that the node must be in. All nodes of one gang name the same."""
    instance_type: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The instance type that is asked for. Left out, the provider chooses."""
    queue_name: ObjectName | None = None
    """The GPUQueue whose budget pays."""
    for_work: Annotated[Beneficiary | None, Field(alias="for")] = None
    """The work that the node is for. Left out for nodes that are kept warm."""
    price_per_hour: HourlyPrice | None = None
    """What the node costs for one hour, as known when it was asked for."""
    ready_within: Annotated[Duration, between("10s", "24h")] = Duration.parse("20m")
    """How long the node may take until its GPUs can be used. Then the request is taken back."""
    expire_after: Annotated[Duration, between("5m", "365d")] = Duration.parse("720h")
    """After how long the node is given back in any case."""


class ClaimFailure(Part):
    """Why the node could not be had."""

    time: Timestamp | None = None
    """When it failed."""
    reason: str = ""
    """The kind of failure: Capacity, Quota, Config, Auth, Timeout, GpuMissing, Unfit or Gone."""
    message: str = ""
    """What the provider said."""


class PaidTime(Part):
    """For what the node was paid."""

    booting_seconds: Int | None = None
    """Seconds that were paid before the GPUs could be used."""
    idle_seconds: Int | None = None
    """Seconds that were paid while nothing ran."""
    busy_seconds: Int | None = None
    """Seconds that were paid while work ran."""


class GPUNodeClaimStatus(Part):
    """How far the request has come. A restarted operator goes on from here."""

    observed_generation: Int | None = None
    """The metadata.generation that this status describes."""
    term: Int | None = None
    """In which term of the leadership this was written: the leaseTransitions of the operator's Lease."""
    phase: str = ""
    """How far the request has come: Requested, Launched, Registered, Ready, Draining, Released or Failed."""
    conditions: Conditions = ()
    """The state in detail: Launched, Registered, Ready, Idle, and Stranded when its pool is gone."""
    request_id: str = ""
    """The identity under which the provider was asked. Asking again with it buys nothing twice."""
    provider_id: Annotated[str, Field(alias="providerID")] = ""
    """The identity of the machine at the provider, as in the node's spec.providerID."""
    node_name: str = ""
    """The name of the node."""
    instance_type: str = ""
    """The instance type that was delivered."""
    zone: str = ""
    """The zone that it was delivered in."""
    requested_at: Timestamp | None = None
    """When the provider was asked."""
    launched_at: Timestamp | None = None
    """When the provider began to charge."""
    registered_at: Timestamp | None = None
    """When the node appeared in the cluster."""
    ready_at: Timestamp | None = None
    """When the node was Ready and offered all its GPUs."""
    idle_since: Timestamp | None = None
    """Since when nothing has run on the node."""
    released_at: Timestamp | None = None
    """When the provider stopped charging."""
    last_failure: ClaimFailure | None = None
    """Why the node could not be had."""
    reused_for: Beneficiary | None = None
    """The work that it was kept for last, when it was bought for other work or kept warm."""
    paid: PaidTime | None = None
    """For what the node was paid."""
    cost: Amount | None = None
    """What the node has cost so far, in currency."""
    currency: str | None = None
    """The currency of the cost, for example USD."""


class GPUNodeClaim(Kind):
    """One node asked for from a provider: the record that is written before money is spent.

    The operator makes, follows and deletes claims. Deleting one gives its node back.
    """

    RESOURCE: ClassVar = Resource(
        plural="gpunodeclaims",
        short_name="gnc",
        namespaced=False,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Pool", ".spec.poolName"),
            Column("GPU", ".spec.gpuType"),
            Column("GPUs", ".spec.gpusPerNode", "integer"),
            Column("Class", ".spec.capacityClass"),
            Column("Node", ".status.nodeName"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Zone", ".status.zone", wide=True),
            Column("For", ".spec.for.name", wide=True),
            Column("Cost", ".status.cost", wide=True),
            Column("Reason", ".status.lastFailure.reason", wide=True),
        ),
        selectable_fields=(".spec.poolName", ".spec.queueName", ".status.phase", ".status.nodeName"),
    )

    kind: Literal["GPUNodeClaim"] = "GPUNodeClaim"
    spec: GPUNodeClaimSpec
    """The node that is asked for, and for whom."""
    status: GPUNodeClaimStatus = GPUNodeClaimStatus()
    """How far the request has come. Written by the operator."""

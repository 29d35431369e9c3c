"""GPUNode: what the agent saw on a node."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stokehold.api.base import Bool, Column, Int, Kind, Part, Resource
from stokehold.api.conditions import Conditions
from stokehold.api.times import Timestamp


class GPUNodeSpec(Part):
    """Nothing is asked of a GPUNode: all of it is what was seen."""


class GpuHealth(Part):
    """Whether the GPU can be used, in the driver's own words."""

    state: str = ""
    """Healthy, Suspect (no new work), Unhealthy (work must leave) or Unknown."""
    reason: str = ""
    """Why, as one CamelCase word, for example RowRemapPending."""
    message: str = ""
    """Why, as a sentence."""
    xid: Int | None = None
    """The last error of the driver that matters, by its number in NVIDIA's catalogue."""
    recovery_action: str = ""
    """What the driver asks for: None, GpuReset, NodeReboot, DrainP2P, DrainAndReset or a newer word."""
    since: Timestamp | None = None
    """Since when the state holds."""


class GpuActivity(Part):
    """Whether the GPU is at work."""

    state: str = ""
    """Active, Quiet, Stalled (busy on paper, idle by its power) or Unknown."""
    since: Timestamp | None = None
    """Since when the state holds."""
    evidence: str = ""
    """What was seen, for example 41% utilisation."""
    last_active_time: Timestamp | None = None
    """When it was last seen at work. An agent that starts again remembers it."""


class GpuProcessOwner(Part):
    """A container that holds the GPU."""

    namespace: str = ""
    """The namespace of its pod. Empty when the process belongs to no pod."""
    pod: str = ""
    """The name of its pod."""
    pod_uid: Annotated[str, Field(alias="podUID")] = ""
    """The identity of its pod, where the agent knows it: a StatefulSet's next pod has the same name."""
    container: str = ""
    """The name of the container."""


class ForeignUser(Part):
    """Somebody whose process uses the GPU without having been given it."""

    namespace: str = ""
    """The namespace of its pod. Empty when the process belongs to no pod."""
    pod: str = ""
    """The name of its pod, where the agent knows it."""
    pod_uid: Annotated[str, Field(alias="podUID")] = ""
    """The identity of its pod."""
    command: str = ""
    """The name of the process."""


class MigDevice(Part):
    """A slice of a GPU."""

    uuid: str
    """The identity of the slice."""
    profile: str = ""
    """The profile, for example 1g.10gb."""
    activity: GpuActivity | None = None
    """Whether the slice is at work."""
    owners: tuple[GpuProcessOwner, ...] = ()
    """The containers that hold the slice."""
    foreign_users: tuple[ForeignUser, ...] = ()
    """Those who use the slice without having been given it."""


class Gpu(Part):
    """One GPU of the node."""

    uuid: str
    """The identity of the GPU."""
    index: Int | None = None
    """The number of the GPU in the driver's order. It may change when the node starts again."""
    model: str = ""
    """The product name, for example NVIDIA H100 80GB HBM3."""
    memory_bytes: Int | None = None
    """The memory of the GPU, in bytes."""
    mig_enabled: Bool | None = None
    """Whether the GPU is divided into slices."""
    mig_devices: Annotated[
        tuple[MigDevice, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uuid"]}),
    ] = ()
    """The slices of the GPU."""
    health: GpuHealth | None = None
    """Whether the GPU can be used."""
    activity: GpuActivity | None = None
    """Whether the GPU is at work."""
    energy_joules: Int | None = None
    """The energy that the GPU has used since the driver was loaded, in joules."""
    owners: tuple[GpuProcessOwner, ...] = ()
    """The containers that hold the GPU."""
    foreign_users: tuple[ForeignUser, ...] = ()
    """Those who use the GPU without having been given it."""


class GPUNodeStatus(Part):
    """What the agent saw, as of heartbeatTime."""

    observed_generation: Int | None = None
    """The metadata.generation that this status describes."""
    phase: str = ""
    """How the node is: Ready, Degraded (some GPUs cannot be used), Unhealthy or Unknown."""
    conditions: Conditions = ()
    """The state in detail: AgentReady; OwnersKnown, False while the kubelet does not say to whom each GPU belongs; and
    GpusHealthy."""
    agent_version: str = ""
    """The version of the agent."""
    driver_version: str = ""
    """The version of the GPU driver."""
    boot_id: Annotated[str, Field(alias="bootID")] = ""
    """The identity of the node's present boot."""
    heartbeat_time: Timestamp | None = None
    """When the agent last wrote. It writes on each change, and on a slow beat while nothing changes."""
    gpu_count: Int | None = None
    """How many GPUs the node has."""
    healthy_gpus: Int | None = None
    """How many of them are Healthy."""
    quiet_gpus: Int | None = None
    """How many of them are Quiet."""
    gpus: Annotated[
        tuple[Gpu, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uuid"]}),
    ] = ()
    """The GPUs, each with its health and its activity."""


class GPUNode(Kind):
    """What the agent saw on the node of the same name: its GPUs, their slices, health and activity.

    The agent writes it on each change and on a slow beat, never for each sample.
    """

    RESOURCE: ClassVar = Resource(
        plural="gpunodes",
        short_name="gn",
        namespaced=False,
        columns=(
            Column("Phase", ".status.phase"),
            Column("GPUs", ".status.gpuCount", "integer"),
            Column("Healthy", ".status.healthyGpus", "integer"),
            Column("Quiet", ".status.quietGpus", "integer"),
            Column("Heartbeat", ".status.heartbeatTime", "date"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Model", ".status.gpus[0].model", wide=True),
            Column("Driver", ".status.driverVersion", wide=True),
            Column("Agent", ".status.agentVersion", wide=True),
        ),
        selectable_fields=(".status.phase",),
        name_max_length=None,  # it bears the name of a node, which may have 253 characters
    )

    kind: Literal["GPUNode"] = "GPUNode"
    spec: GPUNodeSpec = GPUNodeSpec()
    """Nothing is asked of a GPUNode."""
    status: GPUNodeStatus = GPUNodeStatus()
    """What was seen. Written by the agent."""

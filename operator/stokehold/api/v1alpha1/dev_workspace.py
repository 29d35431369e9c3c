"""DevWorkspace: a place to develop on a GPU that stops when nobody uses it and keeps its files."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stokehold.api.base import REFUSE_NULL, Bool, Column, Int, Kind, Part, Resource, Rule
from stokehold.api.conditions import Conditions
from stokehold.api.durations import Duration, at_most, between
from stokehold.api.fields import AbsolutePath, Arguments, Cron, GpuTypes, Image, ObjectName, Port, TimeZone
from stokehold.api.money import Amount
from stokehold.api.pod_template import PodTemplate
from stokehold.api.pods import Env, EnvFroms, Resources, VolumeMounts, Volumes
from stokehold.api.quantities import Quantity, exact
from stokehold.api.times import Timestamp
from stokehold.api.v1alpha1.shared import QueueStatus

Percent = Annotated[Int, Field(ge=0, le=100)]
Crons = Annotated[tuple[Cron, ...], Field(max_length=16)]


class Storage(Part):
    """The files of the workspace. They survive every stop and go only with the workspace itself."""

    RULES = (
        Rule(
            "storageClassName cannot be set, changed or removed later: a volume stays where it is",
            cel=(
                "has(self.storageClassName) == has(oldSelf.storageClassName)"
                " && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
            ),
            field=".storageClassName",
        ),
    )

    size: Annotated[
        Quantity,
        Rule(
            "must be more than zero",
            cel="!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))",
            holds=lambda size: exact(size) > 0,
        ),
        Rule(
            "can only grow: a volume cannot be made smaller",
            cel=(
                "!isQuantity(string(self)) || !isQuantity(string(oldSelf))"
                " || !quantity(string(self)).isLessThan(quantity(string(oldSelf)))"
            ),
        ),
    ]
    """How much room there is, for example 50Gi."""
    mount_path: AbsolutePath = "/home/dev"
    """Where the files appear in the container."""
    storage_class_name: ObjectName | None = None
    """The StorageClass of the volume. Left out, it is the cluster's default. It cannot be changed."""


class GpuSignal(Part):
    """When the GPUs count as busy. The highest of all samples decides, never their mean; over which time, the node
    agents are told (--window)."""

    required: Bool = True
    """Whether the workspace is left alone while this cannot be measured."""
    util_percent: Percent = 3
    """The utilisation above which a GPU is busy, in percent."""
    shared_policy: Literal["Unknown", "Shared"] = "Unknown"
    """What a busy GPU means that several pods share: Unknown says nothing of this workspace, Shared counts as busy."""


class CpuSignal(Part):
    """When the CPUs count as busy."""

    cores: Amount = Decimal("0.2")
    """The number of cores above which the workspace is busy, as a decimal in a string."""


class IoSignal(Part):
    """When disk and network count as busy."""

    bytes_per_second: Quantity = "1Mi"
    """The bytes a second, read, written, sent and received, above which the workspace is busy."""


class JupyterSignal(Part):
    """Whether a kernel of Jupyter is at work."""

    port: Port = 8888
    """The port of the Jupyter server."""


class TerminalSignal(Part):
    """Whether a program runs in a terminal."""

    max_process_age: Annotated[Duration, between("1m", "30d")] = Duration.parse("6h")
    """After how long a program in a terminal no longer counts, for example 6h."""


class ConnectionsSignal(Part):
    """Whether an editor or a shell is connected."""

    weight: Literal["Weak", "Strong"] = "Weak"
    """Weak connections hold the workspace for grace only, since editors stay connected over night; Strong ones hold it
    as long as they last."""
    grace: Annotated[Duration, between("0s", "24h")] = Duration.parse("30m")
    """How long a weak connection holds the workspace, for example 30m."""


class HeartbeatSignal(Part):
    """Whether the user or a program has asked for the workspace to be kept."""

    max_ahead: Annotated[Duration, between("1m", "7d")] = Duration.parse("12h")
    """How far ahead one heartbeat may reach, for example 12h."""


class Signals(Part):
    """What is looked at to tell use from idleness. What is left out is looked at with its defaults, where it can be."""

    gpu: GpuSignal | None = None
    """When the GPUs count as busy."""
    cpu: CpuSignal | None = None
    """When the CPUs count as busy. Not built yet: it stays Unknown."""
    io: IoSignal | None = None
    """When disk and network count as busy. Not built yet: it stays Unknown."""
    jupyter: JupyterSignal | None = None
    """Whether a kernel of Jupyter is at work. Left out, Jupyter is not asked."""
    terminal: TerminalSignal | None = None
    """Whether a program runs in a terminal. Not built yet: it stays Unknown."""
    connections: ConnectionsSignal | None = None
    """Whether an editor or a shell is connected. Not built yet: it stays Unknown."""
    heartbeat: HeartbeatSignal | None = None
    """Whether the user or a program has asked for the workspace to be kept. Not built yet: it stays Unknown."""


class Snooze(Part):
    """How far users can put a stop off."""

    RULES = (at_most("max", "budgetPerDay"),)

    max: Annotated[Duration, between("0s", "7d")] = Duration.parse("4h")
    """How long one snooze lasts at most, for example 4h."""
    budget_per_day: Annotated[Duration, between("0s", "7d")] = Duration.parse("8h")
    """How long all snoozes of one day last together at most, for example 8h."""


class Exemption(Part):
    """A time in which the workspace is not stopped for being idle."""

    until: Timestamp
    """When it ends, for example 2026-12-01T00:00:00Z: at most 30 days from now."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why it is needed. Others can read it."""


class Idle(Part):
    """When the workspace is stopped for being idle. What cannot be measured never counts as idle."""

    RULES = (at_most("warnBefore", "after"),)

    after: Annotated[Duration, between("10s", "30d")] = Duration.parse("2h")
    """After how long without any use the workspace is stopped, for example 2h. The agents tell use from idleness over
    5 minutes, which adds to shorter times."""
    min_running: Annotated[Duration, between("0s", "7d")] = Duration.parse("30m")
    """How long the workspace runs at least after each start, for example 30m."""
    warn_before: Annotated[Duration, between("0s", "24h")] = Duration.parse("15m")
    """How long before the stop the user is warned, for example 15m."""
    mode: Literal["Enforce", "DryRun"] = "DryRun"
    """Enforce stops idle workspaces; DryRun only reports which it would have stopped."""
    action: Literal["Stop"] = "Stop"
    """What happens to an idle workspace: Stop gives its GPUs back and keeps its files."""
    policy: Literal["Always", "OnPressure"] = "OnPressure"
    """Always stops idle workspaces in any case; OnPressure only when the GPUs are wanted by work that waits."""
    snooze: Snooze | None = None
    """How far users can put a stop off. Left out, the defaults hold."""
    signals: Signals | None = None
    """What is looked at to tell use from idleness. Left out, the defaults hold."""
    exempt: Exemption | None = None
    """A time in which the workspace is not stopped for being idle."""


class Holidays(Part):
    """A list of days off."""

    config_map: ObjectName
    """The ConfigMap in the same namespace whose data has one key for each day off, as 2026-12-25. It needs the label
    stokehold.dev/holidays, with any value."""


class Schedule(Part):
    """When the workspace is stopped and started by the clock."""

    time_zone: TimeZone = "UTC"
    """The time zone of the times, for example Europe/Berlin."""
    stop: Crons = ()
    """When it is stopped, in five fields of cron, for example 0 20 * * 1-5."""
    start: Crons = ()
    """When it is started, in five fields of cron, for example 0 8 * * 1-5."""
    holidays: Holidays | None = None
    """The days on which it is not started, in timeZone. It is stopped on them all the same."""


class DevWorkspaceSpec(Part):
    """What to run, on which GPUs, and when to stop it."""

    image: Image
    """The container image, for example registry.example/jupyter:1."""
    command: Arguments = ()
    """The program to run. Left out, it is the image's own."""
    args: Arguments = ()
    """The arguments of the program."""
    env: Env = ()
    """Environment variables of the program."""
    env_from: EnvFroms = ()
    """ConfigMaps and Secrets whose keys become environment variables."""
    volumes: Volumes = ()
    """Volumes besides the workspace's own files and /dev/shm, which the operator adds."""
    volume_mounts: VolumeMounts = ()
    """Where the volumes appear in the container."""
    port: Port = 8888
    """The port that the program serves on."""
    gpus: Annotated[Int, Field(ge=0, le=64), REFUSE_NULL] = 1
    """How many GPUs the workspace has. With 0 it runs on CPUs and sees no GPU."""
    gpu_types: GpuTypes = ()
    """The types of GPU that will do, the best first, for example [a100-40gb]. Left out, any type."""
    storage: Storage | None = None
    """The files of the workspace. Left out, nothing survives a stop."""
    resources: Resources | None = None
    """CPU and memory of the workspace. GPUs are asked for by gpus."""
    running: Bool = True
    """Whether the workspace should run. Set it to true again to start a stopped one."""
    idle: Idle = Idle()
    """When the workspace is stopped for being idle."""
    schedule: Schedule | None = None
    """When the workspace is stopped and started by the clock. Left out, never."""
    max_lifetime: Annotated[Duration, between("10m", "365d")] | None = None
    """After how long since its start the workspace is stopped in any case, for example 7d. Left out, never."""
    pod_template: PodTemplate | None = None
    """Whatever else the pod needs, as a partial PodTemplateSpec that is merged into the operator's own by strategic
    merge; the container is called main. Nodes, schedulers, priorities, GPUs and the host cannot be reached from
    here."""


class SignalStatus(Part):
    """What one signal said last."""

    name: str
    """The signal, for example gpu or jupyter."""
    state: str = ""
    """What it says: Active, Quiet or Unknown."""
    time: Timestamp | None = None
    """When it said so."""
    evidence: str = ""
    """What was seen, for example 41% utilisation."""


class Activity(Part):
    """How the workspace is used."""

    last_active_time: Timestamp | None = None
    """When it was last in use for certain."""
    quiet_seconds: Int | None = None
    """For how many seconds it is known to have been idle. Time without measurements does not count."""
    coverage_percent: Int | None = None
    """For how much of that time there are measurements, in percent."""
    unknown_seconds: Int | None = None
    """For how many seconds since it fell quiet there are no measurements."""
    quiet_since: Timestamp | None = None
    """When it fell quiet."""
    measured_since: Timestamp | None = None
    """Since when there has been no gap in the measurements."""
    observed_time: Timestamp | None = None
    """Up to when there is proof for all of this."""
    signals: Annotated[
        tuple[SignalStatus, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """What each signal said last."""


class WorkspacePlacement(Part):
    """Where the workspace runs."""

    pool: str = ""
    """The GPUNodePool."""
    gpu_type: str = ""
    """The type of the GPUs."""
    node: str = ""
    """The node."""


class WorkspaceUsage(Part):
    """What the workspace has used and what its stops have saved, added up at each stop and each start."""

    gpu_seconds: Int | None = None
    """GPU-seconds during which it held GPUs."""
    idle_gpu_seconds: Int | None = None
    """GPU-seconds out of these during which it was idle."""
    reclaimed_gpu_seconds: Int | None = None
    """GPU-seconds that others could have since it was stopped for being idle."""


class DevWorkspaceStatus(Part):
    """How the workspace is."""

    observed_generation: Int | None = None
    """The metadata.generation that this status describes."""
    term: Int | None = None
    """In which term of the leadership this was written: the leaseTransitions of the operator's Lease."""
    phase: str = ""
    """Where the workspace stands: Pending, Starting, Active, Quiet, Warned, Stopping or Stopped."""
    conditions: Conditions = ()
    """The state in detail: Ready, Idle, Admitted and Valid."""
    url: str = ""
    """The address of the workspace inside the cluster."""
    placement: WorkspacePlacement | None = None
    """Where the workspace runs, or ran last."""
    queue: QueueStatus | None = None
    """Why the workspace waits, since it does, and for what."""
    activity: Activity | None = None
    """How the workspace is used."""
    failed_starts: Int | None = None
    """How often in a row its pod did not come up where it was put, and its GPUs were given back."""
    requeue_at: Timestamp | None = None
    """When it may be given GPUs again after that."""
    start_time: Timestamp | None = None
    """When it was last started."""
    warned_at: Timestamp | None = None
    """When the user was warned of the stop."""
    stop_at: Timestamp | None = None
    """When it will be stopped if it stays idle."""
    stopped_at: Timestamp | None = None
    """When it was last stopped."""
    stop_reason: str = ""
    """Why it was last stopped, as one CamelCase word: Idle, Schedule, MaxLifetime or UserRequest."""
    snoozed_until: Timestamp | None = None
    """Until when the user has put the stop off, as it was granted."""
    snoozed_at: Timestamp | None = None
    """When the last snooze was granted."""
    snooze_request: str = ""
    """The value of the annotation stokehold.dev/snooze that was answered last."""
    snoozed_seconds_today: Int | None = None
    """How many seconds of the day's snoozes are used up."""
    usage: WorkspaceUsage | None = None
    """What the workspace has used and what its stops have saved."""


class DevWorkspace(Kind):
    """A place to develop on a GPU, such as a notebook server.

    It is stopped when nobody uses it, keeps its files, and starts again when it is wanted.
    """

    RESOURCE: ClassVar = Resource(
        plural="devworkspaces",
        short_name="gws",
        namespaced=True,
        columns=(
            Column("Phase", ".status.phase"),
            Column("GPUs", ".spec.gpus", "integer"),
            Column("GPU", ".status.placement.gpuType"),
            Column("Reason", ".status.queue.reason"),
            Column("Stops", ".status.stopAt"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Running", ".spec.running", "boolean", wide=True),
            Column("Last-Active", ".status.activity.lastActiveTime", "date", wide=True),
            Column("Node", ".status.placement.node", wide=True),
            Column("URL", ".status.url", wide=True),
        ),
        selectable_fields=(".spec.running", ".status.phase"),
    )

    kind: Literal["DevWorkspace"] = "DevWorkspace"
    spec: DevWorkspaceSpec
    """What to run, on which GPUs, and when to stop it."""
    status: DevWorkspaceStatus = DevWorkspaceStatus()
    """How the workspace is. Written by the operator."""

"""What is known of a workspace's use: one signal each for its GPUs and its Jupyter server, and all of them together.

A signal is Quiet only for a span of time for which somebody has seen it quiet: `since` ... `until`. Whatever else
may be the case, what is missing, stale, partial or contradictory is Unknown. An agent that fell silent leaves the
proof of what it saw until then: Unknown now, with a span that counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.v1alpha1.dev_workspace import GpuSignal, Signals
from stokehold.api.v1alpha1.gpu_node import Gpu, GPUNodeStatus, GpuProcessOwner, MigDevice
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Notebook, Snapshot, Workspace
from stokehold.model.statuses import whole
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.culling.standing import held_gpus

NOT_MEASURED = ("cpu", "io", "terminal", "connections", "heartbeat")
"""Signals that may be asked for and that nobody measures yet."""


class State(StrEnum):
    """What a signal says."""

    ACTIVE = "Active"
    QUIET = "Quiet"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal; `since` and `until` bound the time for which it is proven to have been quiet, whatever it is now."""

    name: str
    state: State
    evidence: str
    until: datetime | None = None
    since: datetime | None = None
    last_active: datetime | None = None
    required: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """All signals together; `because` is the one that decides an Active or Unknown state.

    `since` and `until` bound the time for which all that counts was proven to be quiet; None without such a time.
    """

    state: State
    because: str
    since: datetime | None = None
    until: datetime | None = None
    last_active: datetime | None = None


def signals_of(workspace: Workspace, pod: Pod, snapshot: Snapshot, settings: CullingSettings) -> tuple[Signal, ...]:
    """Every signal that the workspace has."""
    wanted = (workspace.spec.idle.signals if workspace.spec.idle else None) or Signals()
    found = []
    if held_gpus(workspace):
        found.append(_gpu_signal(workspace, pod, snapshot, settings))
    if wanted.jupyter is not None:
        found.append(_jupyter_signal(workspace, pod, snapshot, settings))
    asked = (name for name in NOT_MEASURED if getattr(wanted, name) is not None)
    found += [Signal(name, State.UNKNOWN, "this version does not measure it") for name in asked]
    return tuple(found)


def together(signals: Iterable[Signal]) -> Evidence:
    """Any activity is activity; any required Unknown is Unknown; Quiet only while all that counts were quiet."""
    signals = tuple(signals)
    active_times = [s.last_active for s in signals if s.last_active is not None]
    last_active = max(active_times, default=None)
    since, until = _proof(signals)
    for state in (State.ACTIVE, State.UNKNOWN):
        deciding = [s for s in signals if s.state is state and (s.required or state is State.ACTIVE)]
        if deciding:
            because = "; ".join(f"{s.name}: {s.evidence}" for s in deciding)
            return Evidence(state, because, since, until, last_active)
    if since is None:
        return Evidence(State.UNKNOWN, "nothing tells whether it is used", last_active=last_active)
    return Evidence(State.QUIET, "", since, until, last_active)


def _proof(signals: Iterable[Signal]) -> tuple[datetime, datetime] | tuple[None, None]:
    """The time for which every signal that counts was seen quiet."""
    counting = [s for s in signals if s.required or s.state is not State.UNKNOWN]
    begins = [s.since for s in counting if s.since is not None]
    ends = [s.until for s in counting if s.until is not None]
    if not counting or len(begins) < len(counting) or len(ends) < len(counting):
        return None, None
    return max(begins), min(ends)


def _gpu_signal(workspace: Workspace, pod: Pod, snapshot: Snapshot, settings: CullingSettings) -> Signal:
    idle = workspace.spec.idle
    wanted = (idle.signals.gpu if idle and idle.signals else None) or GpuSignal()
    read = _read_gpus(workspace, pod, snapshot, settings, wanted)
    return Signal("gpu", read.state, read.because, read.until, read.since, read.last_active, wanted.required)


def _read_gpus(
    workspace: Workspace, pod: Pod, snapshot: Snapshot, settings: CullingSettings, wanted: GpuSignal
) -> Evidence:
    seen = snapshot.sightings.get(pod.node)
    if seen is None:
        return _unknown(f"node {pod.node} has no GPUNode: no agent runs there")
    heard = seen.status.heartbeat_time
    if heard is None:
        return _unknown(f"the agent of {pod.node} has never written")
    last_word = _read_last_word(workspace, pod, seen.status, snapshot.taken_at, settings, wanted)
    if snapshot.taken_at - heard > settings.agent_silent_after:
        why = f"the agent of {pod.node} has been silent since {heard:%Y-%m-%d %H:%M:%S} UTC"
        return replace(last_word, state=State.UNKNOWN, because=why)
    return last_word


def _read_last_word(
    workspace: Workspace, pod: Pod, status: GPUNodeStatus, now: datetime, settings: CullingSettings, wanted: GpuSignal
) -> Evidence:
    """What the agent knew when it was heard last, be it a minute or a day ago."""
    if (why := _why_not_trusted(status, pod.node, now, settings)) is not None:
        return _unknown(why)
    if wanted.util_percent < settings.agent_util_percent:
        return _unknown(
            f"utilPercent is {wanted.util_percent}, the agents tell use from {settings.agent_util_percent} % on"
        )
    devices = tuple(_devices_of(pod, status))
    held = held_gpus(workspace)
    if len(devices) != held:
        return _unknown(f"the agent names {len(devices)} GPUs as the pod's, it has {held}")
    heard = min(whole(status.heartbeat_time or now), whole(now))
    latest = heard + settings.clock_tolerance
    return together(_device_signal(gpu, _dated(device, latest), heard, wanted) for gpu, device in devices)


def _why_not_trusted(status: GPUNodeStatus, node: str, now: datetime, settings: CullingSettings) -> str | None:
    heard = status.heartbeat_time
    if heard is not None and heard - now > settings.clock_tolerance:
        return f"the clock of {node} is ahead of ours by {(heard - now).total_seconds():.0f} s"
    owners = find_condition(status.conditions, "OwnersKnown")
    if owners is None or owners.status != conditions.TRUE:
        return f"the agent of {node} does not know whose its GPUs are"
    return None


def _devices_of(pod: Pod, status: GPUNodeStatus) -> Iterable[tuple[Gpu, Gpu | MigDevice]]:
    """The GPUs and slices that belong to this very pod; one that an earlier pod of the same name held does not."""
    for gpu in status.gpus:
        devices: tuple[Gpu | MigDevice, ...] = (gpu, *gpu.mig_devices)
        for device in devices:
            if any(_is_owner(owner, pod) for owner in device.owners):
                yield gpu, device


def _is_owner(owner: GpuProcessOwner, pod: Pod) -> bool:
    same_name = (owner.namespace, owner.pod) == pod.key
    return same_name and owner.pod_uid in ("", pod.uid)


def _dated(device: Gpu | MigDevice, latest: datetime) -> Gpu | MigDevice:
    """The device without activity that is to come: a clock that was wrong has dated it, and it would hold back the idle
    clock until then."""
    activity = device.activity
    if activity is None or activity.last_active_time is None or activity.last_active_time <= latest:
        return device
    return device.model_copy(update={"activity": activity.model_copy(update={"last_active_time": None})})


def _device_signal(gpu: Gpu, device: Gpu | MigDevice, heard: datetime, wanted: GpuSignal) -> Signal:
    activity = device.activity
    state = activity.state if activity else ""
    evidence = (activity.evidence if activity else "") or state or "no verdict"
    last = activity.last_active_time if activity else None
    name = device.uuid
    if gpu.health is not None and gpu.health.state == "Unhealthy":
        return Signal(name, State.UNKNOWN, f"not healthy: {gpu.health.reason}", last_active=last)
    if device.foreign_users:
        return Signal(name, State.UNKNOWN, "a process that is not the pod's uses it", last_active=last)
    if state == State.QUIET and activity is not None and activity.since is not None:
        return Signal(name, State.QUIET, evidence, heard, activity.since, last)
    if state in ("Active", "Stalled"):
        shared = len({(o.namespace, o.pod) for o in device.owners}) > 1
        if shared and wanted.shared_policy == "Unknown":
            return Signal(name, State.UNKNOWN, "in use and shared with other pods")
        return Signal(name, State.ACTIVE, evidence, heard, last_active=heard)
    return Signal(name, State.UNKNOWN, evidence, last_active=last)


def _jupyter_signal(workspace: Workspace, pod: Pod, snapshot: Snapshot, settings: CullingSettings) -> Signal:
    name = "jupyter"
    told = snapshot.notebooks.get(workspace.key)
    if told is None or told.pod_uid != pod.uid:
        return Signal(name, State.UNKNOWN, "the Jupyter server has not been asked yet")
    if snapshot.taken_at - told.time > settings.notebook_silent_after:
        return Signal(name, State.UNKNOWN, f"not asked since {told.time:%H:%M:%S} UTC")
    if told.error:
        return Signal(name, State.UNKNOWN, told.error)
    heard = whole(told.time)
    if told.busy_kernels:
        count = f"{told.busy_kernels} of {told.kernels} kernels busy"
        return Signal(name, State.ACTIVE, count, heard, last_active=heard)
    return _idle_kernels(name, told, settings)


def _idle_kernels(name: str, told: Notebook, settings: CullingSettings) -> Signal:
    """Quiet since the last message, if that can be."""
    if told.last_activity is None:
        return Signal(name, State.UNKNOWN, "the Jupyter server does not say when it was used last")
    last = whole(told.last_activity)
    if told.last_activity > told.time + settings.clock_tolerance:
        to_come = f"the Jupyter server says that it was used last at {last:%Y-%m-%d %H:%M:%S} UTC, which is to come"
        return Signal(name, State.UNKNOWN, to_come)
    return Signal(name, State.QUIET, f"{told.kernels} kernels idle", whole(told.time), last, last)


def _unknown(why: str) -> Evidence:
    return Evidence(State.UNKNOWN, why)

"""What is written into GPUNode and when: on transitions, and on a slow heartbeat. Never per look.

`status_of` is the only place that knows the object's shape.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec

from stokehold.agent.attribution import Ownership, PodRef, Relation
from stokehold.agent.health import FROM_WORST, Fitness, recovery_word
from stokehold.agent.node_state import Device, NodeState
from stokehold.agent.readings import GpuReading, Missing
from stokehold.agent.sampling import Verdict
from stokehold.model.reasons import Sight

Status = dict[str, Any]

# They change with each look, or follow from what does not.
_VOLATILE = frozenset({"heartbeatTime", "energyJoules", "lastActiveTime", "since", "lastTransitionTime"})
_PROFILE = re.compile(r"MIG (\S+)$")
MAX_EVIDENCE = 240


class StatusStore(Protocol):
    """Where the node's object lives."""

    async def write_status(self, name: str, status: Status) -> None:
        """Make this the status of the node's object, which is created when it is not there."""

    async def read_status(self, name: str) -> Status | None:
        """The status as it stands, None when there is none."""


class StoreError(Exception):
    """The status could not be read or written now; try again later."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the object may be written, in seconds."""

    heartbeat: float = 300.0
    # A device whose verdict flaps may spend this many writes at once, then one each `refill`.
    burst: int = 6
    refill: float = 30.0
    first_retry: float = 5.0
    longest_retry: float = 120.0


@dataclass(slots=True)
class WriteSchedule:
    """When the next write is due. The node's name spreads the heartbeats of many agents."""

    node: str
    pace: Pace
    _written: bytes | None = None
    _heartbeat_at: float = 0.0
    _retry_at: float = 0.0
    _failures: int = 0
    _tokens: float = field(init=False)
    _refilled_at: float = 0.0

    def __post_init__(self) -> None:
        self._tokens = float(self.pace.burst)

    def is_due(self, status: Status, now: float) -> bool:
        """Whether the status should be written now."""
        if now < self._retry_at:
            return False
        if self._written is None or now >= self._heartbeat_at:
            return True
        refilled = self._tokens + (now - self._refilled_at) / self.pace.refill
        self._tokens = min(refilled, float(self.pace.burst))
        self._refilled_at = now
        return self._tokens >= 1.0 and fingerprint(status) != self._written

    def wrote(self, status: Status, now: float) -> None:
        """Remember a write that arrived."""
        self._written = fingerprint(status)
        self._heartbeat_at = now + self.pace.heartbeat * (0.9 + 0.2 * self._spread)
        self._tokens = max(self._tokens - 1.0, 0.0)
        self._refilled_at = now
        self._retry_at, self._failures = 0.0, 0

    def failed(self, now: float) -> None:
        """Put the next try off, for longer each time."""
        pause = min(self.pace.first_retry * 2**self._failures, self.pace.longest_retry)
        self._failures = min(self._failures + 1, 16)
        self._retry_at = now + pause * (1.0 + 0.5 * self._spread)

    @property
    def _spread(self) -> float:
        return zlib.crc32(self.node.encode()) / 2**32


def fingerprint(status: Status) -> bytes:
    """What must differ for a write before the heartbeat; numbers in evidence do not count."""
    return msgspec.json.encode(_essence(status), order="sorted")


def remembered_activity(status: Status | None) -> dict[str, datetime]:
    """The last activity of each device, from a status that an earlier agent wrote."""
    found: dict[str, datetime] = {}
    for gpu in (status or {}).get("gpus") or ():
        for device in (gpu, *(gpu.get("migDevices") or ())):
            written = (device.get("activity") or {}).get("lastActiveTime")
            if written and device.get("uuid"):
                with suppress(ValueError):  # whatever somebody wrote there: an agent that cannot start sees nothing
                    found[device["uuid"]] = datetime.fromisoformat(written)
    return found


def status_of(state: NodeState, agent_version: str, before: Sequence[Status] = ()) -> Status:
    """The object's status; `before` are the conditions written last, whose times stay."""
    gpus = [device for device in state.devices.values() if not device.parent_uuid]
    return {
        "phase": _phase(state, gpus),
        "conditions": _conditions(state, gpus, before),
        "agentVersion": agent_version,
        "driverVersion": state.driver_version,
        "bootID": state.boot_id,
        "heartbeatTime": _time(state.at.wall),
        "gpuCount": len(gpus),
        "healthyGpus": sum(gpu.health.fitness is Fitness.HEALTHY for gpu in gpus),
        "quietGpus": sum(gpu.signal.verdict is Verdict.QUIET for gpu in gpus),
        "gpus": [_gpu(state, gpu) for gpu in gpus],
    }


def _gpu(state: NodeState, gpu: Device) -> Status:
    instances = [d for d in state.devices.values() if d.parent_uuid == gpu.uuid]
    reading = gpu.reading if isinstance(gpu.reading, GpuReading) else None
    entry: Status = {
        **_device(state, gpu),
        "index": gpu.index,
        "model": gpu.product,
        "migEnabled": bool(instances) or (reading is not None and reading.has_mig),
        "migDevices": [_instance(state, instance) for instance in instances],
        "health": _health(gpu),
    }
    if reading is None:
        return entry
    if not isinstance(reading.memory_total_bytes, Missing):
        entry["memoryBytes"] = int(reading.memory_total_bytes)
    if not isinstance(reading.energy_millijoules, Missing):
        entry["energyJoules"] = int(reading.energy_millijoules) // 1000
    return entry


def _instance(state: NodeState, device: Device) -> Status:
    profile = _PROFILE.search(device.product)
    return {**_device(state, device), "profile": profile[1] if profile else ""}


def _device(state: NodeState, device: Device) -> Status:
    return {
        "uuid": device.uuid,
        "activity": _activity(device, state),
        "owners": [_pod(pod, state.pod_uids) for pod in device.pods],
        "foreignUsers": _foreign_users(device),
    }


def _health(gpu: Device) -> Status:
    health = {
        "state": gpu.health.fitness.value,
        "reason": gpu.health.reason,
        "message": gpu.health.evidence[:MAX_EVIDENCE],
        "since": _time(gpu.health_since),
    }
    action = gpu.reading.recovery_action if isinstance(gpu.reading, GpuReading) else None
    if action is None or isinstance(action, Missing):
        return health
    return {**health, "recoveryAction": recovery_word(int(action))}


def _activity(device: Device, state: NodeState) -> Status:
    activity = {
        "state": device.signal.verdict.value,
        "since": _time(device.since),
        "evidence": device.signal.evidence[:MAX_EVIDENCE],
    }
    last = device.last_active or state.remembered.get(device.uuid)
    # One to come was written by a clock that was wrong, and would hold back the idle clock until then.
    if last is None or last > state.at.wall:
        return activity
    return {**activity, "lastActiveTime": _time(last)}


def _pod(pod: PodRef, uids: Mapping[tuple[str, str], str]) -> Status:
    entry = {"namespace": pod.namespace, "pod": pod.name, "container": pod.container}
    uid = uids.get((pod.namespace, pod.name))
    return {**entry, "podUID": uid} if uid else entry


def _foreign_users(device: Device) -> list[Status]:
    owners = {user.owner for user in device.users if user.relation is Relation.FOREIGN}
    rows = sorted((o.namespace, o.pod, o.pod_uid, o.command) for o in owners)
    return [
        {key: value for key, value in zip(("namespace", "pod", "podUID", "command"), row, strict=True) if value}
        for row in rows
    ]


def _phase(state: NodeState, gpus: Sequence[Device]) -> str:
    if state.look.error or any(gpu.health.fitness is Fitness.UNKNOWN for gpu in gpus):
        return "Unknown"
    healthy = sum(gpu.health.fitness is Fitness.HEALTHY for gpu in gpus)
    if healthy == len(gpus):
        return "Ready"
    return "Degraded" if healthy else "Unhealthy"


def _conditions(state: NodeState, gpus: Sequence[Device], before: Sequence[Status]) -> list[Status]:
    times = {(c.get("type"), c.get("status")): c.get("lastTransitionTime") for c in before}
    found = (_agent_ready(state), _owners_known(state.ownership), _gpus_healthy(state, gpus))
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message[:MAX_EVIDENCE],
            "lastTransitionTime": times.get((kind, status)) or _time(state.at.wall),
        }
        for kind, status, reason, message in found
    ]


def _agent_ready(state: NodeState) -> tuple[str, str, str, str]:
    if state.look.error:
        return "AgentReady", "False", Sight.NVML_SILENT, state.look.error
    return "AgentReady", "True", Sight.NVML_ANSWERS, ""


def _owners_known(ownership: Ownership) -> tuple[str, str, str, str]:
    if isinstance(ownership, Missing):
        return "OwnersKnown", "False", Sight.KUBELET_SILENT, ownership.evidence
    if ownership.unmatched:
        return "OwnersKnown", "False", Sight.UNKNOWN_DEVICES, "fit no GPU: " + ", ".join(ownership.unmatched)
    return "OwnersKnown", "True", Sight.KUBELET_ANSWERS, ""


def _gpus_healthy(state: NodeState, gpus: Sequence[Device]) -> tuple[str, str, str, str]:
    worst = min(gpus, key=lambda gpu: FROM_WORST.index(gpu.health.fitness), default=None)
    if state.look.error or worst is None:
        return "GpusHealthy", "Unknown", Sight.NOT_SEEN, state.look.error or "the driver lists no GPU"
    if worst.health.fitness is Fitness.HEALTHY:
        return "GpusHealthy", "True", Sight.NO_FAULT, ""
    status = "Unknown" if worst.health.fitness is Fitness.UNKNOWN else "False"
    return "GpusHealthy", status, worst.health.reason, f"{worst.uuid}: {worst.health.evidence}"


def _essence(value: Any) -> Any:
    if isinstance(value, list):
        return [_essence(part) for part in value]
    if not isinstance(value, dict):
        return value
    essence = {key: _essence(part) for key, part in value.items() if key not in _VOLATILE}
    for key in ("evidence", "message"):
        if key in essence:
            # Why something is active or quiet may change at each look; why it is unknown matters.
            matters = value.get("state", "Unknown") == "Unknown"
            essence[key] = re.sub(r"[0-9.]+", "#", essence[key]) if matters else ""
    return essence


def _time(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds").replace("+00:00", "Z")

"""What is written into GPUNode and when: on transitions, and on a slow heartbeat. Never per look.

`status_of` is the only place that knows the object's shape.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec

from stokehold.agent.attribution import PodRef, Relation
from stokehold.agent.node_state import Device, NodeState
from stokehold.agent.readings import GpuReading, InstanceReading, Missing, Value

Status = dict[str, Any]

# They change with each look, or follow from what does not.
_VOLATILE = frozenset({"observedAt", "lastActiveTime", "since", "lastTransitionTime"})
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
        for device in (gpu, *((gpu.get("mig") or {}).get("instances") or ())):
            written = (device.get("activity") or {}).get("lastActiveTime")
            if written and device.get("uuid"):
                found[device["uuid"]] = datetime.fromisoformat(written)
    return found


def status_of(state: NodeState, agent_version: str, before: Sequence[Status] = ()) -> Status:
    """The object's status; `before` are the conditions written last, whose times stay."""
    gpus = [device for device in state.devices.values() if not device.parent_uuid]
    return {
        "observedAt": _time(state.at.wall),
        "driverVersion": state.driver_version,
        "agentVersion": agent_version,
        "conditions": _conditions(state, before),
        "gpus": [_gpu(state, gpu) for gpu in gpus],
    }


def _gpu(state: NodeState, gpu: Device) -> Status:
    instances = [d for d in state.devices.values() if d.parent_uuid == gpu.uuid]
    reading = gpu.reading if isinstance(gpu.reading, GpuReading) else None
    enabled = reading.has_mig if reading is not None else bool(instances)
    return {
        **_device(state, gpu),
        "index": gpu.index,
        "mig": {
            "enabled": enabled,
            "instances": [_instance(state, instance) for instance in instances],
        },
        "health": {"state": gpu.health.fitness.value, "evidence": gpu.health.evidence},
    }


def _instance(state: NodeState, device: Device) -> Status:
    profile = _PROFILE.search(device.product)
    return {**_device(state, device), "profile": profile[1] if profile else ""}


def _device(state: NodeState, device: Device) -> Status:
    reading: GpuReading | InstanceReading | None = device.reading
    uids = state.pod_uids
    entry: Status = {
        "uuid": device.uuid,
        "product": device.product,
        "activity": _activity(device, state.remembered),
        "pods": [_pod(pod, uids) for pod in device.pods],
        "foreignProcesses": sum(u.relation is Relation.FOREIGN for u in device.users),
        "foreignUsers": _foreign_users(device),
    }
    memory = _mebibytes(reading.memory_total_bytes) if reading is not None else None
    return entry if memory is None else {**entry, "memoryMiB": memory}


def _activity(device: Device, remembered: Mapping[str, datetime]) -> Status:
    activity = {
        "verdict": device.signal.verdict.value,
        "since": _time(device.since),
        "evidence": device.signal.evidence[:MAX_EVIDENCE],
    }
    last = device.last_active or remembered.get(device.uuid)
    return activity if last is None else {**activity, "lastActiveTime": _time(last)}


def _pod(pod: PodRef, uids: Mapping[tuple[str, str], str]) -> Status:
    entry = {"namespace": pod.namespace, "name": pod.name, "container": pod.container}
    uid = uids.get((pod.namespace, pod.name))
    return {**entry, "uid": uid} if uid else entry


def _foreign_users(device: Device) -> list[Status]:
    owners = {user.owner for user in device.users if user.relation is Relation.FOREIGN}
    return [
        {key: value for key, value in fields if value}
        for fields in sorted(
            (
                ("namespace", owner.namespace),
                ("name", owner.pod),
                ("uid", owner.pod_uid),
                ("command", owner.command),
            )
            for owner in owners
        )
    ]


def _conditions(state: NodeState, before: Sequence[Status]) -> list[Status]:
    look, ownership = state.look, state.ownership
    is_owned = not isinstance(ownership, Missing)
    unmatched = () if isinstance(ownership, Missing) else ownership.unmatched
    conditions = [
        ("NVMLResponsive", not look.error, "Answered", "NoAnswer", look.error),
        (
            "OwnersKnown",
            is_owned and not unmatched,
            "Listed",
            "UnknownDevices" if is_owned else "NoAnswer",
            ownership.evidence
            if isinstance(ownership, Missing)
            else "devices that fit no GPU: " + ", ".join(unmatched)
            if unmatched
            else "",
        ),
    ]
    times = {(c.get("type"), c.get("status")): c.get("lastTransitionTime") for c in before}
    return [
        {
            "type": kind,
            "status": "True" if holds else "False",
            "reason": good if holds else bad,
            "message": message[:MAX_EVIDENCE],
            "lastTransitionTime": times.get((kind, str(holds))) or _time(state.at.wall),
        }
        for kind, holds, good, bad, message in conditions
    ]


def _essence(value: Any) -> Any:
    if isinstance(value, list):
        return [_essence(part) for part in value]
    if not isinstance(value, dict):
        return value
    essence = {key: _essence(part) for key, part in value.items() if key not in _VOLATILE}
    for key in ("evidence", "message"):
        if key in essence:
            # Why something is active or quiet may change at each look; why it is unknown matters.
            matters = value.get("verdict", "Unknown") == "Unknown"
            essence[key] = re.sub(r"[0-9.]+", "#", essence[key]) if matters else ""
    return essence


def _mebibytes(value: Value) -> int | None:
    return None if isinstance(value, Missing) else int(value) >> 20


def _time(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds").replace("+00:00", "Z")

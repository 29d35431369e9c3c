"""What one look at the GPUs gave: plain values that cross from NVML's process. No judgement."""

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why a value is missing; none of them means zero."""

    ABSENT = "absent"  # this GPU or driver cannot give it
    NO_DATA = "no-data"  # it can, but had none this time
    FAILED = "failed"  # the call returned an error
    LOST = "lost"  # the GPU itself is gone or needs a reset


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that was not given, and what the library said instead."""

    cause: Cause
    evidence: str


Value = int | float | Missing


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One process that holds a GPU; instance ids are None on a whole GPU."""

    pid: int
    kind: str
    gpu_instance: int | None = None


Processes = tuple[ProcessReading, ...] | Missing


@dataclass(frozen=True, slots=True)
class InstanceReading:
    """One MIG device; it has no utilisation of its own in NVML."""

    uuid: str
    name: str
    gpu_instance: int | None
    compute_instance: int | None
    memory_total_bytes: Value
    memory_used_bytes: Value
    processes: Processes


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one look. `uuid` is empty when the driver would not even say which GPU it is."""

    index: int
    uuid: str
    product: str
    minor: int | None
    bus_id: str
    mig_mode: Value
    utilization_percent: Value
    memory_utilization_percent: Value
    memory_total_bytes: Value
    memory_used_bytes: Value
    power_milliwatts: Value
    power_limit_milliwatts: Value
    energy_millijoules: Value
    temperature_celsius: Value
    recovery_action: Value
    rows_pending: Value
    rows_failed: Value
    processes: Processes
    instances: tuple[InstanceReading, ...] | Missing

    @property
    def has_mig(self) -> bool:
        """Whether MIG is known to be on."""
        return not isinstance(self.mig_mode, Missing) and self.mig_mode == 1


@dataclass(frozen=True, slots=True)
class NodeReading:
    """One look at all GPUs of the node. `error` says why there was nothing to look at."""

    driver_version: str = ""
    gpus: tuple[GpuReading, ...] = ()
    error: str = ""
    seconds: float = 0.0
    slowest_seconds: float = 0.0


def unreadable_gpu(index: int, uuid: str, missing: Missing) -> GpuReading:
    """A GPU of which nothing could be read."""
    return GpuReading(
        index=index,
        uuid=uuid,
        product="",
        minor=None,
        bus_id="",
        mig_mode=missing,
        utilization_percent=missing,
        memory_utilization_percent=missing,
        memory_total_bytes=missing,
        memory_used_bytes=missing,
        power_milliwatts=missing,
        power_limit_milliwatts=missing,
        energy_millijoules=missing,
        temperature_celsius=missing,
        recovery_action=missing,
        rows_pending=missing,
        rows_failed=missing,
        processes=missing,
        instances=missing,
    )

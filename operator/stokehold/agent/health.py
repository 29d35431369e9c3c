"""Whether a GPU is fit for work, from the driver's own words. Pure. Repairs nothing.

The seam for more sources (XID events, other tools' conditions): add a check to CHECKS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from stokehold.agent.readings import Cause, GpuReading, Missing


class Fitness(StrEnum):
    """What may be done with the GPU."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"  # running work may go on; reset it when it is free
    UNHEALTHY = "Unhealthy"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict with what it rests on."""

    fitness: Fitness
    evidence: str


# NVML_FI_DEV_GET_GPU_RECOVERY_ACTION; a number newer than this list means "not fit" as well.
RECOVERY_ACTIONS = {
    1: "GPU reset",
    2: "node reboot",
    3: "drain peer-to-peer traffic",
    4: "drain and GPU reset",
    5: "recover the IMEX domain",
    6: "bus reset",
    7: "system reboot",
}


def assess(gpu: GpuReading) -> Health:
    """The worst that any check says of the GPU."""
    for check in CHECKS:
        health = check(gpu)
        if health is not None:
            return health
    return Health(Fitness.HEALTHY, "the driver reports no fault")


def _is_lost(gpu: GpuReading) -> Health | None:
    values = (gpu.utilization_percent, gpu.memory_used_bytes, gpu.temperature_celsius)
    for value in values:
        if isinstance(value, Missing) and value.cause is Cause.LOST:
            return Health(Fitness.UNHEALTHY, value.evidence)
    return None


def _needs_recovery(gpu: GpuReading) -> Health | None:
    action = gpu.recovery_action
    if isinstance(action, Missing) or action == 0:
        return None
    name = RECOVERY_ACTIONS.get(int(action), f"action {action}")
    return Health(Fitness.UNHEALTHY, f"the driver asks for: {name}")


def _has_bad_rows(gpu: GpuReading) -> Health | None:
    if not isinstance(gpu.rows_failed, Missing) and gpu.rows_failed:
        return Health(Fitness.UNHEALTHY, "memory rows could not be remapped")
    if not isinstance(gpu.rows_pending, Missing) and gpu.rows_pending:
        return Health(Fitness.DEGRADED, "a remapped memory row waits for a GPU reset")
    return None


def _does_not_answer(gpu: GpuReading) -> Health | None:
    """A GPU that only errs may be fit or not; one missing capability says nothing."""
    value = gpu.memory_used_bytes
    if isinstance(value, Missing) and value.cause is Cause.FAILED:
        return Health(Fitness.UNKNOWN, value.evidence)
    return None


CHECKS: tuple[Callable[[GpuReading], Health | None], ...] = (
    _is_lost,
    _needs_recovery,
    _has_bad_rows,
    _does_not_answer,
)

"""Whether a GPU is fit for work, from the driver's own words. Pure. Repairs nothing.

The seam for more sources (XID events, other tools' conditions): add a check to CHECKS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from stokehold.agent.readings import Cause, GpuReading, Missing
from stokehold.model.reasons import Sight


class Fitness(StrEnum):
    """What may be done with the GPU."""

    HEALTHY = "Healthy"
    SUSPECT = "Suspect"  # no new work; what runs may go on
    UNHEALTHY = "Unhealthy"  # work must leave
    UNKNOWN = "Unknown"


FROM_WORST = (Fitness.UNHEALTHY, Fitness.SUSPECT, Fitness.UNKNOWN, Fitness.HEALTHY)


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict with what it rests on."""

    fitness: Fitness
    reason: str
    evidence: str


# NVML_FI_DEV_GET_GPU_RECOVERY_ACTION; a number newer than this list means "not fit" as well.
RECOVERY_ACTIONS = (
    "None",
    "GpuReset",
    "NodeReboot",
    "DrainP2P",
    "DrainAndReset",
    "RecoverImexDomain",
    "BusReset",
    "SystemReboot",
)


def recovery_word(action: int) -> str:
    """What the driver asks for, as one word."""
    return RECOVERY_ACTIONS[action] if 0 <= action < len(RECOVERY_ACTIONS) else f"Action{action}"


def assess(gpu: GpuReading) -> Health:
    """The worst that any check says of the GPU."""
    for check in CHECKS:
        health = check(gpu)
        if health is not None:
            return health
    return Health(Fitness.HEALTHY, Sight.NO_FAULT, "the driver reports no fault")


def _is_lost(gpu: GpuReading) -> Health | None:
    values = (gpu.utilization_percent, gpu.memory_used_bytes, gpu.temperature_celsius)
    for value in values:
        if isinstance(value, Missing) and value.cause is Cause.LOST:
            return Health(Fitness.UNHEALTHY, Sight.LOST, value.evidence)
    return None


def _needs_recovery(gpu: GpuReading) -> Health | None:
    action = gpu.recovery_action
    if isinstance(action, Missing) or action == 0:
        return None
    word = recovery_word(int(action))
    return Health(Fitness.UNHEALTHY, word, f"the driver asks for {word}")


def _has_bad_rows(gpu: GpuReading) -> Health | None:
    if not isinstance(gpu.rows_failed, Missing) and gpu.rows_failed:
        return Health(Fitness.UNHEALTHY, Sight.ROWS_FAILED, "memory rows could not be remapped")
    if not isinstance(gpu.rows_pending, Missing) and gpu.rows_pending:
        return Health(Fitness.SUSPECT, Sight.ROWS_PENDING, "a remapped memory row waits for a GPU reset")
    return None


def _does_not_answer(gpu: GpuReading) -> Health | None:
    """A GPU that only errs may be fit or not; one missing capability says nothing."""
    value = gpu.memory_used_bytes
    if isinstance(value, Missing) and value.cause is Cause.FAILED:
        return Health(Fitness.UNKNOWN, Sight.NO_ANSWER, value.evidence)
    return None


CHECKS: tuple[Callable[[GpuReading], Health | None], ...] = (
    _is_lost,
    _needs_recovery,
    _has_bad_rows,
    _does_not_answer,
)

"""Health from the driver's own words."""

import pytest

from agent.builders import a_gpu
from stokehold.agent.health import Fitness, assess, recovery_word
from stokehold.agent.readings import Cause, Missing


@pytest.mark.parametrize(
    ("changes", "fitness", "reason"),
    [
        ({}, Fitness.HEALTHY, "NoFault"),
        ({"recovery_action": 1}, Fitness.UNHEALTHY, "GpuReset"),
        ({"recovery_action": 99}, Fitness.UNHEALTHY, "Action99"),
        ({"rows_pending": 1}, Fitness.SUSPECT, "RowRemapPending"),
        ({"rows_pending": 1, "rows_failed": 1}, Fitness.UNHEALTHY, "RowRemapFailed"),
        ({"temperature_celsius": Missing(Cause.LOST, "GPU is lost")}, Fitness.UNHEALTHY, "GpuIsLost"),
        ({"memory_used_bytes": Missing(Cause.FAILED, "Unknown Error")}, Fitness.UNKNOWN, "NoAnswer"),
        ({"recovery_action": Missing(Cause.ABSENT, "old driver")}, Fitness.HEALTHY, "NoFault"),
    ],
)
def test_the_worst_word_counts(changes: dict, fitness: Fitness, reason: str):
    health = assess(a_gpu(**changes))

    assert (health.fitness, health.reason) == (fitness, reason)


def test_a_healthy_gpu_needs_no_recovery():
    assert recovery_word(0) == "None"

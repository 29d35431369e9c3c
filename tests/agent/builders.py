"""Readings with boring defaults: an idle H100."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from stokehold.agent.attribution import Owners
from stokehold.agent.node_state import Instant, NodeState, Observation, Rules, observe
from stokehold.agent.readings import GpuReading, InstanceReading, NodeReading
from stokehold.agent.sampling import Window

GIB = 1 << 30
START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
RULES = Rules(window=Window(seconds=60.0, longest_pause=40.0))
NO_OWNERS = Owners({})


def a_gpu(index: int = 0, **changes: Any) -> GpuReading:
    gpu = GpuReading(
        index=index,
        uuid=uuid_of(index),
        product="NVIDIA H100 80GB HBM3",
        minor=index,
        bus_id=f"00000000:{index:02X}:00.0",
        mig_mode=0,
        utilization_percent=0,
        memory_utilization_percent=0,
        memory_total_bytes=80 * GIB,
        memory_used_bytes=0,
        power_milliwatts=70_000,
        power_limit_milliwatts=700_000,
        energy_millijoules=1_000_000,
        temperature_celsius=30,
        recovery_action=0,
        rows_pending=0,
        rows_failed=0,
        processes=(),
        instances=(),
    )
    return replace(gpu, **changes)


def a_slice(number: int = 9, **changes: Any) -> InstanceReading:
    part = InstanceReading(
        uuid=f"MIG-{number:08d}-0000-0000-0000-000000000000",
        name="NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        gpu_instance=number,
        compute_instance=0,
        memory_total_bytes=10 * GIB,
        memory_used_bytes=0,
        processes=(),
    )
    return replace(part, **changes)


def uuid_of(index: int) -> str:
    return f"GPU-{index:08d}-aaaa-bbbb-cccc-000000000000"


def at(seconds: float) -> Instant:
    return Instant(seconds, START + timedelta(seconds=seconds))


def seen(seconds: float, *gpus: GpuReading, **changes: Any) -> Observation:
    look = NodeReading(driver_version="580.65.06", gpus=gpus)
    observation = Observation(at=at(seconds), look=look, ownership=NO_OWNERS, process_owners={})
    return replace(observation, **changes)


def state_after(*observations: Observation) -> NodeState:
    state = NodeState(at(0))
    for observation in observations:
        state = observe(state, observation, RULES)
    return state

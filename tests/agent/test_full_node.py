"""A node of eight GPUs in every kind of trouble: right values or Unknown, never a false Quiet, and an agent that lives.

STOKEHOLD_HANG_SECONDS lengthens the time for which the driver hangs.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.processes import AgentProcess, World, eventually, steadily
from kit.nvml import driver
from kit.nvml.driver import uuid_of

GPUS = range(8)
BUSY = range(4)
A100 = b"NVIDIA A100-SXM4-80GB"
WRITES_ALL = ("--heartbeat", "300ms")
NVML_TIMEOUT_SECONDS = 1.0  # of `World.start_agent`
HANG_SECONDS = float(os.environ.get("STOKEHOLD_HANG_SECONDS", 5 * NVML_TIMEOUT_SECONDS))
USED = ("nvmlDeviceGetSamples", "nvmlDeviceGetUtilizationRates")
"""The calls that tell use from idleness."""


@pytest.fixture
def node(world: World) -> World:
    """Eight H100, the first four of them busy."""
    world.nvml.count = len(GPUS)
    for index in GPUS:
        world.nvml[index].power_mw = 1_000  # so little that no jitter of the looks makes it look like work
    for index in BUSY:
        world.nvml[index].utilization = 80 + index
    return world


def states(world: World) -> list[str]:
    return [world.api.activity(index) for index in GPUS]


def right(world: World, unknown: tuple[int, ...] = ()) -> bool:
    """Whether each GPU is told to be what it is."""
    return states(world) == ["Unknown" if i in unknown else "Active" if i in BUSY else "Quiet" for i in GPUS]


def all_unknown(world: World) -> bool:
    return states(world) == ["Unknown"] * len(GPUS)


def told_since(world: World, write: int, indices: tuple[int, ...]) -> set[str]:
    """All that was ever written of these GPUs since then."""
    gpus = [gpu for status in world.api.writes[write:] for gpu in status.get("gpus", ())]
    return {gpu["activity"]["state"] for gpu in gpus if gpu["index"] in indices}


def is_well(agent: AgentProcess) -> bool:
    return agent.process.poll() is None and agent.is_serving() and "Traceback" not in agent.log.read_text()


def test_one_gpu_lost_mid_run_and_a_driver_that_hangs_leave_no_false_word_about_eight_h100(node: World):
    agent = node.start_agent(*WRITES_ALL, interval=0.4, window=2.0)
    eventually(lambda: right(node))
    series = {name: value for name, value in agent.metrics().items() if name.startswith("DCGM_FI_DEV_GPU_UTIL{")}
    assert sorted(series.values()) == [0, 0, 0, 0, 80, 81, 82, 83]
    assert all('modelName="NVIDIA H100 80GB HBM3"' in name for name in series)

    node.nvml.fail("*", driver.GPU_IS_LOST, gpu=5)
    eventually(lambda: right(node, unknown=(5,)))
    lost = len(node.api.writes)
    assert node.api.gpu(5)["uuid"] == uuid_of(5)
    assert node.api.gpu(5)["health"]["state"] == "Unhealthy"

    node.nvml.hang("nvmlDeviceGetPowerUsage", gpu=2)
    eventually(lambda: all_unknown(node))
    hung = len(node.api.writes)
    steadily(lambda: all_unknown(node) and is_well(agent), HANG_SECONDS)
    assert told_since(node, hung, tuple(GPUS)) <= {"Unknown"}
    assert agent.metrics()["stokehold_agent_nvml_responsive"] == 0

    node.nvml.heal()
    node.nvml.fail("*", driver.GPU_IS_LOST, gpu=5)
    eventually(lambda: right(node, unknown=(5,)), seconds=90)  # a driver that hung for long is opened again later
    assert told_since(node, lost, (5,)) == {"Unknown"}
    assert is_well(agent)


def _forbid(world: World, _: Path) -> None:
    for call in USED:
        world.nvml.fail(call, driver.NO_PERMISSION)


def _forbid_all(world: World, _: Path) -> None:
    world.nvml.fail("*", driver.NO_PERMISSION)


def _unload(world: World, _: Path) -> None:
    world.nvml.fail("*", driver.DRIVER_NOT_LOADED)


def _cut(world: World, directory: Path) -> None:
    world.nvml.shared_object = driver.build(directory, without=USED)


@pytest.mark.parametrize(
    ("trouble", "evidence"),
    [
        (_forbid, "Insufficient Permissions"),
        (_forbid_all, "Insufficient Permissions"),
        (_cut, "Function Not Found"),
        (_unload, "Driver Not Loaded"),
    ],
    ids=["no permission for use", "no permission at all", "missing symbol", "no driver"],
)
def test_eight_h100_that_cannot_be_judged_are_never_quiet(
    node: World, tmp_path: Path, trouble: Callable[[World, Path], None], evidence: str
):
    (tmp_path / "library").mkdir()
    trouble(node, tmp_path / "library")
    agent = node.start_agent(*WRITES_ALL, interval=0.4, window=2.0)

    eventually(lambda: evidence in str(node.api.status()))
    looks = len(node.api.writes)
    eventually(lambda: len(node.api.writes) >= looks + 4)  # of which each is of looks that came after the one before

    assert "Quiet" not in told_since(node, 0, tuple(GPUS))
    assert is_well(agent)


def test_mig_on_a100_is_unknown_and_the_whole_a100_beside_it_has_its_right_value(node: World):
    for index in GPUS:
        node.nvml[index].name = A100
    node.nvml[0].split(7, 9, 11)
    node.nvml[6].split()
    agent = node.start_agent(*WRITES_ALL, interval=0.4, window=2.0)

    eventually(lambda: right(node, unknown=(0, 6)))
    assert node.api.gpu(0)["model"] == A100.decode()
    devices = node.api.gpu(0)["migDevices"]
    assert [(one["profile"], one["activity"]["state"]) for one in devices] == [("1g.10gb", "Unknown")] * 3
    assert node.api.gpu(6).get("migDevices", []) == []
    looks = len(node.api.writes)
    eventually(lambda: len(node.api.writes) >= looks + 4)
    assert told_since(node, 0, (0, 6)) == {"Unknown"}
    assert not any("UTIL" in name and uuid_of(0) in name for name in agent.metrics())
    assert is_well(agent)

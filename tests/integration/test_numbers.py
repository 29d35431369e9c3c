"""Numbers nobody meant, as large as the API lets them be; what it refuses is in tests/api."""

import json

import psutil
import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.jobs import Team, training_job, wait_until

pytestmark = pytest.mark.cluster

MOST_NODES, MIB = 4096, 1 << 20


def test_giants_wait_with_true_numbers_and_stand_in_nobodys_way(team: Team, operator: OperatorProcess):
    process = psutil.Process(operator.pid)
    team.submit("first", {"run-for": "1s"})
    team.wait_phase("first", "Succeeded")
    memory = process.memory_info().rss

    giants = [f"giant-{i}" for i in range(20)]
    team.apply(*(training_job(name, numNodes=MOST_NODES, gpusPerNode=8, gpuTypes=["h100"]) for name in giants))
    team.submit("impossible", numNodes=MOST_NODES, gpusPerNode=64)
    told = [team.wait_reason(name, "WaitingForCapacity") for name in giants]
    team.wait_reason("impossible", "NoMatchingFlavor")
    team.submit("honest", {"run-for": "1s"}, gpusPerNode=8, gpuTypes=["h100"])
    team.wait_phase("honest", "Succeeded", within=30)

    numbers = {"requested": 8 * MOST_NODES, "available": 32, "unit": "GPUs"}
    assert [queue["details"] for queue in told] == [numbers] * len(giants)
    waiting = sum(
        operator.metric("stokehold_jobs_waiting", reason=r) for r in ("WaitingForCapacity", "NoMatchingFlavor")
    )
    assert waiting == len(giants) + 1
    assert process.memory_info().rss - memory < 10 * MIB
    before, cycles = plan_seconds(operator)
    wait_until(lambda: plan_seconds(operator)[1] >= cycles + 3, 30)
    after, more = plan_seconds(operator)
    assert (after - before) / (more - cycles) < 0.1


def test_resources_that_only_sound_like_gpus_are_not_counted(
    team: Team, cluster: LocalCluster, operator: OperatorProcess
):
    sounds = ("nvidia.com/vgpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "amd.com/gpu")
    cluster.set_allocatable("h100-0", dict.fromkeys(sounds, 80))
    try:
        for number in range(5):
            team.submit(f"whole-{number}", gpusPerNode=8, gpuTypes=["h100"])
        for number in range(4):
            team.wait_phase(f"whole-{number}", "Running")

        told = team.wait_reason("whole-4", "WaitingForCapacity")
        assert told["details"] == {"requested": 8, "available": 0, "unit": "GPUs"}
        assert operator.metric("stokehold_gpus", pool="h100-80gb-hbm3", state="allocatable") == 32
        assert sorted(team.nodes_of(f"whole-{number}")[0] for number in range(4)) == [f"h100-{i}" for i in range(4)]
    finally:
        gone = json.dumps({"status": {"allocatable": dict.fromkeys(sounds)}})
        cluster.kubectl("patch", "node", "h100-0", "--subresource=status", "--type=merge", "-p", gone)


def plan_seconds(operator: OperatorProcess) -> tuple[float, float]:
    """Seconds spent on planning, and how many plans."""
    name = "stokehold_cycle_duration_seconds"
    return operator.metric(f"{name}_sum", part="plan"), operator.metric(f"{name}_count", part="plan")

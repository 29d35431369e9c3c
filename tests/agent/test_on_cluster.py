"""The agent against a real API server, under the chart's account and its policy: no right beyond its own object."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hack.cluster import LocalCluster
from hack.installation import NAMESPACE, kubeconfig_for_agent

from agent.processes import World, eventually
from kit.nvml.driver import uuid_of
from kit.pod_resources import with_gpus

pytestmark = pytest.mark.cluster

NODE, OTHER_NODE = "h100-0", "h100-1"


@pytest.fixture
def kubeconfig(cluster: LocalCluster) -> Iterator[Path]:
    yield kubeconfig_for_agent(cluster, NODE)
    cluster.kubectl("delete", "pod", f"agent-{NODE}", "-n", NAMESPACE, "--force", "--grace-period=0")
    cluster.kubectl("delete", "gpunode", NODE, "--ignore-not-found")


def test_the_api_server_takes_the_status_and_keeps_it_over_a_restart(
    cluster: LocalCluster, kubeconfig: Path, world: World
):
    world.kubelet.give(with_gpus("team-a", "notebook", uuid_of(0)))
    world.nvml[1].split(9)

    agent = world.start_agent("--kubeconfig", str(kubeconfig), "--node-name", NODE)
    eventually(lambda: activity(cluster, 0) == "Quiet")

    whole, parent = status(cluster)["gpus"]
    assert whole["owners"] == [{"namespace": "team-a", "pod": "notebook", "container": "main"}]
    assert parent["migDevices"][0]["activity"]["state"] == "Unknown"
    assert whole["memoryBytes"] == world.nvml[0].memory_total
    processes = (psutil.Process(agent.process.pid), *psutil.Process(agent.process.pid).children())
    assert sum(process.memory_info().rss for process in processes) < 80 << 20

    assert agent.stop() == 0
    assert activity(cluster, 0) == "Unknown"
    world.start_agent("--kubeconfig", str(kubeconfig), "--node-name", NODE)
    eventually(lambda: activity(cluster, 0) == "Quiet")


def test_an_object_deleted_under_the_agent_comes_back_with_its_next_write(
    cluster: LocalCluster, kubeconfig: Path, world: World
):
    agent = world.start_agent("--kubeconfig", str(kubeconfig), "--node-name", NODE)
    eventually(lambda: activity(cluster, 0) == "Quiet")

    cluster.kubectl("delete", "gpunode", NODE)
    world.nvml[0].utilization = 80
    eventually(lambda: activity(cluster, 0) == "Active")
    assert agent.metrics()["stokehold_agent_failed_writes_total"] == 0


def test_an_admission_policy_keeps_each_agent_to_the_node_of_its_pod(
    cluster: LocalCluster, kubeconfig: Path, world: World
):
    intruder = world.start_agent("--kubeconfig", str(kubeconfig), "--node-name", OTHER_NODE)
    eventually(lambda: intruder.metrics()["stokehold_agent_failed_writes_total"] > 0)
    assert "only the GPUNode of its own node" in intruder.log.read_text()

    world.start_agent("--kubeconfig", str(kubeconfig), "--node-name", NODE)
    eventually(lambda: NODE in cluster.kubectl("get", "gpunodes", "-o", "name"))
    assert OTHER_NODE not in cluster.kubectl("get", "gpunodes", "-o", "name")


def status(cluster: LocalCluster) -> dict[str, Any]:
    printed = cluster.kubectl("get", "gpunode", NODE, "--ignore-not-found", "-o", "json")
    found: dict[str, Any] = json.loads(printed).get("status", {}) if printed else {}
    return found


def activity(cluster: LocalCluster, index: int) -> str:
    gpus = status(cluster).get("gpus", ())
    state: str = next((gpu["activity"]["state"] for gpu in gpus if gpu["index"] == index), "")
    return state

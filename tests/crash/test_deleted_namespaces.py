"""A namespace is deleted with all that runs and waits in it: it goes in time, and nothing of it stays."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from hack.cluster import LocalCluster
from hack.fault_proxy import FaultProxy
from hack.installation import OperatorProcess

from kit.burst import OWN, Cloud
from kit.jobs import Team, training_job, wait_until
from kit.serving import inference_pool

pytestmark = [pytest.mark.cluster, pytest.mark.crash]

ROUNDS = (("quiet",), ("killed",), ("one", "two", "three"))
KILLED = (False, True, True)
MOST_LINES = 5
"""In the log, for each object that was in the namespace."""


@pytest.fixture
def cloud(cluster: LocalCluster) -> Iterator[Cloud]:
    """Nodes that boot for longer than the namespaces live."""
    made = Cloud(cluster)
    made.declare(max_nodes=6, simulated={"bootTime": "5m"})
    yield made
    made.delete()


def test_namespace_goes_in_time_and_nothing_is_created_in_it_or_left_of_it(
    cluster: LocalCluster,
    cloud: Cloud,
    start_behind_proxy: Callable[..., tuple[OperatorProcess, FaultProxy]],
):
    operator, proxy = start_behind_proxy("deletes", "--burst-age", "1s", "--orphan-after", "2s")
    for names, is_killed in zip(ROUNDS, KILLED, strict=True):
        teams = [fill(Team.create(cluster, name)) for name in names]
        for team in teams:
            wait_until(
                lambda team=team: is_full(team),
                40,
                lambda team=team: team.kubectl("get", "tj,gws,gpool,pods"),
            )
        bought = 2 * len(teams)
        wait_until(lambda bought=bought: are_launched(cloud.phases(), bought), 40, cloud.phases)
        lines = len(operator.log.read_text().splitlines())
        objects = sum(len(everything_of(team)) for team in teams) + len(cloud.claims())

        for team in teams:
            cluster.kubectl("delete", "namespace", team.namespace, "--wait=false")
        seen = time.monotonic() + 1
        if is_killed:
            operator.kill()
            operator.restart()

        for team in teams:
            gone = ("get", "namespace", team.namespace, "--ignore-not-found")
            wait_until(
                lambda gone=gone: not cluster.kubectl(*gone), 90, lambda gone=gone: cluster.kubectl(*gone, "-o", "yaml")
            )
        cloud.wait_gone()
        assert [c for c in proxy.writes_since(seen) if c.method == "POST" and c.namespace in names] == []
        assert len(operator.log.read_text().splitlines()) - lines <= MOST_LINES * objects
    wait_until(lambda: operator.metric("stokehold_gpus", state="used") == 0, 20)
    wait_until(lambda: cluster.read("gpunodepools", OWN)["status"]["gpus"].get("used", 0) == 0, 20)
    told = [json.loads(line) for line in operator.logged("info")]
    released = [line for line in told if line["message"] == "claim released"]
    assert len({line["claim"] for line in released}) == 2 * sum(map(len, ROUNDS))
    assert all(float(line["cost"]) > 0 for line in released)  # the last that is known of a claim whose owner is gone
    assert operator.metric("stokehold_node_cost_total", pool="cloud", currency="USD") > 0
    assert operator.logged("error") == []


def fill(team: Team) -> Team:
    """A gang that runs, one that waits for nodes that are being bought, a workspace and a pool of two replicas."""
    workspace = {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "DevWorkspace",
        "metadata": {"name": "desk"},
        "spec": {"image": "registry.local/jupyter:1"},
    }
    checkpoint = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "ckpt"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    team.apply(
        checkpoint,
        training_job("runs", numNodes=2, gpusPerNode=2),
        training_job("waits", numNodes=2, gpusPerNode=8, capacity=["on-demand"], dataClass="internal"),
        workspace,
        inference_pool("chat", replicas={"min": 2, "max": 2}),
    )
    return team


def is_full(team: Team) -> bool:
    running = [pod for pod in team.pods() if pod["status"].get("phase") == "Running"]
    return len(running) == 2 + 1 + 2 and team.reason("waits") == "ProvisioningCapacity"


def are_launched(phases: list[str], number: int) -> bool:
    return len(phases) == number and set(phases) <= {"Launched", "Registered"}


def everything_of(team: Team) -> list[object]:
    kinds = "tj,gws,gpool,pods,services,deployments,statefulsets,poddisruptionbudgets"
    found: list[object] = json.loads(team.kubectl("get", kinds, "-o", "json"))["items"]
    return found

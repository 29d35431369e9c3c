"""The operator dies ten times while nodes are bought: none twice, none forgotten, no gang on half of its nodes."""

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.burst import Cloud
from kit.jobs import Team, training_job, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.crash]

KILLS = 10
MOST_NODES = 10
IMPATIENT = (
    *("--node-ready-within", "25s", "--node-gpus-within", "2s"),
    *("--orphan-after", "5s", "--capacity-backoff", "2s", "--burst-age", "1s"),
)


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, "crash-burst")
    yield made
    made.delete()


class Witness(threading.Thread):
    """Looks at the cluster again and again: machines by claim, and workers of each attempt that run on them."""

    def __init__(self, cluster: LocalCluster, cloud: Cloud) -> None:
        super().__init__(daemon=True)
        self.most_nodes = 0
        self.most_claims = 0
        self.machines: dict[str, set[str]] = defaultdict(set)
        """By claim uid: the machines that were seen under it, duplicates of the provider's own making aside."""
        self.attempts: dict[tuple[str, str], int] = defaultdict(int)
        """By job and attempt: the most workers that were seen together."""
        self._cluster = cluster
        self._cloud = cloud
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.5):
            claims, nodes = self._cloud.claims(), self._cloud.nodes()
            self.most_claims = max(self.most_claims, len(claims))
            bought = [node for node in nodes if not node["spec"]["providerID"].endswith("-dup")]
            self.most_nodes = max(self.most_nodes, len(bought))
            for node in bought:
                request = node["metadata"]["annotations"]["stokehold.dev/request"]
                self.machines[request].add(node["metadata"]["uid"])
            self._count_workers()

    def stop(self) -> None:
        self._done.set()
        self.join(10)

    def _count_workers(self) -> None:
        seen: dict[tuple[str, str], int] = defaultdict(int)
        for pod in json.loads(self._cluster.kubectl("get", "pods", "-n", "crash-burst", "-o", "json"))["items"]:
            labels = pod["metadata"]["labels"]
            if "stokehold.dev/attempt" in labels:
                seen[labels["stokehold.dev/job"], labels["stokehold.dev/attempt"]] += 1
        for key, count in seen.items():
            self.attempts[key] = max(count, self.attempts[key])


def gangs() -> list[dict[str, Any]]:
    shapes = [(4, 8), (2, 8), (1, 8), (3, 8), (2, 4), (1, 2)]
    return [
        training_job(
            f"gang-{i}",
            {"run-for": "3s"},
            numNodes=nodes,
            gpusPerNode=gpus,
            gpuTypes=["h100"],
            dataClass="internal",
            capacity=["on-demand"],
        )
        for i, (nodes, gpus) in enumerate(shapes * 2)
    ]


def test_ten_kills_during_bursts_buy_nothing_twice_and_leave_nothing(
    team: Team, cluster: LocalCluster, start_operator: Callable[..., OperatorProcess]
):
    cloud = Cloud(cluster)
    faults = {"bootTime": "3s", "failurePercent": 15, "duplicatePercent": 20, "gpuMissingPercent": 5}
    cloud.declare(MOST_NODES, simulated=faults, zones=["z1", "z2"])
    operator = start_operator("operator", *IMPATIENT)
    witness = Witness(cluster, cloud)
    witness.start()
    dice = random.Random(10)  # noqa: S311 - a seed, so that a failure can be repeated

    waves = [gangs()[i : i + 2] for i in range(0, len(gangs()), 2)]
    for kill in range(KILLS):
        if kill < len(waves):
            team.apply(*waves[kill])
        time.sleep(dice.uniform(0.5, 5.0))
        operator.kill()
        operator.restart(wait=False)
    operator.wait_ready()
    # From here on the provider delivers: what is left ends, whatever state the kills have left it in.
    cloud.declare(MOST_NODES, simulated={"bootTime": "2s"}, zones=["z1", "z2"])
    wait_until(lambda: _phases(team) == {"Succeeded"}, 240, lambda: (_waiting(team), cloud.status(), cloud.phases()))
    cloud.wait_gone(90)
    witness.stop()

    jobs = _jobs(team)
    assert {j["metadata"]["name"]: j["status"]["attempt"] for j in jobs if j["status"]["attempt"] != 1} == {}
    assert witness.most_claims <= MOST_NODES
    assert witness.most_nodes <= MOST_NODES
    assert {uid: seen for uid, seen in witness.machines.items() if len(seen) > 1} == {}, "bought twice"
    wanted = {j["metadata"]["name"]: j["spec"]["numNodes"] for j in jobs}
    assert {key: count for key, count in witness.attempts.items() if count != wanted[key[0]]} == {}
    assert len(witness.machines) > MOST_NODES // 2, "there was something to see"
    cloud.delete()


def _jobs(team: Team) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(team.kubectl("get", "tj", "-o", "json"))["items"]
    return found


def _phases(team: Team) -> set[str]:
    return {job.get("status", {}).get("phase", "") for job in _jobs(team)}


def _waiting(team: Team) -> list[str]:
    return [
        f"{job['metadata']['name']}: {job.get('status', {}).get('queue', {}).get('message')}"
        for job in _jobs(team)
        if job.get("status", {}).get("phase") != "Succeeded"
    ]

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

Object = dict[str, Any]

KILLS = 10
MOST_NODES = 10
ATTEMPT = "stokehold.dev/attempt"
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
    """Looks at the cluster again and again: machines by claim, and on what each gang runs."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(daemon=True)
        self.most_nodes = 0
        self.most_claims = 0
        self.machines: dict[str, set[str]] = defaultdict(set)
        """By claim uid: the machines that were seen under it, duplicates of the provider's own making aside."""
        self.attempts: dict[tuple[str, str], int] = defaultdict(int)
        """By job and attempt: the most workers that were seen together."""
        self.half_starts: set[str] = set()
        """Workers that stood beside nodes of their gang which could not be used."""
        self.uneven: set[str] = set()
        """Jobs of which some nodes could be used already and others not: those that could have started too early."""
        self._cluster = cluster
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.3):
            self._look()

    def stop(self) -> None:
        self._done.set()
        self.join(10)

    def _look(self) -> None:
        """Pods come first, so that a node which became ready in between is not held against them."""
        workers: list[Object] = self._cluster.read("pods", selector=ATTEMPT)["items"]
        claims: list[Object] = self._cluster.read("gpunodeclaims")["items"]
        nodes: list[Object] = self._cluster.read("nodes")["items"]
        usable = {node["metadata"]["name"] for node in nodes if _can_be_used(node)}
        self._count_machines(claims, nodes)
        self._look_at_claims(claims, usable)
        self._look_at_gangs(workers, usable)

    def _count_machines(self, claims: list[Object], nodes: list[Object]) -> None:
        ids = [(node, node["spec"].get("providerID", "")) for node in nodes]
        bought = [node for node, id_ in ids if id_.startswith("simulated://") and not id_.endswith("-dup")]
        self.most_claims = max(self.most_claims, len(claims))
        self.most_nodes = max(self.most_nodes, len(bought))
        for node in bought:
            self.machines[node["metadata"]["annotations"]["stokehold.dev/request"]].add(node["metadata"]["uid"])

    def _look_at_claims(self, claims: list[Object], usable: set[str]) -> None:
        nodes: dict[str, set[bool]] = defaultdict(set)
        for claim in claims:
            work = claim.get("status", {}).get("reusedFor") or claim["spec"]["for"]
            nodes[work["name"]].add(claim["metadata"]["name"] in usable)
        self.uneven |= {name for name, states in nodes.items() if len(states) > 1}

    def _look_at_gangs(self, workers: list[Object], usable: set[str]) -> None:
        gangs: dict[tuple[str, str], list[Object]] = defaultdict(list)
        for pod in workers:
            gangs[pod["metadata"]["labels"]["stokehold.dev/job"], pod["metadata"]["labels"][ATTEMPT]].append(pod)
        for (job, attempt), pods in gangs.items():
            self.attempts[job, attempt] = max(len(pods), self.attempts[job, attempt])
            over = {_index(pod) for pod in pods if pod["status"].get("phase") in ("Succeeded", "Failed")}
            if len(over) == len(pods):
                continue
            placed = next((nodes for pod in pods if (nodes := _placement(pod))), [])
            missing = [node for i, node in enumerate(placed) if i not in over and node not in usable]
            if missing or not placed:
                there = [f"{pod['metadata']['name']} is {pod['status'].get('phase')}" for pod in pods]
                self.half_starts.add(f"{', '.join(there)} while {missing or 'nobody knows which nodes'} cannot be used")


def _can_be_used(node: Object) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))
    return ready and int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) > 0


def _index(pod: Object) -> int:
    return int(pod["metadata"]["labels"]["stokehold.dev/index"])


def _placement(pod: Object) -> list[str]:
    """The nodes of the whole gang, which its lead worker knows."""
    nodes: list[str] = json.loads(pod["metadata"]["annotations"]["stokehold.dev/gang"]).get("nodes", [])
    return nodes


def gangs() -> list[Object]:
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
    faults = {
        "bootTime": "1s",
        "slowestBootTime": "10s",
        "failurePercent": 15,
        "duplicatePercent": 20,
        "gpuMissingPercent": 5,
    }
    cloud.declare(MOST_NODES, simulated=faults, zones=["z1", "z2"])
    operator = start_operator("operator", *IMPATIENT)
    witness = Witness(cluster)
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
    assert witness.is_alive()
    witness.stop()

    assert witness.half_starts == set()
    jobs = _jobs(team)
    assert {j["metadata"]["name"]: j["status"]["attempt"] for j in jobs if j["status"]["attempt"] != 1} == {}
    assert witness.most_claims <= MOST_NODES
    assert witness.most_nodes <= MOST_NODES
    assert {uid: seen for uid, seen in witness.machines.items() if len(seen) > 1} == {}, "bought twice"
    wanted = {j["metadata"]["name"]: j["spec"]["numNodes"] for j in jobs}
    assert {key: count for key, count in witness.attempts.items() if count != wanted[key[0]]} == {}
    assert len(witness.uneven) >= 2, "there were gangs that could have started on half of their nodes"
    assert len(witness.machines) > MOST_NODES // 2, "there was something to see"
    cloud.delete()


def _jobs(team: Team) -> list[Object]:
    found: list[Object] = json.loads(team.kubectl("get", "tj", "-o", "json"))["items"]
    return found


def _phases(team: Team) -> set[str]:
    return {job.get("status", {}).get("phase", "") for job in _jobs(team)}


def _waiting(team: Team) -> list[str]:
    return [
        f"{job['metadata']['name']}: {job.get('status', {}).get('queue', {}).get('message')}"
        for job in _jobs(team)
        if job.get("status", {}).get("phase") != "Succeeded"
    ]

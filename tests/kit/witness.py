"""Somebody who looks at the cluster all the time, for what must never happen in between, and the last look at all."""

import threading
from collections import Counter, defaultdict
from http.client import HTTPException
from typing import Any

from hack.cluster import LocalCluster

from kit.jobs import Team, wait_until


class Witness(threading.Thread):
    """Looks at the cluster each second and remembers every pod that ran and every node that was overbooked."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(daemon=True)
        self.overbooked: list[str] = []
        self.ran: dict[str, set[int]] = defaultdict(set)
        self._cluster = cluster
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(1):
            try:
                self._look()
            except (RuntimeError, ValueError, OSError, HTTPException):
                continue  # the API server is away, which is another test's subject

    def stop(self) -> None:
        self._done.set()
        self.join(10)

    def _look(self) -> None:
        nodes = self._cluster.read("nodes")["items"]
        pods = self._cluster.read("pods")["items"]
        bound: Counter[str] = Counter()
        for pod in pods:
            labels = pod["metadata"].get("labels", {})
            if "stokehold.dev/attempt" in labels:
                self.ran[labels["stokehold.dev/job"]].add(int(labels["stokehold.dev/attempt"]))
            if pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                bound[pod["spec"]["nodeName"]] += _gpus(pod)
        for node in nodes:
            name, has = node["metadata"]["name"], int(node["status"]["allocatable"].get("nvidia.com/gpu", 0))
            if bound[name] > has:
                self.overbooked.append(f"{name}: {bound[name]} of {has}")


def assert_in_order(team: Team, witness: Witness, ended: dict[str, tuple[str, int]]) -> None:
    """Each job has ended with its phase in its attempt, no node was ever overbooked, and nothing stays behind."""
    wait_until(lambda: _ends(team).keys() == ended.keys(), 5, lambda: _ends(team))
    wait_until(lambda: _ends(team) == ended, 60, lambda: _ends(team))
    wait_until(lambda: not _held(team), 15, lambda: _held(team))
    witness.stop()
    too_often = {name: seen for name, seen in witness.ran.items() if name in ended and max(seen) > ended[name][1]}
    assert too_often == {}
    assert witness.overbooked == []
    team.kubectl("delete", "tj", "--all", "--wait=false")
    wait_until(lambda: not _left(team), 90, lambda: _left(team))


def _ends(team: Team) -> dict[str, tuple[str, int]]:
    statuses = {job["metadata"]["name"]: job.get("status", {}) for job in team.items("trainingjobs")}
    return {name: (status.get("phase", ""), status.get("attempt", 0)) for name, status in statuses.items()}


def _held(team: Team) -> list[str]:
    return [pod["metadata"]["name"] for pod in team.pods() if pod["metadata"].get("finalizers")]


def _left(team: Team) -> list[str]:
    kinds = ("trainingjobs", "pods", "services")
    return [f"{kind}/{found['metadata']['name']}" for kind in kinds for found in team.items(kind)]


def _gpus(pod: dict[str, Any]) -> int:
    containers = pod["spec"]["containers"]
    return sum(int(c.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0)) for c in containers)

"""The operator dies at any instant, often; no job notices: each ends once, in the right state, in as few attempts."""

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.jobs import Team, training_job, wait_until
from kit.witness import Witness, assert_in_order

pytestmark = [pytest.mark.cluster, pytest.mark.crash]

KILLS = 20
AWAY_SECONDS = 60
Start = Callable[..., OperatorProcess]


def two_hundred_jobs() -> list[dict[str, Any]]:
    """140 single jobs and 40 gangs that succeed, 20 jobs that fail twice and then for good."""
    jobs = [training_job(f"one-{i}", {"run-for": f"{1 + i % 3}s"}) for i in range(140)]
    jobs += [training_job(f"gang-{i}", {"run-for": "2s"}, numNodes=2 + i % 3, gpusPerNode=2) for i in range(40)]
    fails = {"run-for": "1s", "exit-code": "1"}
    jobs += [training_job(f"bad-{i}", fails, failurePolicy={"maxRestarts": 1}, numNodes=1 + i % 2) for i in range(20)]
    return jobs


def test_two_hundred_jobs_survive_twenty_kills(team: Team, witness: Witness, start_operator: Start):
    operator = start_operator()
    dice = random.Random(20)  # noqa: S311 - a seed, so that a failure can be repeated
    jobs = two_hundred_jobs()

    team.apply(*jobs)
    for _ in range(KILLS):
        time.sleep(dice.uniform(0.2, 4.0))
        operator.kill()
        operator.restart(wait=False)
    operator.wait_ready()
    wait_until(lambda: _all_over(team), 240, lambda: _phases(team))

    names = [job["metadata"]["name"] for job in jobs]
    ended = {name: ("Failed", 2) if name.startswith("bad") else ("Succeeded", 1) for name in names}
    assert Counter(ended.values()) == {("Succeeded", 1): 180, ("Failed", 2): 20}
    assert_in_order(team, witness, ended)


def test_pods_deleted_while_the_operator_is_down_still_count(team: Team, start_operator: Start):
    operator = start_operator()
    team.apply(*(training_job(f"done-{i}", {"run-for": "3s"}, numNodes=1 + i % 2) for i in range(8)))
    wait_until(lambda: len(team.pods()) == 12 and all(p["spec"].get("nodeName") for p in team.pods()), 20)
    operator.kill()
    wait_until(lambda: all(pod["status"]["phase"] == "Succeeded" for pod in team.pods()), 20)
    team.kubectl("delete", "pods", "--all", "--wait=false")

    operator.restart()

    wait_until(lambda: _all_over(team), 30, lambda: _phases(team))
    assert _phases(team) == {"Succeeded": 8}
    assert {job["status"]["attempt"] for job in _jobs(team)} == {1}
    wait_until(lambda: team.pods() == [], 20)
    time.sleep(3)
    assert team.pods() == []


def test_api_server_away_for_a_minute(team: Team, witness: Witness, cluster: LocalCluster, start_operator: Start):
    operator = start_operator()
    team.apply(*(training_job(f"long-{i}", {"run-for": "4s"}, numNodes=1 + i % 3) for i in range(20)))
    wait_until(lambda: len(team.pods()) > 10, 20)

    cluster.stop_api_server()
    time.sleep(AWAY_SECONDS)
    cluster.start_api_server()
    _report_ready(cluster)

    # Without an API server no Lease can be renewed: the process ends, as its Deployment expects, and starts again.
    if not operator.is_running:
        operator.restart()
    wait_until(lambda: _report_ready(cluster) or _all_over(team), 120, lambda: _phases(team))
    assert_in_order(team, witness, {f"long-{i}": ("Succeeded", 1) for i in range(20)})


def test_finished_job_whose_status_was_wiped_is_not_run_again(team: Team, start_operator: Start):
    start_operator()
    team.submit("proven", {"run-for": "1s"})
    team.wait_phase("proven", "Succeeded")
    team.kubectl("delete", "pods", "--all")

    wipe = '[{"op": "remove", "path": "/status"}]'
    team.kubectl("patch", "tj", "proven", "--subresource=status", "--type=json", "-p", wipe)

    status = team.wait_phase("proven", "Succeeded")
    time.sleep(3)
    assert status["attempt"] == 1
    assert team.pods() == []


def _report_ready(cluster: LocalCluster) -> None:
    """As kubelets do every few seconds: a node that nobody had heard of may be given up once more after the first."""
    for node in cluster.read("nodes")["items"]:
        ready = next((c for c in node["status"]["conditions"] if c["type"] == "Ready"), None)
        if ready is None or ready["status"] != "True":
            cluster.set_ready(node["metadata"]["name"], True)


def _jobs(team: Team) -> list[dict[str, Any]]:
    return team.items("trainingjobs")


def _phases(team: Team) -> Counter[str]:
    return Counter(job.get("status", {}).get("phase", "") for job in _jobs(team))


def _all_over(team: Team) -> bool:
    return set(_phases(team)) <= {"Succeeded", "Failed"}

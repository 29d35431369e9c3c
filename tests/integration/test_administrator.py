"""The administrator edits while work runs and waits, as far as queues go without quotas."""

from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster

from kit.jobs import Object, Team, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

MORE_THAN_THERE_IS = {"numNodes": 9, "gpusPerNode": 8}


@pytest.fixture
def queue(team: Team, cluster: LocalCluster) -> Iterator[Object]:
    """A queue that serves the team by a label of its namespace."""
    cluster.kubectl("label", "namespace", team.namespace, f"served={team.namespace}")
    made = {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "GPUQueue",
        "metadata": {"name": f"q-{team.namespace}"},
        "spec": {"namespaces": {"matchLabels": {"served": team.namespace}}},
    }
    team.apply(made)
    yield made
    cluster.kubectl("delete", "gq", f"q-{team.namespace}", "--ignore-not-found")


@pytest.fixture
def priority_class(team: Team, cluster: LocalCluster) -> Iterator[Object]:
    """A class that never preempts, so that the pods carry it too."""
    made = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": f"class-{team.namespace}"},
        "value": 1000,
        "preemptionPolicy": "Never",
    }
    team.apply(made)
    yield made
    cluster.kubectl("delete", "priorityclass", f"class-{team.namespace}", "--ignore-not-found")


def test_queue_that_goes_and_comes_evicts_nobody_and_the_waiting_are_told(
    team: Team, cluster: LocalCluster, queue: Object
):
    name = queue["metadata"]["name"]
    team.submit("runs", queueName=name, numNodes=2)
    team.submit("waits", queueName=name, **MORE_THAN_THERE_IS)
    team.wait_phase("runs", "Running")
    team.wait_reason("waits", "WaitingForCapacity")
    before = pods_of(team, "runs")

    cluster.kubectl("delete", "gq", name)
    told = team.wait_reason("waits", "Misconfigured")
    assert name in told["message"]
    assert told["nextStep"]
    assert pods_of(team, "runs") == before

    team.apply(queue)
    team.wait_reason("waits", "WaitingForCapacity")
    assert pods_of(team, "runs") == before
    assert team.status("runs")["attempt"] == 1


def test_namespace_that_its_queue_serves_no_more_keeps_what_runs(team: Team, cluster: LocalCluster, queue: Object):
    team.submit("runs", numNodes=2)
    team.submit("waits", **MORE_THAN_THERE_IS)
    team.wait_phase("runs", "Running")
    team.wait_reason("waits", "WaitingForCapacity")
    before = pods_of(team, "runs")

    cluster.kubectl("label", "namespace", team.namespace, "served-")
    told = team.wait_reason("waits", "Misconfigured")
    assert team.namespace in told["message"]
    assert pods_of(team, "runs") == before

    cluster.kubectl("label", "namespace", team.namespace, f"served={team.namespace}")
    team.wait_reason("waits", "WaitingForCapacity")
    assert pods_of(team, "runs") == before


def test_restart_waits_while_its_priority_class_is_gone(team: Team, cluster: LocalCluster, priority_class: Object):
    name = priority_class["metadata"]["name"]
    fails = {"run-for": "3s", "exit-code": "1"}
    team.submit("runs", priorityClassName=name)
    team.submit("restarts", fails, priorityClassName=name, failurePolicy={"maxRestarts": 1})
    team.submit("waits", priorityClassName=name, **MORE_THAN_THERE_IS)
    team.wait_phase("runs", "Running")
    team.wait_reason("waits", "WaitingForCapacity")
    before = pods_of(team, "runs")

    cluster.kubectl("delete", "priorityclass", name)
    wait_until(lambda: team.status("restarts").get("restarts") == 1, 20, lambda: team.status("restarts"))
    for job in ("restarts", "waits"):
        assert name in team.wait_reason(job, "Misconfigured")["message"]

    team.apply({**priority_class, "value": 10})
    team.wait_reason("waits", "WaitingForCapacity")
    wait_until(lambda: len(team.pods("restarts")) == 2, 30, lambda: team.status("restarts"))
    assert team.status("restarts")["restarts"] == 1
    assert pods_of(team, "runs") == before


def pods_of(team: Team, name: str) -> set[tuple[str, str]]:
    return {(pod["metadata"]["uid"], pod["status"]["phase"]) for pod in team.live_pods(name)}

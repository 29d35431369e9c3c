"""Names that fit the object but not its children: either refused with the limit, or shortened so that all works."""

import json

import pytest

from kit.jobs import Team, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

LONG = "experiment-with-a-very-long-name-that-tells-the-whole-story-of"
NAMES = ["llama-3.1-8b", "7b-sft", "x" * 60, "y" * 63, "z" * 64, ("deep." * 40)[:199] + "e", LONG + "a", LONG + "b"]


def test_each_accepted_name_gets_pods_and_a_service_that_the_workers_find(team: Team):
    for name in NAMES:
        team.submit(name, numNodes=2, gpusPerNode=1)

    for name in NAMES:
        team.wait_phase(name, "Running", within=30)

    services = {s["metadata"]["name"] for s in json.loads(team.kubectl("get", "services", "-o", "json"))["items"]}
    pods = team.pods()
    assert len(pods) == 2 * len(NAMES)
    assert len(services) == len(NAMES)
    for pod in pods:
        master = next(e["value"] for e in pod["spec"]["containers"][0]["env"] if e["name"] == "MASTER_ADDR")
        assert master.split(".")[1] in services
        assert all(len(value) <= 63 for value in pod["metadata"]["labels"].values())
        assert len(pod["spec"]["hostname"]) <= 63


def test_name_that_is_too_long_is_refused_with_the_limit(team: Team):
    team.kubectl("get", "tj")

    refusal = _refusal(team, "n" * 201)

    assert "metadata.name" in refusal
    assert "200" in refusal


def test_children_keep_their_names_and_go_with_the_job(team: Team):
    team.submit(LONG + "a", numNodes=2)
    team.wait_phase(LONG + "a", "Running")

    team.kubectl("delete", "tj", LONG + "a")

    wait_until(lambda: not team.kubectl("get", "pods,services", "-o", "name"), 60)


def test_odd_but_valid_text_reaches_the_pod_unchanged(team: Team):
    args = ["--prompt=héllo 🚂", "line one\nline two", "$(CHECKPOINT_DIR)"]
    team.submit("odd", args=args, podTemplate={"metadata": {"annotations": {"note": "🚂" * 2000}}})

    team.wait_phase("odd", "Running")

    pod = team.pods("odd")[0]
    assert pod["spec"]["containers"][0]["args"] == args
    assert pod["metadata"]["annotations"]["note"] == "🚂" * 2000


def test_pod_that_the_server_refuses_is_reported_not_retried_in_silence(team: Team):
    team.submit("labelled", volumeMounts=[{"name": "absent", "mountPath": "/a"}])

    wait_until(lambda: team.reason("labelled") == "CreationRefused", 20, lambda: team.status("labelled"))

    assert "volumeMounts" in team.status("labelled")["queue"]["message"]


def _refusal(team: Team, name: str) -> str:
    try:
        team.submit(name)
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"a name of {len(name)} characters was accepted")

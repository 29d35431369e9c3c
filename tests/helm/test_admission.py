"""The webhook end to end: the chart's configuration and certificate, the API server, operators that serve it."""

import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hack.cluster import LocalCluster, ports
from hack.cluster.local import KubectlError
from hack.installation import CHART, NAMESPACE, RELEASE, OperatorProcess, beside, fetch_certificate, helm

from kit.jobs import Team, training_job, wait_until

pytestmark = pytest.mark.cluster

START = Callable[..., OperatorProcess]
QUEUES = [
    {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "GPUQueue",
        "metadata": {"name": name},
        "spec": {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
    }
    for name, namespace in (("ours", "admission"), ("theirs", "somebody-else"))
]


@pytest.fixture(scope="module")
def shared_team(installed: LocalCluster) -> Iterator[Team]:
    made = Team.create(installed, "admission")
    installed.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(QUEUES))
    yield made
    made.delete()
    installed.kubectl("delete", "gq", "--all")


@pytest.fixture
def team(shared_team: Team) -> Iterator[Team]:
    yield shared_team
    shared_team.empty()


def refusal(team: Team, *options: str, name: str = "bad", **spec: Any) -> str:
    """What kubectl says to somebody who creates a job; empty if it was taken."""
    try:
        team.kubectl("create", *options, "-f", "-", text=json.dumps(training_job(name, **spec)))
    except KubectlError as error:
        return str(error)
    return ""


def knows_the_queues(team: Team) -> None:
    """Wait until a running operator has heard of them."""
    wait_until(lambda: refusal(team, "--dry-run=server", queueName="theirs"), 20)


def test_a_job_that_only_the_webhook_can_refuse_is_refused_by_field_with_what_is_allowed(
    team: Team, start_operator: START
):
    operator = start_operator()
    knows_the_queues(team)

    said = refusal(team, queueName="theirs")

    assert "spec.queueName: GPUQueue theirs does not serve namespace admission; allowed: ours" in said
    assert 'admission webhook "trainingjobs.stokehold.dev" denied the request' in said
    assert not team.kubectl("get", "tj", "-o", "name")
    assert operator.metric("stokehold_admissions_total", resource="trainingjobs", outcome="refused") >= 1
    assert operator.metric("stokehold_admissions_total", outcome="failed") == 0
    assert operator.logged("error") == []


def test_good_objects_of_each_kind_pass_and_what_may_still_come_is_a_warning(team: Team, start_operator: START):
    operator = start_operator()
    knows_the_queues(team)

    assert refusal(team, name="good", suspend=True, queueName="ours") == ""
    assert "PriorityClass nope does not exist" in refusal(
        team, "--dry-run=server", "--warnings-as-errors", priorityClassName="nope"
    )
    assert "GPUQueue later does not exist" in refusal(
        team, "--dry-run=server", "--warnings-as-errors", queueName="later"
    )
    team.cluster.kubectl("patch", "gq", "ours", "--type=merge", "-p", '{"spec":{"weight":200}}')
    assert operator.metric("stokehold_admissions_total", resource="gpuqueues", outcome="allowed") == 1


def test_an_edit_is_judged_and_neither_an_annotation_nor_a_job_that_names_nobody(team: Team, start_operator: START):
    operator = start_operator()
    knows_the_queues(team)
    assert refusal(team, name="edited", suspend=True, queueName="ours") == ""
    wait_until(lambda: team.status("edited").get("phase"), 20)

    with pytest.raises(KubectlError, match=r"spec.queueName: GPUQueue theirs does not serve namespace admission"):
        team.patch("edited", {"queueName": "theirs"})

    judged = operator.metric("stokehold_admissions_total", resource="trainingjobs")
    assert refusal(team, "--dry-run=server", name="names-nobody") == ""
    team.kubectl("annotate", "tj", "edited", "note=x")
    team.kubectl("delete", "tj", "edited")
    assert operator.metric("stokehold_admissions_total", resource="trainingjobs") == judged


def test_while_the_operator_is_down_nobody_is_kept_from_working_and_the_fault_is_found_later(
    team: Team, start_operator: START
):
    began = time.monotonic()
    assert refusal(team, name="unjudged", queueName="theirs") == ""
    assert time.monotonic() - began < 5

    start_operator()

    wait_until(lambda: team.status("unjudged").get("queue", {}).get("reason") == "Misconfigured", 20)
    assert "does not serve namespace" in team.status("unjudged")["queue"]["message"]


def test_a_hung_operator_delays_by_no_more_than_the_timeout(team: Team, start_operator: START):
    operator = start_operator()
    knows_the_queues(team)
    operator.pause()
    try:
        began = time.monotonic()
        assert refusal(team, name="unjudged", queueName="theirs") == ""
        assert time.monotonic() - began < 8  # webhook.timeoutSeconds is 3
    finally:
        operator.resume()


@pytest.fixture
def fails_closed(installed: LocalCluster) -> Iterator[None]:
    upgrade = ("upgrade", RELEASE, str(CHART))
    helm(installed, *upgrade, values=beside(installed, {"webhook.failurePolicy": "Fail"}))
    yield
    helm(installed, *upgrade, values=beside(installed))


@pytest.mark.usefixtures("fails_closed")
def test_with_policy_fail_only_new_specs_wait_for_the_operator(team: Team, start_operator: START):
    operator = start_operator()
    knows_the_queues(team)
    assert refusal(team, name="there-before", suspend=True, queueName="ours") == ""
    operator.kill()

    assert 'failed calling webhook "trainingjobs.stokehold.dev"' in refusal(team, queueName="ours")
    with pytest.raises(KubectlError, match="failed calling webhook"):
        team.patch("there-before", {"suspend": False})
    team.kubectl("annotate", "tj", "there-before", "note=x")
    team.kubectl("patch", "tj", "there-before", "--subresource=status", "--type=merge", "-p", '{"status":{}}')
    team.kubectl("run", "plain-pod", "--image=x")
    team.kubectl("delete", "tj", "there-before")


def test_a_standby_serves_admission_and_an_unknown_path_allows_nothing(team: Team, start_operator: START):
    leader = start_operator("leader")
    wait_until(lambda: leader.metric("stokehold_leader") == 1, 20)
    (port,) = ports.choose(["standby"]).values()
    standby = start_operator("standby", "--webhook-port", str(port))
    knows_the_queues(team)

    wait_until(lambda: not ask(team, port, "trainingjobs", queueName="theirs")["allowed"], 20)
    assert ask(team, port, "trainingjobs", queueName="ours")["allowed"]
    with pytest.raises(urllib.error.HTTPError, match="no rules for /trainingjob;"):
        ask(team, port, "trainingjob", queueName="theirs")
    assert standby.metric("stokehold_leader") == 0
    assert standby.metric("stokehold_admissions_total", outcome="refused") >= 1


def test_a_new_certificate_is_served_without_a_restart_and_the_old_one_until_then(team: Team, start_operator: START):
    operator = start_operator()
    knows_the_queues(team)
    team.cluster.kubectl("-n", NAMESPACE, "delete", "secret", f"{RELEASE}-webhook")
    helm(team.cluster, "upgrade", RELEASE, str(CHART), values=beside(team.cluster))
    assert "does not serve namespace" in refusal(team, queueName="theirs")  # with the old one
    port = team.cluster.layout.ports["webhook"]
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(team, port, "trainingjobs")

    fetch_certificate(team.cluster)  # as the kubelet brings it

    def serves_the_new_one() -> bool:
        with contextlib.suppress(urllib.error.URLError):
            return not ask(team, port, "trainingjobs", queueName="theirs")["allowed"]
        return False

    wait_until(serves_the_new_one, 30)
    assert "does not serve namespace" in refusal(team, queueName="theirs")
    assert operator.logged("error") == []


def ask(team: Team, port: int, path: str, **spec: Any) -> dict[str, Any]:
    """Do as the API server does, over a TLS connection that trusts only the chart's authority."""
    job = training_job("asked", **spec)
    job["metadata"]["namespace"] = team.namespace
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "resource": {"group": "stokehold.dev", "version": "v1alpha1", "resource": "trainingjobs"},
            "operation": "CREATE",
            "userInfo": {"username": "somebody"},
            "object": job,
        },
    }
    authority = team.cluster.kubectl(
        *("get", "secret", f"{RELEASE}-webhook", "-n", NAMESPACE, "-o", r"jsonpath={.data.ca\.crt}")
    )
    request = urllib.request.Request(
        f"https://127.0.0.1:{port}/{path}", json.dumps(review).encode(), {"Content-Type": "application/json"}
    )
    trust = ssl.create_default_context(cadata=b64decode(authority).decode())
    with urllib.request.urlopen(request, timeout=10, context=trust) as reply:  # noqa: S310 - as above
        response: dict[str, Any] = json.load(reply)["response"]
    return response

"""Device plugins that go and come back, kubelets that refuse, pods that will not die."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.desks import Desks
from kit.jobs import Object, Team, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

GPU = "nvidia.com/gpu"


@pytest.fixture
def spare(cluster: LocalCluster, team: Team):
    """A node of its own, by the label `spare=true`."""
    cluster.add_node("h100", "h100-spare")
    wait_until(lambda: cluster.kubectl("get", "node", "h100-spare", "--ignore-not-found"), 10)
    cluster.kubectl("label", "node", "h100-spare", "spare=true")
    yield "h100-spare"
    team.empty()  # before the node goes: nobody ends pods on a node that is not there
    cluster.delete_node("h100-spare")


ON_SPARE = {"spec": {"nodeSelector": {"spare": "true"}}}


@pytest.fixture
def h100(cluster: LocalCluster, team: Team) -> Iterator[str]:
    """The four nodes of that type as a declared pool, so that there is a status to look at."""
    pool = {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "GPUNodePool",
        "metadata": {"name": "h100"},
        "spec": {"gpuType": "h100", "nodeSelector": {"sim.stokehold.dev/pool": "h100"}},
    }
    team.apply(pool)
    yield "h100"
    team.kubectl("delete", "gws,daemonsets", "--all", "--wait=false", check=False)
    team.empty()
    for number in range(4):
        cluster.set_allocatable(f"h100-{number}", {GPU: 8})
    cluster.kubectl("delete", "gnp", "h100")


def test_device_plugins_that_go_and_flap_evict_nobody_and_are_trusted_again_only_when_stable(
    team: Team, cluster: LocalCluster, operator: OperatorProcess, h100: str
):
    team.submit("gang", numNodes=2, gpusPerNode=8, gpuTypes=["h100"])
    desks = Desks(team)
    for name in ("ada", "bob"):
        desks.open(name, storage=None, podTemplate=on_node("h100-2"))
    team.wait_phase("gang", "Running")
    for name in ("ada", "bob"):
        wait_until(lambda name=name: desks.condition(name, "Ready").get("status") == "True", 20)
    away, flapping = min(team.nodes_of("gang")), "h100-2"
    before = pods_of(team)

    cluster.set_allocatable(away, {GPU: 0})
    drop_resource(cluster, "h100-3")
    cluster.set_allocatable(flapping, {GPU: 0})
    operator.kill()
    operator.restart(wait=False)
    team.apply(daemon_set("repairs"))
    team.submit("large", gpusPerNode=8, gpuTypes=["h100"])
    team.submit("small", gpusPerNode=1, gpuTypes=["h100"])
    wait_until(lambda: team.reason("large"), 40, operator.tail)
    flap(cluster, flapping)
    told = pool_condition(cluster, h100)["message"]
    daemons = team.items("pods", "app=repairs")
    assert {pod["spec"]["nodeName"] for pod in daemons} == {f"h100-{number}" for number in range(4)}
    assert {pod["status"]["phase"] for pod in daemons} == {"Running"}  # which could be what brings the GPUs back
    cluster.set_allocatable(flapping, {GPU: 8})
    assert {part.split(":")[0] for part in told.split("; ")} == {away, flapping, "h100-3"}
    assert team.reason("small") == "WaitingForCapacity"

    operator.stop()
    operator.restart()  # one that has not seen the flapping
    trusted_after = wait_until(lambda: team.nodes_of("small") == [flapping], 30, lambda: team.status("small"))
    cluster.set_allocatable(away, {GPU: 7})
    cluster.set_allocatable("h100-3", {GPU: 8})
    team.wait_phase("large", "Running", within=30)
    cluster.set_allocatable(away, {GPU: 8})
    wait_until(lambda: pool_condition(cluster, h100)["status"] == "True", 20, lambda: pool_condition(cluster, h100))

    assert trusted_after > 4.5
    assert team.nodes_of("large") == ["h100-3"]
    assert before <= pods_of(team)
    told_of = json.loads(cluster.kubectl("get", "events", "-A", "-o", "json", "--field-selector", "reason=DevicesLost"))
    assert 1 <= len(told_of["items"]) <= 4
    assert operator.logged("error") == []


def test_refusal_by_the_kubelet_requeues_the_gang_and_counts_no_restart(team: Team):
    team.submit("reboot", numNodes=2, gpusPerNode=8, gpuTypes=["h100"], failurePolicy={"maxRestarts": 1})
    team.wait_phase("reboot", "Running")

    team.kubectl(
        *("annotate", "pod", "reboot-1-1", "sim.stokehold.dev/run-for=0s"),
        "sim.stokehold.dev/fail-reason=UnexpectedAdmissionError",
    )

    wait_until(lambda: team.status("reboot").get("attempt") == 2, 20, lambda: team.status("reboot"))
    status = team.wait_phase("reboot", "Running", within=30)
    assert status.get("restarts", 0) == 0
    assert status["lastFailure"]["reason"] == "RejectedByNode"
    assert status["lastFailure"]["node"] in status["lastFailure"]["message"]
    assert status["usage"]["lostGpuSeconds"] > 0


@pytest.mark.usefixtures("spare")
def test_node_whose_kubelet_refuses_is_avoided_by_jobs_and_workspaces_after_two_refusals_until_they_are_old(team: Team):
    refuse = {"fail-reason": "UnexpectedAdmissionError"}
    annotated = {"metadata": {"annotations": {"sim.stokehold.dev/fail-reason": "UnexpectedAdmissionError"}}}
    desks = Desks(team)
    desks.open("desk", storage=None, podTemplate={**ON_SPARE, **annotated})
    team.submit("refused", refuse, gpusPerNode=1, podTemplate=ON_SPARE)
    wait_until(lambda: len(team.status("refused").get("evictions", [])) == 2, 40, lambda: team.status("refused"))

    queue = team.wait_reason("refused", "WaitingForCapacity", within=30)
    assert queue["message"].endswith("1 node not ready, cordoned or not trusted yet")
    wait_until(
        lambda: desks.status("desk").get("queue", {}).get("reason") == "WaitingForCapacity",
        20,
        lambda: desks.status("desk"),
    )
    stateful_set = json.loads(team.kubectl("get", "statefulset", "desk", "-o", "json"))
    refusals = stateful_set["metadata"]["annotations"]["stokehold.dev/refused-by"].split()
    assert len(refusals) == min(desks.status("desk")["failedStarts"], 2)  # as many of each node are remembered
    assert {refusal.split("=")[0] for refusal in refusals} == {"h100-spare"}
    assert pods_made_for(team, "desk") <= 10  # its StatefulSet would have made thousands by now
    team.patch("refused", {"podTemplate": {"metadata": {"annotations": {"sim.stokehold.dev/fail-reason": None}}}})
    theirs = {"op": "replace", "path": "/spec/ports/0/port", "value": 7777}  # which an apply of ours would leave there
    team.kubectl("patch", "service", "desk", "--type=json", "-p", json.dumps([theirs]))
    # What is taken out of the spec goes from its pod, too, and from its Service.
    desks.patch("desk", {"podTemplate": {"metadata": None}, "port": 9000})

    status = team.wait_phase("refused", "Running", within=30)
    desks.wait_phase("desk", "Active")
    assert [port["port"] for port in team.read("services", "desk")["spec"]["ports"]] == [9000]
    team.kubectl("delete", "gws", "desk", "--wait=false")
    assert status["attempt"] == 3
    first = min(eviction["time"] for eviction in status["evictions"])
    assert seconds_between(first, status["startTime"]) >= 24  # refusals are remembered for 25 s here


def test_gang_that_was_half_done_restarts_whole_when_its_kubelet_takes_back_what_had_succeeded(team: Team):
    team.submit("half", numNodes=2, failurePolicy={"maxRestarts": 0})
    team.wait_phase("half", "Running")
    team.kubectl("annotate", "pod", "half-1-0", "sim.stokehold.dev/run-for=0s")
    wait_until(lambda: phase_of(team, "half-1-0") == "Succeeded", 20)

    take_back(team, "half-1-0")

    wait_until(lambda: team.status("half").get("attempt") == 2, 20, lambda: team.status("half"))
    status = team.wait_phase("half", "Running", within=30)
    assert status.get("restarts", 0) == 0
    assert status["lastFailure"]["reason"] == "RejectedByNode"
    assert len(team.live_pods("half")) == 2


def test_finished_job_stays_finished_when_its_pods_change_their_mind(team: Team):
    team.submit("over", {"run-for": "1s"})
    before = team.wait_phase("over", "Succeeded")

    take_back(team, "over-1-0")
    wait_until(lambda: phase_of(team, "over-1-0") == "Failed", 10)

    team.submit("after", {"run-for": "1s"})
    team.wait_phase("after", "Succeeded")
    assert team.status("over") == before
    assert len(team.pods("over")) == 1


@pytest.fixture
def dead_kubelet(cluster: LocalCluster) -> Iterator[Callable[[str], None]]:
    """Lets the kubelet of a node die."""
    silent: list[str] = []

    def die(node: str) -> None:
        silent.append(node)
        cluster.set_silent(node)

    yield die
    for node in silent:
        cluster.set_heard(node)


def test_corpse_keeps_its_gpus_and_its_name_is_told_of_and_stands_in_nobodys_way(
    team: Team, operator: OperatorProcess, dead_kubelet: Callable[[str], None]
):
    quick = {"spec": {"terminationGracePeriodSeconds": 1}}
    team.submit("j1", gpusPerNode=8, gpuTypes=["a100-80gb"], podTemplate=quick)
    team.wait_phase("j1", "Running")
    node = team.nodes_of("j1")[0]
    dead_kubelet(node)
    team.kubectl("delete", "tj", "j1")
    wait_until(lambda: team.pods("j1")[0]["metadata"].get("deletionTimestamp"), 20)
    operator.kill()
    operator.restart()

    team.submit("j1", gpusPerNode=8, gpuTypes=["a100-80gb"])
    team.submit("j2", gpusPerNode=8, gpuTypes=["a100-80gb"])

    team.wait_phase("j1", "Running", within=40)
    queue = team.wait_reason("j2", "WaitingForCapacity")
    alive = [p for p in team.pods("j1") if not p["metadata"].get("deletionTimestamp")]
    assert [p["metadata"]["name"] for p in alive] == ["j1-2-0"]
    assert alive[0]["spec"]["nodeName"] != node
    assert queue["details"]["available"] == 0
    wait_until(lambda: "StillTerminating" in team.events("j1-1-0"), 30, lambda: team.events("j1-1-0"))
    said = team.kubectl(
        "get", "events", "--field-selector", "reason=StillTerminating", "-o", "jsonpath={.items[*].message}"
    )
    assert re.search(
        rf"^pod j1-1-0 on node {node} should be gone since 20\d\d-\S+ \S+ UTC and still holds 8 {GPU}", said
    )
    assert operator.metric("stokehold_gpus", state="terminating") == 8
    team.kubectl("delete", "pod", "j1-1-0", "--force", "--grace-period=0")
    took = wait_until(lambda: team.nodes_of("j2") == [node], 15, lambda: team.status("j2"))
    assert took < 5


def test_corpse_that_somebody_else_holds_is_nobodys_attempt_whoever_leads(
    team: Team, cluster: LocalCluster, operator: OperatorProcess
):
    team.submit("j1", gpusPerNode=8, gpuTypes=["h100"])
    team.wait_phase("j1", "Running")
    (corpse,) = team.pods("j1")
    node = corpse["spec"]["nodeName"]
    hold = '[{"op": "add", "path": "/metadata/finalizers/-", "value": "tests.stokehold.dev/held"}]'
    team.kubectl("patch", "pod", "j1-1-0", "--type=json", "-p", hold)
    team.kubectl("delete", "tj", "j1")
    cluster.kubectl("taint", "node", node, "tests.stokehold.dev/broken=:NoSchedule")
    for _ in range(3):
        operator.kill()
        operator.restart()
    for name in ("j1", "j2"):
        team.submit(name, gpusPerNode=8, gpuTypes=["h100"])
    for name in ("j1", "j2"):
        team.wait_phase(name, "Running", within=10)
    alive = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in team.pods()}
    assert alive.keys() == {"j1-1-0", "j1-2-0", "j2-1-0"}
    assert node not in {*team.nodes_of("j2"), team.status("j1")["placement"]["nodes"][0]}
    assert operator.metric("stokehold_gpus", state="terminating") == 8

    wait_until(lambda: "StillTerminating" in team.events("j1-1-0"), 20, lambda: team.events("j1-1-0"))
    cluster.kubectl("taint", "node", node, "tests.stokehold.dev/broken-")
    team.kubectl("patch", "pod", "j1-1-0", "--type=json", "-p", '[{"op": "remove", "path": "/metadata/finalizers"}]')
    took = wait_until(lambda: operator.metric("stokehold_gpus", state="terminating") == 0, 10)

    assert took < 5
    team.submit("j3", gpusPerNode=8, gpuTypes=["h100"], podTemplate=on_node(node))
    team.wait_phase("j3", "Running", within=10)
    after = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in team.pods()}
    assert all(after.get(name) == alive[name] for name in ("j1-2-0", "j2-1-0"))
    assert team.status("j1").get("restarts", 0) == 0


def flap(cluster: LocalCluster, node: str) -> None:
    """For longer than the settle time, and never stable for so long."""
    for _ in range(8):
        cluster.set_allocatable(node, {GPU: 8})
        time.sleep(0.5)
        cluster.set_allocatable(node, {GPU: 0})
        time.sleep(0.5)


def daemon_set(name: str) -> Object:
    """One pod without GPUs on each H100 node."""
    labels = {"app": name}
    spec = {"nodeSelector": {"sim.stokehold.dev/pool": "h100"}, "containers": [{"name": "c", "image": "x"}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    selected = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}, "spec": selected}


def on_node(name: str) -> Object:
    return {"spec": {"nodeSelector": {"kubernetes.io/hostname": name}}}


def pods_of(team: Team) -> set[tuple[str, str]]:
    return {(pod["metadata"]["uid"], pod["status"]["phase"]) for pod in team.pods()}


def pods_made_for(team: Team, workspace: str) -> int:
    """As the controller of StatefulSets counts them."""
    made = [e for e in team.items("events") if e["involvedObject"] == {**e["involvedObject"], "name": workspace}]
    return sum(e.get("count") or 1 for e in made if e["reason"] == "SuccessfulCreate")


def phase_of(team: Team, pod: str) -> str:
    return team.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}")


def take_back(team: Team, pod: str) -> None:
    """As a kubelet does that restarted before its device plugin: it fails a pod that had succeeded."""
    flip = {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError"}}
    team.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", json.dumps(flip))


def drop_resource(cluster: LocalCluster, node: str) -> None:
    gone = {"status": {"allocatable": {GPU: None}}}
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(gone))


def pool_condition(cluster: LocalCluster, pool: str) -> Object:
    status = json.loads(cluster.kubectl("get", "gnp", pool, "-o", "json"))["status"]
    assert status["gpus"].get("free", 0) >= 0
    return next((c for c in status["conditions"] if c["type"] == "DevicesReady"), {})


def seconds_between(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()

"""Device plugins that go and come back, kubelets that refuse, pods that will not die."""

import json

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.jobs import Team, wait_until

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


def test_lost_device_plugin_evicts_nobody_and_is_trusted_again_only_when_stable(
    team: Team, cluster: LocalCluster, spare: str
):
    team.submit("runs", gpusPerNode=2, podTemplate=ON_SPARE)
    team.wait_phase("runs", "Running")

    cluster.set_allocatable(spare, {GPU: 0})
    team.submit("waits", gpusPerNode=1, podTemplate=ON_SPARE)
    queue = team.wait_reason("waits", "WaitingForCapacity")
    cluster.set_allocatable(spare, {GPU: 8})
    trusted_after = wait_until(lambda: team.phase("waits") == "Running", 45, lambda: team.status("waits"))

    assert queue["details"]["available"] == 0
    assert team.status("runs")["attempt"] == 1
    assert trusted_after > 25


def test_resources_that_only_sound_like_gpus_are_not_counted(team: Team, cluster: LocalCluster, spare: str):
    cluster.set_allocatable(spare, {"nvidia.com/vgpu": 80, "nvidia.com/gpu.shared": 80, "amd.com/gpu": 8})
    team.submit("full", gpusPerNode=8, podTemplate=ON_SPARE)
    team.wait_phase("full", "Running")

    team.submit("more", gpusPerNode=1, podTemplate=ON_SPARE)

    assert team.wait_reason("more", "WaitingForCapacity")["details"]["available"] == 0


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


def test_node_whose_kubelet_refuses_is_avoided_after_two_refusals(team: Team, spare: str):
    refuse = {"fail-reason": "UnexpectedAdmissionError"}
    team.submit("refused", refuse, gpusPerNode=1, podTemplate=ON_SPARE)

    wait_until(lambda: len(team.status("refused").get("evictions", [])) == 2, 40, lambda: team.status("refused"))

    queue = team.wait_reason("refused", "WaitingForCapacity", within=30)
    assert len(team.status("refused")["evictions"]) == 2
    assert "not ready" in queue["message"] or "avoided" in queue["message"]


def test_finished_job_stays_finished_when_its_pods_change_their_mind(team: Team):
    team.submit("over", {"run-for": "1s"})
    before = team.wait_phase("over", "Succeeded")

    flip = {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError"}}
    team.kubectl("patch", "pod", "over-1-0", "--subresource=status", "--type=merge", "-p", json.dumps(flip))
    wait_until(lambda: team.pods("over")[0]["status"]["phase"] == "Failed", 10)

    team.submit("after", {"run-for": "1s"})
    team.wait_phase("after", "Succeeded")
    assert team.status("over") == before
    assert len(team.pods("over")) == 1


def test_corpse_keeps_its_gpus_and_its_name_but_stands_in_nobodys_way(
    team: Team, cluster: LocalCluster, operator: OperatorProcess
):
    undead = {"spec": {"terminationGracePeriodSeconds": 600}}
    team.submit("j1", {"ignores-sigterm": "true"}, gpusPerNode=8, gpuTypes=["a100-80gb"], podTemplate=undead)
    team.wait_phase("j1", "Running")
    node = team.nodes_of("j1")[0]
    team.kubectl("delete", "tj", "j1")
    wait_until(lambda: team.pods("j1")[0]["metadata"].get("deletionTimestamp"), 20)
    operator.kill()
    operator.restart()

    team.submit("j1", gpusPerNode=8, gpuTypes=["a100-80gb"])
    team.submit("j2", gpusPerNode=8, gpuTypes=["a100-80gb"])

    team.wait_phase("j1", "Running")
    queue = team.wait_reason("j2", "WaitingForCapacity")
    alive = [p for p in team.pods("j1") if not p["metadata"].get("deletionTimestamp")]
    assert [p["metadata"]["name"] for p in alive] == ["j1-2-0"]
    assert alive[0]["spec"]["nodeName"] != node
    assert queue["details"]["available"] == 0
    team.kubectl("delete", "pod", "j1-1-0", "--force", "--grace-period=0")
    took = wait_until(lambda: team.nodes_of("j2") == [node], 15, lambda: team.status("j2"))
    assert took < 5

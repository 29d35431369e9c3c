"""TrainingJobs on a real control plane, with the operator as a process under the chart's service account."""

import json

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.desks import Desks, offer_volumes, place_volume
from kit.jobs import Team, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]


def test_single_gpu_job_runs_to_its_end(team: Team):
    team.submit("one", {"run-for": "1s"})

    status = team.wait_phase("one", "Succeeded")

    wait_until(lambda: "finalizers" not in team.pods("one")[0]["metadata"], 10)
    pod = team.pods("one")[0]
    assert pod["metadata"]["name"] == "one-1-0"
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert status["attempt"] == 1
    assert status["usage"]["gpuSeconds"] >= 1
    assert json.loads(team.job("one")["metadata"]["annotations"]["stokehold.dev/finished"])["outcome"] == "Succeeded"


def test_gang_gets_rendezvous_and_addresses_and_keeps_them_when_somebody_deletes_its_service(team: Team):
    team.submit("gang", numNodes=2, gpusPerNode=8, gpuTypes=["h100"])

    team.wait_phase("gang", "Running")
    team.kubectl("delete", "service", "gang-gang")
    wait_until(lambda: team.kubectl("get", "service", "gang-gang", "--ignore-not-found"), 5)
    team.kubectl("label", "service", "gang-gang", "stokehold.dev/job-")
    wait_until(lambda: "ServiceTakenAway" in team.events("gang"), 5)

    pods = sorted(team.pods("gang"), key=lambda pod: pod["metadata"]["name"])
    environments = [{e["name"]: e["value"] for e in pod["spec"]["containers"][0]["env"]} for pod in pods]
    service = json.loads(team.kubectl("get", "service", "gang-gang", "-o", "json"))
    assert [e["PET_NODE_RANK"] for e in environments] == ["0", "1"]
    assert {e["MASTER_ADDR"] for e in environments} == {f"gang-0.gang-gang.{team.namespace}.svc"}
    assert {e["PET_NPROC_PER_NODE"] for e in environments} == {"8"}
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["labels"]["stokehold.dev/job"] == "gang"
    assert [pod["spec"]["hostname"] for pod in pods] == ["gang-0", "gang-1"]
    assert all(pod["spec"]["subdomain"] == "gang-gang" for pod in pods)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2


def test_gang_waits_whole_until_the_last_node_comes(team: Team, cluster: LocalCluster):
    team.submit("hog", gpusPerNode=8, gpuTypes=["h100"])
    team.wait_phase("hog", "Running")
    team.submit("wide", numNodes=4, gpusPerNode=8, gpuTypes=["h100"])

    queue = team.wait_reason("wide", "WaitingForCapacity")

    assert team.pods("wide") == []
    assert "4 workers" in queue["message"]
    assert queue["nextStep"]
    assert queue["details"] == {"requested": 32, "available": 24, "unit": "GPUs"}
    cluster.add_node("h100", "h100-extra")
    try:
        took = wait_until(lambda: len(team.nodes_of("wide")) == 4 and all(team.nodes_of("wide")), 10)
        team.wait_phase("wide", "Running", within=5)
        assert took < 5
    finally:
        team.kubectl("delete", "tj", "wide")
        wait_until(lambda: not team.pods("wide"), 20)
        cluster.delete_node("h100-extra")


def test_failed_worker_restarts_the_whole_gang_and_then_fails_for_good(team: Team):
    team.submit("bad", {"run-for": "1s", "exit-code": "7"}, numNodes=2, failurePolicy={"maxRestarts": 1})

    status = team.wait_phase("bad", "Failed", within=40)

    assert status["restarts"] == 1
    assert status["attempt"] == 2
    assert status["lastFailure"]["exitCode"] == 7
    finished = next(c for c in status["conditions"] if c["type"] == "Finished")
    assert finished["reason"] == "RequeuingLimitExceeded"
    assert "exit code 7" in finished["message"]
    assert "WorkerFailed" in team.events("bad")
    wait_until(lambda: all("finalizers" not in pod["metadata"] for pod in team.pods("bad")), 10)


def test_suspend_gives_gpus_back_and_resume_starts_again(team: Team):
    team.submit("pause", numNodes=2)
    team.wait_phase("pause", "Running")

    team.patch("pause", {"suspend": True})
    suspended = team.wait_phase("pause", "Suspended")
    wait_until(lambda: not team.pods("pause"), 20)
    team.patch("pause", {"suspend": False})
    running = team.wait_phase("pause", "Running")

    assert suspended["queue"]["reason"] == "Suspended"
    assert running["attempt"] == 2
    assert running["restarts"] == 0


def test_edit_while_waiting_is_what_is_planned(team: Team):
    team.submit("huge", gpusPerNode=16)
    team.wait_reason("huge", "NoMatchingFlavor")

    team.patch("huge", {"gpusPerNode": 2})

    team.wait_phase("huge", "Running")


def test_max_runtime_ends_a_job(team: Team):
    team.submit("long", maxRuntime="3s")

    status = team.wait_phase("long", "Failed", within=30)

    finished = next(c for c in status["conditions"] if c["type"] == "Finished")
    assert finished["reason"] == "MaximumExecutionTimeExceeded"
    wait_until(lambda: not team.live_pods("long"), 10)


def test_delete_leaves_nothing(team: Team):
    team.submit("gone", numNodes=2)
    team.wait_phase("gone", "Running")

    team.kubectl("delete", "tj", "gone")

    wait_until(lambda: not team.kubectl("get", "pods,services", "-o", "name"), 15)


def test_lost_node_requeues_without_counting_a_failure(team: Team, cluster: LocalCluster):
    cluster.add_node("h100", "h100-doomed")
    wait_until(lambda: cluster.kubectl("get", "node", "h100-doomed", "--ignore-not-found"), 10)
    team.submit("move", {}, gpuTypes=["h100"], podTemplate={"spec": {"nodeSelector": {"doomed": "true"}}})
    team.wait_reason("move", "WaitingForCapacity")
    cluster.kubectl("label", "node", "h100-doomed", "doomed=true")
    team.wait_phase("move", "Running")
    cluster.kubectl("label", "node", "h100-0", "doomed=true")

    cluster.delete_node("h100-doomed")

    wait_until(lambda: team.status("move").get("attempt") == 2, 30, lambda: team.status("move"))
    status = team.wait_phase("move", "Running", within=40)
    cluster.kubectl("label", "node", "h100-0", "doomed-")
    assert status.get("restarts", 0) == 0
    assert status["lastFailure"]["reason"] == "NodeFailures"
    assert status["lastFailure"]["countsAsRestart"] is False
    team.kubectl("delete", "pod", "move-1-0", "--force", "--grace-period=0")
    assert [p["spec"]["nodeName"] for p in team.live_pods("move") if p["metadata"]["name"] == "move-2-0"] == ["h100-0"]


def test_gang_that_cannot_bind_is_taken_back_whole(team: Team, cluster: LocalCluster):
    offer_volumes(cluster, 0)
    Desks(team).claim_volume("too-large", "1Pi")
    team.submit("stuck", numNodes=2, checkpoint={"claimName": "too-large"})

    status = team.wait_phase("stuck", "Restarting", within=30)

    assert status["lastFailure"]["reason"] == "BindTimeout"
    assert "persistent volumes to bind" in status["lastFailure"]["message"]
    assert "volume claim too-large" in status["lastFailure"]["message"]
    wait_until(lambda: not team.pods("stuck"), 10)


def test_job_to_which_a_limit_range_adds_more_than_any_node_has_is_told_so_and_takes_no_gpu(team: Team):
    limits = [{"type": "Container", "defaultRequest": {"cpu": "1000"}}]
    team.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "a"}, "spec": {"limits": limits}})
    team.submit("grown", numNodes=2)

    wait_until(lambda: team.status("grown").get("queue"), 6, lambda: team.status("grown"))

    status = team.status("grown")
    assert "asks for 1000 CPU, more than its spec says" in status["queue"]["message"]
    assert "lastFailure" not in status
    assert not team.kubectl("get", "pods,services", "-o", "name"), "one pod was tried, and none was made"


def test_quota_refusal_is_told_in_the_servers_words(team: Team):
    team.kubectl("create", "quota", "tight", "--hard=pods=1")
    team.submit("pair", numNodes=2)

    wait_until(lambda: "exceeded quota" in json.dumps(team.status("pair")), 20, lambda: team.status("pair"))

    wait_until(lambda: len(team.live_pods("pair")) < 2, 10)
    assert team.phase("pair") in ("Restarting", "Pending")


def test_gpuless_job_sees_no_gpu(team: Team):
    team.submit("cpu", gpusPerNode=0, resources={"requests": {"cpu": "2"}})

    team.wait_phase("cpu", "Running")

    container = team.pods("cpu")[0]["spec"]["containers"][0]
    environment = {e["name"]: e.get("value", "") for e in container["env"]}
    assert container["resources"] == {"requests": {"cpu": "2"}}
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_container_beside_the_main_one_sees_no_gpu(team: Team):
    sidecar = {"name": "logs", "image": "x"}
    team.submit(
        "sidecar", podTemplate={"spec": {"containers": [sidecar], "initContainers": [{**sidecar, "name": "i"}]}}
    )
    wait_until(lambda: team.pods("sidecar"), 20)

    spec = team.pods("sidecar")[0]["spec"]

    beside = [c for c in spec["containers"] + spec["initContainers"] if c["name"] != "main"]
    assert [c["env"] for c in beside] == [[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]] * 2


def test_foreign_pods_are_counted(team: Team, cluster: LocalCluster):
    foreign = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "foreign"},
        "spec": {
            "nodeName": "a100-0",
            "containers": [{"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "8"}}}],
        },
    }
    team.apply(foreign)
    wait_until(lambda: team.pods()[0]["status"]["phase"] == "Running", 10)
    team.submit("whole", gpusPerNode=8, gpuTypes=["a100-80gb"])

    team.wait_phase("whole", "Running")

    assert team.nodes_of("whole") == ["a100-1"]


def test_quiet_cluster_costs_no_writes(team: Team, operator: OperatorProcess):
    team.submit("waits", gpusPerNode=16)
    team.wait_reason("waits", "NoMatchingFlavor")
    before = operator.metric("stokehold_actions_total")

    wait_until(lambda: operator.metric("stokehold_cycle_duration_seconds_count", part="plan") > 5, 30)

    assert operator.metric("stokehold_actions_total") == before
    assert operator.logged("error") == []


def test_job_waits_for_the_claim_of_its_checkpoints_and_runs_where_its_volume_is(team: Team, cluster: LocalCluster):
    offer_volumes(cluster, 0)
    place_volume(cluster, f"ckpt-{team.namespace}", (team.namespace, "ckpt"), "h100-2")
    team.submit("saves", checkpoint={"claimName": "ckpt"})
    queue = team.wait_reason("saves", "VolumeUnavailable")
    assert queue["message"] == "there is no volume claim ckpt"
    assert not team.pods("saves")

    Desks(team).claim_volume("ckpt")
    team.wait_phase("saves", "Running", within=60)

    assert team.nodes_of("saves") == ["h100-2"]

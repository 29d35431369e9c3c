"""Burst on the real control plane: nodes are bought for a whole gang or not at all, and they go when it has ended."""

import time

import pytest
from hack.installation import OperatorProcess

from kit.burst import Cloud, condition
from kit.jobs import Object, Team, wait_until

pytestmark = pytest.mark.cluster

BOUGHT = {"key": "stokehold.dev/claim", "operator": "Exists"}
GANG = {"numNodes": 4, "gpusPerNode": 8, "gpuTypes": ["h100"], "dataClass": "internal"}


@pytest.fixture
def full(team: Team, cloud: Cloud) -> Team:
    """A team whose other job holds all H100 nodes that the cluster owns."""
    cloud.declare(max_nodes=0)
    team.submit("holder", numNodes=4, gpusPerNode=8, gpuTypes=["h100"])
    team.wait_phase("holder", "Running")
    return team


def test_four_nodes_are_claimed_at_once_the_gang_runs_and_they_go(full: Team, cloud: Cloud):
    cloud.declare(max_nodes=6)

    full.submit("gang", {"run-for": "5s"}, **GANG)

    wait_until(lambda: len(cloud.claims()) == 4, 20, lambda: (cloud.claims(), full.status("gang")))
    born = {claim["metadata"]["creationTimestamp"] for claim in cloud.claims()}
    assert len(born) <= 2, "created within one second, or over its edge"
    assert {claim["spec"]["zone"] for claim in cloud.claims()} == {"z1"}
    assert {claim["spec"]["for"]["name"] for claim in cloud.claims()} == {"gang"}
    queue = full.wait_reason("gang", "ProvisioningCapacity")
    assert "4 nodes of pool cloud" in queue["message"]
    status = full.wait_phase("gang", "Running", within=40)
    assert status["placement"]["pool"] == "cloud"
    assert len(set(status["placement"]["nodes"])) == 4
    wait_until(lambda: condition(full.status("gang")).get("status") == "True", 10, lambda: full.status("gang"))
    status = full.wait_phase("gang", "Succeeded", within=40)
    assert status["attempt"] == 1
    assert float(status["usage"]["cost"]) == pytest.approx(status["usage"]["gpuSeconds"] * 36 / 8 / 3600, rel=0.01)
    assert status["usage"]["currency"] == "USD"
    cloud.wait_gone()
    assert full.phase("holder") == "Running"


def test_restricted_job_never_bursts_and_says_why(full: Team, cloud: Cloud):
    cloud.declare()

    full.submit("secret", **{**GANG, "dataClass": "restricted"})

    wait_until(lambda: "restricted may not go" in _message(full, "secret"), 20, lambda: full.status("secret"))
    assert condition(full.status("secret"))["reason"] == "DataClassNotAllowed"
    assert cloud.claims() == []


def test_lack_of_capacity_rolls_all_back_and_backs_off(full: Team, cloud: Cloud):
    cloud.declare(simulated={"availableNodes": 2, "bootTime": "30s"})

    full.submit("gang", {"run-for": "3s"}, **GANG)

    wait_until(lambda: cloud.status().get("offerings"), 30, lambda: (cloud.status(), full.status("gang")))
    assert cloud.status()["offerings"][0]["reason"] == "Capacity"
    assert cloud.status()["offerings"][0]["zone"] == "z1"
    wait_until(lambda: condition(full.status("gang")).get("reason") == "ProviderFailing", 30)
    assert full.pods("gang") == []
    cloud.declare(simulated={"availableNodes": 4})
    full.wait_phase("gang", "Succeeded", within=90)
    cloud.wait_gone()


def test_nodes_without_gpus_are_failures(full: Team, cloud: Cloud):
    cloud.declare(simulated={"gpuMissingPercent": 100})

    full.submit("gang", **GANG)

    wait_until(lambda: cloud.status().get("offerings"), 40, lambda: (cloud.claims(), cloud.status()))
    assert cloud.status()["offerings"][0]["reason"] == "GpuMissing"
    cloud.wait_gone()
    assert full.pods("gang") == []


def test_second_machine_for_one_claim_is_found_and_given_back(full: Team, cloud: Cloud):
    cloud.declare(simulated={"duplicatePercent": 100})

    full.submit("gang", **GANG)

    full.wait_phase("gang", "Running", within=40)
    wait_until(lambda: len(cloud.nodes()) == 4, 30, lambda: [n["metadata"]["name"] for n in cloud.nodes()])
    assert full.phase("gang") == "Running"


def test_node_on_which_a_foreign_pod_has_gpus_is_not_given_back_and_its_own_pods_do_not_keep_it(
    full: Team, cloud: Cloud, operator: OperatorProcess
):
    def used() -> float:
        return operator.metric("stokehold_gpus", pool="cloud", state="used")

    cloud.declare(delay="2s")
    full.submit("one", {"run-for": "8s"}, gpusPerNode=4, gpuTypes=["h100"], dataClass="public")
    node = full.wait_phase("one", "Running", within=40)["placement"]["nodes"][0]
    stranger = a_foreign_pod("stranger", node, gpus=2)
    mirror = a_foreign_pod("mirror", node, gpus=1, annotations={"kubernetes.io/config.mirror": "x"})
    full.apply(stranger, mirror, a_daemon(gpus=1))

    wait_until(lambda: used() == 8, 10, lambda: (used(), full.kubectl("get", "pods", "-o", "wide")))
    full.wait_phase("one", "Succeeded", within=40)
    wait_until(lambda: used() == 4, 10, used)
    time.sleep(6)

    (claim,) = cloud.claims()
    assert claim["status"]["phase"] == "Ready"
    assert condition(claim["status"], "Idle")["message"] == f"{full.namespace}/stranger is on it"
    assert {pod["metadata"]["name"].split("-")[0] for pod in full.live_pods()} >= {"stranger", "mirror", "daemon"}
    full.kubectl("delete", "pod", "stranger", "--wait=false")
    cloud.wait_gone()
    full.kubectl("delete", "daemonset", "daemon")
    full.kubectl("delete", "tj", "holder")
    full.bury()


def test_job_deleted_while_its_nodes_boot_costs_no_more(full: Team, cloud: Cloud):
    cloud.declare(simulated={"bootTime": "50s"})
    full.submit("gang", **GANG)
    wait_until(lambda: len(cloud.nodes()) == 4, 20, cloud.claims)

    full.kubectl("delete", "tj", "gang")

    cloud.wait_gone()


def test_warm_nodes_are_kept_and_start_work_at_once(full: Team, cloud: Cloud):
    cloud.declare(keepWarm=1)
    wait_until(lambda: cloud.phases() == ["Ready"], 30, cloud.claims)

    full.submit("one", {"run-for": "2s"}, gpusPerNode=8, gpuTypes=["h100"], dataClass="public")

    full.wait_phase("one", "Succeeded", within=30)
    wait_until(lambda: cloud.phases() == ["Ready"], 40, cloud.claims)
    cloud.declare(keepWarm=0)
    cloud.wait_gone()


def _message(team: Team, job: str) -> str:
    return str(team.status(job).get("queue", {}).get("message", ""))


def a_foreign_pod(name: str, node: str, gpus: int, **metadata: object) -> Object:
    """Somebody binds it himself; the GPUs are counted by its node's kubelet, and by nobody's plan."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"nodeName": node, **_asking_for(gpus)},
    }


def a_daemon(gpus: int) -> Object:
    """A DaemonSet for the nodes that were bought."""
    bought = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [BOUGHT]}]}}
    template = {
        "metadata": {"labels": {"app": "daemon"}},
        "spec": {**_asking_for(gpus), "affinity": {"nodeAffinity": bought}},
    }
    spec = {"selector": {"matchLabels": {"app": "daemon"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon"}, "spec": spec}


def _asking_for(gpus: int) -> Object:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "containers": [{"name": "c", "image": "x", "resources": resources}],
        "tolerations": [{"operator": "Exists"}],
        "automountServiceAccountToken": False,
    }

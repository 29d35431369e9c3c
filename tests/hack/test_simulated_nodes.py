"""What a test can break, and that it stays broken."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.cluster.api import ApiError
from hack.cluster.local import KubectlError

pytestmark = pytest.mark.cluster

LONGER_THAN_A_LEASE_SECONDS = 5.0
WAIT_SECONDS = 40.0


def node(cluster: LocalCluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.read("nodes", name)
    return found


def ready(cluster: LocalCluster, name: str) -> str:
    conditions = node(cluster, name)["status"]["conditions"]
    found: str = next(c["status"] for c in conditions if c["type"] == "Ready")
    return found


def wait(is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_there():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def taints(cluster: LocalCluster, name: str) -> set[str]:
    return {taint["key"] for taint in node(cluster, name)["spec"].get("taints", ())}


def test_nodes_are_as_described(simulated: LocalCluster) -> None:
    gpus = node(simulated, "h100-1")["status"]["allocatable"]

    assert gpus["nvidia.com/gpu"] == "8"
    assert ready(simulated, "h100-1") == "True"
    assert taints(simulated, "h100-1") == set()


def test_unready_node_and_lost_gpu_stay_so_until_they_are_healed(simulated: LocalCluster) -> None:
    simulated.set_allocatable("h100-0", {"nvidia.com/gpu": 7})
    simulated.set_ready("h100-0", False)

    wait(lambda: "node.kubernetes.io/not-ready" in taints(simulated, "h100-0"))
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)

    assert ready(simulated, "h100-0") == "False"
    status = node(simulated, "h100-0")["status"]
    assert (status["allocatable"]["nvidia.com/gpu"], status["capacity"]["nvidia.com/gpu"]) == ("7", "8")
    assert status["allocatable"]["cpu"] == status["capacity"]["cpu"]
    simulated.set_allocatable("h100-0", {"nvidia.com/gpu": 8})
    simulated.set_ready("h100-0", True)
    wait(lambda: not taints(simulated, "h100-0"))


def test_silent_node_finishes_no_deletion_becomes_unknown_and_comes_back(simulated: LocalCluster) -> None:
    simulated.kubectl("run", "orphan", "--image=trainer", "--overrides", json.dumps({"spec": {"nodeName": "h100-1"}}))
    simulated.kubectl("wait", "--for=condition=Ready", "pod/orphan", "--timeout=20s")
    simulated.set_silent("h100-1")

    simulated.kubectl("delete", "pod", "orphan", "--wait=false", "--grace-period=1")
    wait(lambda: ready(simulated, "h100-1") == "Unknown")
    assert simulated.kubectl("get", "pod", "orphan", "-o", "name").strip() == "pod/orphan"

    simulated.set_heard("h100-1")
    wait(lambda: ready(simulated, "h100-1") == "True" and not taints(simulated, "h100-1"))
    time.sleep(LONGER_THAN_A_LEASE_SECONDS)
    assert ready(simulated, "h100-1") == "True"
    assert simulated.kubectl("get", "pod", "orphan", "-o", "name", "--ignore-not-found") == ""


def test_node_comes_and_goes(simulated: LocalCluster) -> None:
    simulated.add_node("h100", "burst-0")
    assert node(simulated, "burst-0")["status"]["allocatable"]["nvidia.com/gpu"] == "8"

    simulated.delete_node("burst-0")

    with pytest.raises(ApiError, match="not found"):
        node(simulated, "burst-0")


def test_api_server_hangs_and_comes_back(simulated: LocalCluster) -> None:
    simulated.pause_api_server()

    with pytest.raises(KubectlError):
        simulated.kubectl("get", "nodes", "--request-timeout=1s")

    simulated.resume_api_server()
    simulated.kubectl("get", "nodes")


def test_api_server_keeps_its_port_and_data_over_a_restart(simulated: LocalCluster) -> None:
    simulated.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    url = simulated.url

    simulated.stop_api_server()
    assert "kube-apiserver" not in simulated.processes()
    simulated.start_api_server()

    assert simulated.url == url
    assert simulated.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
    simulated.set_ready("h100-0", True)


def test_user_has_only_the_rights_that_were_given(simulated: LocalCluster) -> None:
    kubeconfig = simulated.kubeconfig_for("ada", groups=("team-vision",))
    who = simulated.kubectl("--kubeconfig", str(kubeconfig), "auth", "whoami", "-o", "json")

    assert json.loads(who)["status"]["userInfo"]["username"] == "ada"
    assert "team-vision" in json.loads(who)["status"]["userInfo"]["groups"]
    with pytest.raises(KubectlError, match="Forbidden"):
        simulated.kubectl("--kubeconfig", str(kubeconfig), "get", "nodes")


def test_service_account_has_a_kubeconfig(simulated: LocalCluster) -> None:
    simulated.kubectl("create", "serviceaccount", "operator")

    kubeconfig = simulated.kubeconfig_for_service_account("default", "operator")

    who = simulated.kubectl("--kubeconfig", str(kubeconfig), "auth", "whoami", "-o", "json")
    name = json.loads(who)["status"]["userInfo"]["username"]
    assert name == "system:serviceaccount:default:operator"

"""What was deleted while a watch was broken is gone from the operator's view once it has listed again."""

from collections.abc import Callable
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.fault_proxy import FaultProxy
from hack.installation import OperatorProcess

from kit.jobs import Object, Team, wait_until
from kit.witness import Witness, assert_in_order

pytestmark = [pytest.mark.cluster, pytest.mark.crash]

BROKEN = ("pods", "nodes", "trainingjobs")
StartBehindProxy = Callable[[str], tuple[OperatorProcess, FaultProxy]]


@pytest.fixture
def doomed(cluster: LocalCluster):
    cluster.add_node("a100", "a100-doomed")
    yield "a100-doomed"
    cluster.kubectl("delete", "node", "a100-doomed", "--ignore-not-found")


def test_ghosts_are_gone_after_a_relist(
    team: Team, witness: Witness, cluster: LocalCluster, start_behind_proxy: StartBehindProxy, doomed: str
):
    operator, proxy = start_behind_proxy("relist")
    wait_until(lambda: operator.metric("stokehold_leader") == 1, 30)
    team.apply(*(a_foreign_pod(node) for node in ("a100-0", "a100-1", doomed)))
    team.submit("ghost", gpusPerNode=16, gpuTypes=["a100-80gb"])
    team.wait_reason("ghost", "NoMatchingFlavor")
    team.submit("waits", {"run-for": "3s"}, gpusPerNode=8, gpuTypes=["a100-80gb"])
    team.wait_reason("waits", "WaitingForCapacity")
    assert gpus(operator, "used") == 24
    lists = lists_of(proxy)

    # The watches end and may not go on from where they were, so the deletions are never told of.
    gone = proxy.refuse(lambda call: call.resource in BROKEN and call.is_watch, 410)
    held = proxy.hold(lambda call: call.resource in BROKEN and call.method == "GET")
    proxy.cut_watches()
    wait_until(lambda: {call.resource for call in held.caught} == set(BROKEN), 30, lambda: held.caught)
    team.kubectl("delete", "pod", "foreign-a100-1", f"foreign-{doomed}", "--force", "--ignore-not-found")
    team.kubectl("delete", "tj", "ghost")
    cluster.delete_node(doomed)
    assert gpus(operator, "used") == 24  # it cannot know yet
    proxy.end(gone)
    proxy.end(held)

    wait_until(lambda: gpus(operator, "allocatable") == 16, 30, lambda: operator.get("/metrics"))
    team.wait_phase("waits", "Succeeded", within=30)
    wait_until(lambda: gpus(operator, "used") == 8, 10, lambda: operator.get("/metrics"))
    assert operator.metric("stokehold_jobs") == operator.metric("stokehold_jobs", phase="Succeeded") == 1
    assert lists_of(proxy) >= lists + len(BROKEN)
    team.kubectl("delete", "pod", "foreign-a100-0")
    assert_in_order(team, witness, {"waits": ("Succeeded", 1)})


def a_foreign_pod(node: str) -> Object:
    resources = {"limits": {"nvidia.com/gpu": "8"}}
    spec: dict[str, Any] = {"nodeName": node, "containers": [{"name": "c", "image": "x", "resources": resources}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"foreign-{node}"}, "spec": spec}


def gpus(operator: OperatorProcess, state: str) -> float:
    return operator.metric("stokehold_gpus", state=state, gpu_type="a100-sxm4-80gb")


def lists_of(proxy: FaultProxy) -> int:
    return sum(call.method == "GET" and not call.is_watch and call.resource in BROKEN for call in proxy.calls)

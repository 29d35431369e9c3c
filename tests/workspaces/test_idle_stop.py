"""A workspace on the real control plane, watched by the real agent process over the NVML test library."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from agent.processes import AgentProcess, World, steadily
from kit.desks import CLASS, Desks, place_volume
from kit.jobs import wait_until
from kit.nvml.driver import uuid_of
from kit.pod_resources import with_gpus

pytestmark = pytest.mark.cluster


def start_agent(desks: Desks, world: World, name: str) -> AgentProcess:
    """The agent of the workspace's node, to which the kubelet says that GPU 0 is the workspace's."""
    (agent,) = start_agents(desks, world, name)
    return agent


def start_agents(desks: Desks, world: World, *names: str) -> list[AgentProcess]:
    """The agents of the workspaces' nodes; the first workspace has GPU 0 of its node, the second GPU 1, and so on."""
    pods = [desks.pods(name)[0] for name in names]
    metas = [pod["metadata"] for pod in pods]
    world.kubelet.give(*(with_gpus(m["namespace"], m["name"], uuid_of(gpu)) for gpu, m in enumerate(metas)))
    for meta in metas:
        (world.pod_logs / f"{meta['namespace']}_{meta['name']}_{meta['uid']}").mkdir(exist_ok=True)
    options = ("--kubeconfig", str(desks.team.cluster.kubeconfig), "--heartbeat", "1s")
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    with ThreadPoolExecutor(len(nodes)) as starters:  # all clocks begin together
        return list(starters.map(lambda node: world.start_agent(*options, "--node-name", node), nodes))


def test_idle_workspace_gives_its_gpu_to_waiting_work_keeps_its_files_and_comes_back(desks: Desks, world: World):
    desks.open("ada", gpuTypes=["a100-80gb"], idle={"policy": "OnPressure"})
    wait_until(lambda: desks.condition("ada", "Ready").get("status") == "True", 40, lambda: desks.status("ada"))
    claim = desks.claim("ada")
    world.nvml[0].utilization = 80
    start_agent(desks, world, "ada")
    status = desks.wait_why("ada", "InUse")
    assert (status["phase"], status["url"]) == ("Active", f"http://ada.{desks.team.namespace}.svc:8888")
    assert status["activity"]["signals"][0]["state"] == "Active"
    assert status["placement"]["pool"] == "a100-sxm4-80gb"
    desks.team.kubectl("delete", "service", "ada")
    wait_until(lambda: desks.team.kubectl("get", "service", "ada", "--ignore-not-found"), 5)

    world.nvml[0].utilization = 0
    desks.wait_phase("ada", "Quiet")
    desks.wait_why("ada", "NoPressure")
    desks.team.submit("wants-all", numNodes=2, gpusPerNode=8, gpuTypes=["a100-80gb"])
    warned = desks.wait_phase("ada", "Warned")
    assert warned["stopAt"] > warned["warnedAt"]
    status = desks.wait_phase("ada", "Stopped")
    desks.team.wait_phase("wants-all", "Running")

    assert status["stopReason"] == "Idle"
    assert status["usage"]["gpuSeconds"] >= status["usage"]["idleGpuSeconds"] >= 10
    assert {"Started", "IdleWarning", "Stopped"} <= set(desks.team.events("ada"))
    record = json.loads(desks.get("ada")["metadata"]["annotations"]["stokehold.dev/stopped"])
    assert record["reason"] == "Idle"
    assert desks.claim("ada")["metadata"]["uid"] == claim["metadata"]["uid"]

    desks.set_running("ada", True)
    wait_until(lambda: desks.status("ada").get("queue", {}).get("reason") == "WaitingForCapacity", 20)
    desks.team.kubectl("delete", "tj", "wants-all")
    again = desks.wait_phase("ada", "Active", "Quiet")
    assert again["startTime"] > status["startTime"]
    assert again["activity"]["lastActiveTime"] == again["startTime"]
    assert again["usage"]["reclaimedGpuSeconds"] >= 1
    assert desks.claim("ada")["metadata"]["uid"] == claim["metadata"]["uid"]


def test_agents_that_fall_silent_together_stop_nobody_and_the_clocks_go_on_when_they_speak_again(
    desks: Desks, world: World, operator: OperatorProcess
):
    silenced = ("bob", "ben")
    world.nvml.count = 3
    for number, name in enumerate((*silenced, "bea")):
        there = {"spec": {"nodeSelector": {"kubernetes.io/hostname": f"h100-{number}"}}}
        desks.open(name, idle={"after": "20s", "warnBefore": "1s"}, podTemplate=there)
    for name in (*silenced, "bea"):
        desks.wait_phase(name, "Active", "Quiet")
    *agents, _ = start_agents(desks, world, *silenced, "bea")
    wait_until(lambda: desks.seconds_to_stop("bob") <= 4, 60, lambda: desks.status("bob"))

    for agent in agents:
        agent.kill()
    before = {name: desks.wait_why(name, "SignalUnknown") for name in silenced}
    for name, status in before.items():
        assert "silent since" in desks.condition(name)["message"]
        assert desks.condition(name)["status"] == "Unknown"
        assert "stopAt" not in status
        assert status["activity"]["quietSeconds"] >= 10
    assert operator.metric("stokehold_workspaces_unknown") == 2
    assert operator.metric("stokehold_gpu_nodes", agent="silent") == 2  # of one pool: one alert
    assert desks.wait_phase("bea", "Stopped")["stopReason"] == "Idle"
    steadily(lambda: {desks.phase(name) for name in silenced} == {"Active"}, 5)
    assert not {"IdleWarning", "Stopped"} & {event for name in silenced for event in desks.team.events(name)}

    start_agents(desks, world, *silenced)
    for name, status in before.items():
        back = desks.wait_phase(name, "Quiet", "Warned")
        assert back["activity"]["quietSeconds"] >= status["activity"]["quietSeconds"]
        assert back["activity"]["quietSeconds"] < 20  # the silence itself is no idle time
    wait_until(lambda: desks.status("bob")["activity"].get("unknownSeconds", 0) >= 5, 30, lambda: desks.status("bob"))
    _die_between_the_two_writes_of_a_stop(desks, operator, "bob")
    for name in silenced:
        assert desks.wait_phase(name, "Stopped", within=60)["stopReason"] == "Idle"
        events = desks.team.events(name)
        assert (events.count("IdleWarning"), events.count("Stopped")) == (1, 1)
        assert "its owner was warned at" in desks.get(name)["metadata"]["annotations"]["stokehold.dev/stopped"]


def _die_between_the_two_writes_of_a_stop(desks: Desks, operator: OperatorProcess, name: str) -> None:
    """The record is written, the replica stays: the API server holds it, until the operator is dead."""
    desks.hold_replicas(True)
    try:
        wait_until(lambda: not desks.may_scale_down(name), 20)
        wait_until(lambda: "Stopped" in desks.team.events(name), 60, lambda: desks.status(name))
        operator.kill()
        held = desks.get(name)
        assert "stokehold.dev/stopped" in held["metadata"]["annotations"]
        assert not held["spec"]["running"]
        assert [pod["metadata"].get("deletionTimestamp") for pod in desks.pods(name)] == [None]
    finally:
        desks.hold_replicas(False)
        if not operator.is_running:
            operator.restart()


def test_dry_run_reports_a_snooze_is_answered_and_a_stranger_on_a_gpu_is_told(
    desks: Desks, world: World, cluster: LocalCluster
):
    desks.open("eve", idle={"mode": "DryRun"})
    node = desks.wait_phase("eve", "Active", "Quiet")["placement"]["node"]
    world.run_process(4712)
    world.nvml[1].run((4712, 1 << 30))
    start_agent(desks, world, "eve")
    desks.wait_why("eve", "DryRun")
    assert "NotStopped" in desks.team.events("eve")
    on_nodes = json.loads(cluster.kubectl("get", "events", "-n", "default", "-o", "json"))["items"]
    strangers = [e["message"] for e in on_nodes if e["reason"] == "ForeignGpuUser"]
    assert [told.partition(",")[0] for told in strangers] == [f"process python of no pod uses {uuid_of(1)}"]
    assert {e["involvedObject"]["name"] for e in on_nodes if e["reason"] == "ForeignGpuUser"} == {node}

    started = datetime.fromisoformat(desks.status("eve")["startTime"])
    asked = f"{started + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"
    desks.annotate("eve", "snooze", asked)
    status = desks.wait_why("eve", "Snoozed")
    assert status["snoozeRequest"] == asked
    assert status["snoozedUntil"] < asked
    assert status["snoozedSecondsToday"] == pytest.approx(4 * 3600, abs=5)
    assert "Snoozed" in desks.team.events("eve")


def test_days_off_are_read_a_stop_by_its_owner_and_a_volume_that_goes_or_is_lost(desks: Desks, cluster: LocalCluster):
    desks.open("kim", schedule={"start": ["0 8 1 1 *"], "holidays": {"configMap": "off"}})
    desks.wait_phase("kim", "Active", "Quiet")
    assert "there is no ConfigMap off" in desks.condition("kim", "Valid")["message"]
    desks.team.kubectl("create", "configmap", "off", "--from-literal=2027-01-01=New Year")
    desks.team.kubectl("label", "configmap", "off", "stokehold.dev/holidays=")
    wait_until(lambda: desks.condition("kim", "Valid")["status"] == "True", 20, lambda: desks.status("kim"))
    desks.set_running("kim", False)
    assert desks.wait_phase("kim", "Stopped")["stopReason"] == "UserRequest"
    assert not desks.pods("kim")

    held = json.dumps({"metadata": {"finalizers": ["tests.stokehold.dev/held"]}})
    desks.team.kubectl("patch", "pvc", "kim-home", "--type=merge", "-p", held)
    desks.team.kubectl("delete", "pvc", "kim-home", "--wait=false")
    desks.set_running("kim", True)
    wait_until(lambda: "is being deleted" in desks.status("kim").get("queue", {}).get("message", ""), 30)
    assert not desks.pods("kim")

    desks.team.kubectl("patch", "pvc", "kim-home", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    wait_until(lambda: "is gone" in desks.status("kim").get("queue", {}).get("message", ""), 40)
    assert not desks.pods("kim")
    assert desks.condition("kim", "Ready")["reason"] == "VolumeUnavailable"
    desks.annotate("kim", "fresh-volume", "kim-home")
    desks.wait_phase("kim", "Active", "Quiet")
    assert "stokehold.dev/fresh-volume" not in desks.get("kim")["metadata"].get("annotations", {})
    desks.team.kubectl("scale", "statefulset", "kim", "--replicas=3")
    wait_until(lambda: desks.team.read("statefulsets", "kim")["spec"]["replicas"] == 1, 20)
    desks.set_running("kim", False)
    desks.wait_phase("kim", "Stopped")

    volume = desks.claim("kim")["spec"]["volumeName"]
    cluster.kubectl("delete", "pv", volume, "--wait=false")
    cluster.kubectl("patch", "pv", volume, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    wait_until(lambda: desks.claim("kim")["status"]["phase"] == "Lost", 30, lambda: desks.claim("kim"))
    desks.set_running("kim", True)
    wait_until(lambda: desks.waits_for("kim", "the volume behind its claim kim-home is lost"), 30)
    assert desks.status("kim")["queue"]["reason"] == "VolumeUnavailable"
    assert "stokehold.dev/fresh-volume=kim-home" in desks.status("kim")["queue"]["nextStep"]
    assert not desks.pods("kim")


def test_volume_grows_where_it_may_and_its_workspace_starts_where_it_is_or_waits(desks: Desks, cluster: LocalCluster):
    place_volume(cluster, "placed", (desks.team.namespace, "eve-home"), "a100-1")
    desks.open("eve", gpuTypes=["a100-80gb"])
    wait_until(lambda: desks.condition("eve", "Ready").get("status") == "True", 60, lambda: desks.status("eve"))
    assert desks.status("eve")["placement"]["node"] == "a100-1"
    (pod,) = desks.pods("eve")

    desks.resize("eve", "2Gi")
    wait_until(lambda: "VolumeNotGrown" in desks.team.events("eve"), 30)
    assert desks.claim("eve")["spec"]["resources"]["requests"]["storage"] == "1Gi"
    cluster.kubectl("patch", "storageclass", CLASS, "--type=merge", "-p", '{"allowVolumeExpansion":true}')
    desks.resize("eve", "3Gi")
    wait_until(lambda: desks.claim("eve")["spec"]["resources"]["requests"]["storage"] == "3Gi", 30)
    assert [found["metadata"]["uid"] for found in desks.pods("eve")] == [pod["metadata"]["uid"]]

    desks.set_running("eve", False)
    desks.wait_phase("eve", "Stopped")
    place_volume(cluster, "apart", (desks.team.namespace, "data"), "a100-0")
    desks.claim_volume("data")
    desks.patch("eve", {"running": True, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]})
    wait_until(lambda: desks.waits_for("eve", "no node reaches all of its volumes"), 30, lambda: desks.status("eve"))
    assert not desks.pods("eve")
    desks.patch("eve", {"running": False, "volumes": []})
    desks.wait_phase("eve", "Stopped")

    cluster.kubectl("cordon", "a100-1")
    try:
        desks.set_running("eve", True)
        told = "volume claim eve-home can be reached from nodes with kubernetes.io/hostname In (a100-1) alone"
        wait_until(lambda: desks.waits_for("eve", told), 30, lambda: desks.status("eve"))
        assert not desks.pods("eve")
    finally:
        cluster.kubectl("uncordon", "a100-1")
    desks.wait_phase("eve", "Active", "Quiet")


def test_pod_on_a_dead_node_is_waited_for_by_name_and_holds_its_gpu_until_it_has_gone(
    desks: Desks, cluster: LocalCluster
):
    desks.open("ivy", gpuTypes=["a100-80gb"])
    node = desks.wait_phase("ivy", "Active", "Quiet")["placement"]["node"]
    cluster.set_silent(node)
    try:
        desks.set_running("ivy", False)
        desks.wait_phase("ivy", "Stopping")
        before = desks.status("ivy")["activity"]
        desks.set_running("ivy", True)
        told = f"its pod ivy-0 on {node} has not gone yet"
        wait_until(lambda: desks.waits_for("ivy", told), 30, lambda: desks.status("ivy"))
        assert desks.status("ivy")["queue"]["reason"] == "WaitingForTerminatingPods"
        assert desks.status("ivy")["activity"] == before  # the idle clock stands
        assert len(desks.pods("ivy")) == 1
        cluster.kubectl("cordon", node)  # as its controller would taint it
        desks.team.kubectl("delete", "pod", "ivy-0", "--force", "--grace-period=0")
        again = desks.wait_phase("ivy", "Active", "Quiet")
        assert again["placement"]["node"] != node
    finally:
        cluster.set_heard(node)
        cluster.kubectl("uncordon", node)


def test_refused_pod_gives_its_gpus_to_waiting_work_and_its_workspace_says_who_refuses_it(desks: Desks):
    desks.open("max", gpus=8, gpuTypes=["a100-80gb"])
    node = desks.wait_phase("max", "Active", "Quiet")["placement"]["node"]
    pinned = {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}
    desks.team.submit("waits", gpusPerNode=8, podTemplate=pinned, resources={"requests": {"cpu": "1"}})
    desks.team.wait_reason("waits", "WaitingForCapacity")

    desks.team.kubectl("create", "quota", "none", "--hard=requests.cpu=1")  # what names no CPU is refused
    desks.team.kubectl("delete", "pod", "max-0", "--wait=false")
    desks.wait_phase("max", "Pending", within=60)
    assert desks.status("max")["failedStarts"] == 1
    assert "TakenBack" in desks.team.events("max")
    desks.team.wait_phase("waits", "Running")
    desks.team.kubectl("delete", "tj", "waits")
    wait_until(
        lambda: desks.waits_for("max", "failed quota: none: must specify requests.cpu"), 30, lambda: desks.status("max")
    )
    assert desks.status("max")["queue"]["reason"] == "CreationRefused"
    assert not desks.pods("max")

    desks.team.kubectl("delete", "quota", "none")
    assert "failedStarts" not in desks.wait_phase("max", "Active", "Quiet", within=60)


def test_node_that_goes_is_left_for_another(desks: Desks, cluster: LocalCluster):
    desks.open("sam", gpuTypes=["a100-80gb"])
    node = desks.wait_phase("sam", "Active", "Quiet")["placement"]["node"]

    cluster.delete_node(node)
    try:
        desks.team.kubectl("delete", "pod", "sam-0", "--force", "--grace-period=0")
        wait_until(
            lambda: desks.status("sam").get("placement", {}).get("node") != node, 60, lambda: desks.status("sam")
        )
        desks.wait_phase("sam", "Active", "Quiet")
    finally:
        cluster.add_node("a100", node)

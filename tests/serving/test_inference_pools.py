"""InferencePools on a real control plane, with the operator as a process and engines that are real HTTP servers."""

import json
from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster
from hack.engines import Engines
from hack.installation import OperatorProcess

from kit.jobs import wait_until
from kit.prometheus import Prometheus
from kit.serving import BY_ENGINE, ServingTeam, inference_pool

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

GPU = "nvidia.com/gpu"


@pytest.fixture
def node(cluster: LocalCluster, team: ServingTeam) -> Iterator[str]:
    """A node of its own with two GPUs, by the label `serving=true`."""
    cluster.add_node("h100", "h100-serving")
    wait_until(lambda: cluster.kubectl("get", "node", "h100-serving", "--ignore-not-found"), 20)
    cluster.set_allocatable("h100-serving", {GPU: 2})
    cluster.kubectl("label", "node", "h100-serving", "serving=true")
    yield "h100-serving"
    team.empty()
    cluster.delete_node("h100-serving")


ON_NODE = {"spec": {"nodeSelector": {"serving": "true"}}}


def test_pool_follows_its_load_from_one_to_four_and_back(team: ServingTeam, engines: Engines):
    team.serve("chat", scaling=BY_ENGINE)
    first = team.wait_replicas("chat", 1)

    engines.clients = 32
    full = team.wait_replicas("chat", 4)
    engines.clients = 0
    last = team.wait_replicas("chat", 1, within=60)

    assert first["decisions"][0]["reason"] == "Created"
    assert first["selector"] == "stokehold.dev/inference-pool=chat"
    assert [d["reason"] for d in full["decisions"]][-1] == "LoadRose"
    assert last["decisions"][-1]["reason"] == "LoadFell"
    assert last["phase"] == "Ready"
    assert team.condition("chat", "MetricsFresh")["status"] == "True"
    assert {"Created", "LoadRose", "LoadFell"} <= set(team.events("chat"))


def test_what_is_nested_without_end_is_refused_or_told_and_the_others_go_on(team: ServingTeam):
    def create(manifest: dict[str, object]) -> None:
        deep = '{"a":' * 1500 + "1" + "}" * 1500
        team.kubectl("create", "-f", "-", text=json.dumps(manifest).replace('"DEEP"', deep))

    template = {"spec": {"containers": [{"name": "main", "livenessProbe": "DEEP"}]}}
    with pytest.raises(RuntimeError, match="must not be nested more than 64 levels deep"):
        create(inference_pool("deep", podTemplate=template))
    # The webhook is not asked about a job that names neither a queue nor a class.
    job = {"kind": "TrainingJob", "metadata": {"name": "deep"}, "spec": {"numNodes": 1, "gpusPerNode": 1, "image": "x"}}
    job["spec"]["podTemplate"] = template
    create({"apiVersion": "stokehold.dev/v1alpha1", **job})

    team.serve("chat")
    team.wait_replicas("chat", 1)

    wait_until(lambda: "Unreadable" in team.events("deep"), 20)


def test_metrics_that_vanish_hold_the_pool_and_their_return_in_the_other_spelling_frees_it(
    team: ServingTeam, engines: Engines, operator: OperatorProcess
):
    engines.clients = 24
    team.serve("chat", scaling=BY_ENGINE)
    team.wait_replicas("chat", 3)

    engines.silent = True
    lost = team.wait_condition("chat", "MetricsFresh", "False")
    engines.clients = 0
    then = team.pool_status("chat")
    failed = operator.metric("stokehold_scrapes_total", source="pod", result="failed")
    # Three replicas asked in vain five times more: longer than the delay before a pool shrinks.
    wait_until(lambda: operator.metric("stokehold_scrapes_total", source="pod", result="failed") >= failed + 15, 40)
    held = team.pool_status("chat")
    engines.separator, engines.silent = "_", False
    team.wait_condition("chat", "MetricsFresh", "True")
    team.wait_replicas("chat", 1, within=60)

    assert "vllm:num_requests_running" in lost["message"]
    assert "status 500" in lost["message"]
    assert held["desiredReplicas"] == then["desiredReplicas"] >= 3
    assert held["decisions"] == then["decisions"]


IN_FLIGHT = "sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)"
BY_QUERY = {
    "engine": "custom",
    "metrics": [{"type": "Prometheus", "target": "8", "query": IN_FLIGHT}],
    "scaleDownDelay": "2s",
}


def test_pool_follows_what_prometheus_answers_sleeps_wakes_and_is_held_when_the_answer_is_empty(
    team: ServingTeam, gateway: Engines, prometheus: Prometheus, operator: OperatorProcess
):
    gateway.clients = 20
    team.serve("chat", replicas={"min": 0, "max": 4}, scaling=BY_QUERY)
    three = team.wait_replicas("chat", 3)
    gateway.clients = 0
    asleep = team.wait_replicas("chat", 0, within=60)
    gateway.clients = 9
    awake = team.wait_replicas("chat", 2)
    prometheus.scrape("agent")  # the series end, and with them the answer
    lost = team.wait_condition("chat", "MetricsFresh", "False", within=60)
    failed = operator.metric("stokehold_scrapes_total", source="prometheus", result="failed")
    # Asked in vain three times more: longer than the delay before a pool shrinks.
    wait_until(
        lambda: operator.metric("stokehold_scrapes_total", source="prometheus", result="failed") > failed + 2, 40
    )

    assert [decision["reason"] for decision in three["decisions"]][-1] == "LoadRose"
    assert (asleep["decisions"][-1]["reason"], asleep["phase"]) == ("NoLoad", "Zero")
    assert awake["decisions"][-1]["replicas"] == 2
    assert "the result is empty" in lost["message"]
    assert team.pool_status("chat")["desiredReplicas"] == 2


def test_children_belong_to_the_pool_and_follow_its_spec(team: ServingTeam):
    team.serve("chat", scaling={"drainSeconds": 40}, disruption={"minAvailable": "50%"}, replicas={"min": 2, "max": 2})
    team.wait_replicas("chat", 2)

    deployment, service, budget = (team.child(kind, "chat") for kind in ("deployment", "service", "pdb"))
    uid = team.pool("chat")["metadata"]["uid"]
    assert {c["metadata"]["ownerReferences"][0]["uid"] for c in (deployment, service, budget)} == {uid}
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    template = deployment["spec"]["template"]["spec"]
    assert template["schedulingGates"] == [{"name": "stokehold.dev/placement"}]
    assert template["terminationGracePeriodSeconds"] == 45
    assert template["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert template["containers"][0]["resources"]["limits"] == {GPU: "1"}
    assert template["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/health"
    assert budget["spec"]["minAvailable"] == "50%"
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    wait_until(lambda: team.child("pdb", "chat")["status"].get("desiredHealthy") == 1, 20)

    team.edit("chat", port=9000, disruption=None, scaling={"engine": "custom"}, rollout={"maxSurge": 1})
    wait_until(lambda: team.child("deployment", "chat")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1, 20)
    service, budget = team.child("service", "chat"), team.child("pdb", "chat")
    assert [port["port"] for port in service["spec"]["ports"]] == [9000]
    assert "minAvailable" not in budget["spec"]
    assert budget["spec"]["maxUnavailable"] == 1
    container = team.child("deployment", "chat")["spec"]["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["tcpSocket"]["port"] == 9000
    assert "httpGet" not in container["readinessProbe"]

    team.kubectl("delete", "service,pdb", "chat")
    wait_until(lambda: team.kubectl("get", "service,pdb", "-o", "name").count("/chat") == 2, 20)

    team.kubectl("delete", "gpool", "chat")
    wait_until(lambda: not team.kubectl("get", "deployments,services,pdb,pods", "-o", "name"), 40)


def test_full_cluster_lets_replicas_wait_with_a_reason_behind_the_gate(team: ServingTeam, node: str):
    team.submit("train", gpusPerNode=2, podTemplate=ON_NODE)
    team.wait_phase("train", "Running")

    team.serve("chat", replicas={"min": 2, "max": 2}, podTemplate=ON_NODE)

    wait_until(lambda: team.pool_status("chat").get("queue"), 30, lambda: team.pool_status("chat"))
    status = team.pool_status("chat")
    assert status["queue"]["reason"] == "WaitingForCapacity"
    assert status["queue"]["nextStep"]
    assert team.condition("chat", "CapacityAvailable")["status"] == "False"
    assert len(team.replicas("chat")) == 2
    assert team.bound("chat") == []
    assert team.phase("train") == "Running"
    assert {pod["status"]["conditions"][0]["reason"] for pod in team.replicas("chat")} == {"SchedulingGated"}

    team.kubectl("delete", "tj", "train")
    after = team.wait_replicas("chat", 2)
    wait_until(lambda: "queue" not in team.pool_status("chat"), 20, lambda: team.pool_status("chat"))
    assert after["readyReplicas"] == 2
    assert team.condition("chat", "CapacityAvailable")["status"] == "True"
    assert {pod["spec"]["nodeName"] for pod in team.bound("chat")} == {node}


def test_serving_goes_before_training_that_has_waited_longer(team: ServingTeam, node: str):
    team.submit("holds", gpusPerNode=2, podTemplate=ON_NODE)
    team.wait_phase("holds", "Running")
    team.submit("waits", gpusPerNode=2, podTemplate=ON_NODE)
    team.wait_reason("waits", "WaitingForCapacity")
    team.serve("chat", replicas={"min": 1, "max": 1}, podTemplate=ON_NODE)
    wait_until(lambda: team.pool_status("chat").get("queue"), 30, lambda: team.pool_status("chat"))

    team.kubectl("delete", "tj", "holds")

    team.wait_replicas("chat", 1)
    queue = team.wait_reason("waits", "WaitingForCapacity")
    assert [pod["spec"]["nodeName"] for pod in team.bound("chat")] == [node]
    assert team.pods("waits") == []
    assert queue["position"] == 1


def test_new_version_takes_over_replica_by_replica_where_no_gpu_is_spare(team: ServingTeam, node: str):
    team.serve("chat", replicas={"min": 2, "max": 2}, podTemplate=ON_NODE)
    team.wait_replicas("chat", 2)
    before = {pod["metadata"]["uid"] for pod in team.replicas("chat")}
    # Training that waits for the same GPUs, and would take one that is free for a moment.
    team.submit("greedy", gpusPerNode=1, podTemplate=ON_NODE)
    team.wait_reason("greedy", "WaitingForCapacity")

    team.edit("chat", image="registry.local/serve:2")

    def all_new() -> bool:
        images = [pod["spec"]["containers"][0]["image"] for pod in team.bound("chat")]
        return images == ["registry.local/serve:2"] * 2

    wait_until(all_new, 60, lambda: team.kubectl("get", "pods", "-o", "wide"))
    status = team.wait_replicas("chat", 2)
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in team.replicas("chat"))
    wait_until(lambda: team.pool_status("chat")["phase"] == "Ready", 20, lambda: team.pool_status("chat"))
    assert team.pods("greedy") == []
    assert len(status["decisions"]) == 1


def test_what_is_not_built_is_refused_by_name(team: ServingTeam):
    team.serve("canary", rollout={"strategy": "Canary"}, fallback={"poolRef": {"name": "small"}})

    condition = team.wait_condition("canary", "Valid", "False")

    assert condition["reason"] == "NotSupportedYet"
    assert "Canary is not built yet" in condition["message"]
    assert "fallback is not built yet" in condition["message"]
    assert team.kubectl("get", "deployments", "-o", "name") == ""


def test_service_of_somebody_else_is_not_taken(team: ServingTeam):
    team.kubectl("create", "service", "clusterip", "chat", "--tcp=80:80")

    team.serve("chat")

    wait_until(
        lambda: "was made by somebody else" in team.condition("chat", "Ready").get("message", ""),
        20,
        lambda: team.pool_status("chat"),
    )
    assert "ownerReferences" not in team.child("service", "chat")["metadata"]


def test_pool_without_gpus_needs_no_gate(team: ServingTeam):
    team.serve("small", gpusPerReplica=0)

    team.wait_replicas("small", 1)

    (pod,) = team.replicas("small")
    assert "schedulingGates" not in pod["spec"]
    assert "affinity" not in pod["spec"]
    environment = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_metrics_of_the_operator_tell_of_the_pool(team: ServingTeam, operator: OperatorProcess):
    team.serve("chat")
    team.wait_replicas("chat", 1)
    labels = {"namespace": team.namespace, "pool": "chat"}

    wait_until(lambda: operator.metric("stokehold_inference_pool_ready_replicas", **labels) == 1, 10)

    assert operator.metric("stokehold_inference_pool_desired_replicas", **labels) == 1
    assert operator.metric("stokehold_scrapes_total", source="pod", result="ok") > 0
    assert operator.metric("stokehold_inference_pool_decisions_total", reason="Created") > 0
    assert operator.metric("stokehold_inference_pool_load_age_seconds", **labels) < 10


def test_kubelet_that_refuses_replicas_does_not_fill_the_cluster_with_failed_pods(team: ServingTeam):
    broken = {"metadata": {"annotations": {"sim.stokehold.dev/fail-reason": "UnexpectedAdmissionError"}}}
    team.serve("chat", replicas={"min": 1, "max": 1}, gpuTypes=["a100-80gb"], podTemplate=broken)

    wait_until(lambda: team.pool_status("chat").get("queue"), 40, lambda: team.kubectl("get", "pods"))

    failed = [pod for pod in team.replicas("chat") if pod["status"]["phase"] == "Failed"]
    assert len(failed) == 4  # two refusals on each of two nodes, and then it waits


def test_replicas_that_one_node_refuses_come_up_on_another(team: ServingTeam):
    team.serve("chat", replicas={"min": 2, "max": 2}, gpuTypes=["a100-80gb"])
    team.wait_replicas("chat", 2)
    bad = team.bound("chat")[0]["spec"]["nodeName"]

    def settled_elsewhere() -> bool:
        live = [pod for pod in team.bound("chat") if pod["status"]["phase"] != "Failed"]
        for pod in live:
            if pod["spec"]["nodeName"] == bad:
                refuse(team, pod["metadata"]["name"])
        return len(live) == 2 and all(pod["spec"]["nodeName"] != bad for pod in live)

    wait_until(settled_elsewhere, 40, lambda: team.kubectl("get", "pods", "-o", "wide"))

    team.wait_replicas("chat", 2)
    failed = [pod for pod in team.replicas("chat") if pod["status"]["phase"] == "Failed"]
    assert 2 <= len(failed) <= 5


def refuse(team: ServingTeam, pod: str) -> None:
    """As a kubelet does whose device plugin is not back yet."""
    failed = {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError"}}
    team.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", json.dumps(failed), check=False)

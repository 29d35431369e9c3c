"""Others who write what is ours, or decide instead of us: people, GitOps, HorizontalPodAutoscalers, Helm."""

import json
from pathlib import Path

import pytest
from hack.cluster import LocalCluster
from hack.engines import Engines
from hack.installation import OperatorProcess, helm

from kit.jobs import wait_until
from kit.serving import BY_ENGINE, ServingTeam, inference_pool

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]


def test_number_that_somebody_else_writes_on_the_deployment_is_undone(team: ServingTeam):
    team.serve("chat", replicas={"min": 2, "max": 2})
    team.wait_replicas("chat", 2)

    team.kubectl("scale", "deployment", "chat", "--replicas=5")

    wait_until(lambda: team.child("deployment", "chat")["spec"]["replicas"] == 2, 20)
    team.wait_replicas("chat", 2)
    assert len(team.pool_status("chat")["decisions"]) == 1


def test_external_mode_takes_the_number_of_the_scale_subresource_alone(team: ServingTeam, engines: Engines):
    engines.clients = 100
    team.serve("chat", replicas={"min": 1, "max": 3}, scaling={**BY_ENGINE, "mode": "External"})
    team.wait_replicas("chat", 1)

    team.kubectl("scale", "gpool", "chat", "--replicas=2")
    two = team.wait_replicas("chat", 2)
    team.kubectl("scale", "gpool", "chat", "--replicas=9")
    three = team.wait_replicas("chat", 3)
    path = f"/apis/stokehold.dev/v1alpha1/namespaces/{team.namespace}/inferencepools/chat/scale"
    scale = json.loads(team.cluster.kubectl("get", "--raw", path))

    assert two["decisions"][-1]["reason"] == "ExternalScale"
    assert three["desiredReplicas"] == 3
    assert team.condition("chat", "MetricsFresh")["reason"] == "External"
    assert scale["spec"]["replicas"] == 9
    assert scale["status"] == {"replicas": 3, "selector": "stokehold.dev/inference-pool=chat"}


@pytest.mark.parametrize(
    ("patch", "what"),
    [
        ({"replicas": 2}, "gitops keeps writing spec.replicas to 2"),
        (
            {"template": {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "3"}}}]}}},
            "gitops keeps writing the template of its pods",
        ),
    ],
    ids=["number", "resources"],
)
def test_two_hands_on_a_deployment_end_in_peace_and_name_the_other(team: ServingTeam, patch: dict, what: str):
    team.serve("chat", replicas={"min": 3, "max": 3})
    team.wait_replicas("chat", 3)

    def fight() -> bool:
        team.kubectl("patch", "deployment", "chat", "--field-manager=gitops", "-p", json.dumps({"spec": patch}))
        return team.condition("chat", "ScalingActive").get("status") == "False"

    wait_until(fight, 40, lambda: team.pool_status("chat"))

    condition = team.condition("chat", "ScalingActive")
    assert condition["reason"] == "OtherWriter"
    assert what in condition["message"]
    undone = team.child("deployment", "chat")["metadata"]["annotations"]["stokehold.dev/undone-at"]
    assert len(undone.split()) == 3
    wait_until(lambda: is_rolled_out(team), 40, lambda: team.child("deployment", "chat")["status"])
    settled = {pod["metadata"]["uid"] for pod in team.replicas("chat")}
    for _ in range(5):
        fight()
    assert {pod["metadata"]["uid"] for pod in team.replicas("chat")} == settled  # no pod churns any more
    assert team.condition("chat", "ScalingActive") == condition
    assert team.events("chat").count("OtherWriter") == 1
    assert team.pool_status("chat")["desiredReplicas"] == 3


def is_rolled_out(team: ServingTeam) -> bool:
    """Whether the Deployment has as many pods as it should, all of its newest template."""
    found = team.child("deployment", "chat")
    status, wanted = found["status"], found["spec"]["replicas"]
    counts = {status.get(kind, 0) for kind in ("replicas", "updatedReplicas", "readyReplicas")}
    return counts == {wanted} and status["observedGeneration"] == found["metadata"]["generation"]


def test_horizontal_pod_autoscaler_gets_its_number_and_the_load_decides_again_when_it_is_gone(
    team: ServingTeam, engines: Engines
):
    engines.clients = 8 * 3
    team.serve("chat", replicas={"min": 2, "max": 10}, scaling=BY_ENGINE)
    team.wait_replicas("chat", 3)

    target = {"apiVersion": "stokehold.dev/v1alpha1", "kind": "InferencePool", "name": "chat"}
    spec = {"scaleTargetRef": target, "minReplicas": 7, "maxReplicas": 9}
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "hpa"}, "spec": spec}
    team.apply(hpa)
    seven = team.wait_replicas("chat", 7, within=60)
    told = team.condition("chat", "MetricsFresh")
    team.kubectl("delete", "hpa", "hpa")
    back = team.wait_replicas("chat", 3, within=60)

    assert [decision["replicas"] for decision in seven["decisions"]] == [2, 3, 7]
    assert seven["decisions"][-1]["reason"] == "ExternalScale"
    assert (told["reason"], "HorizontalPodAutoscaler hpa scales this pool" in told["message"]) == ("External", True)
    assert back["decisions"][-1]["reason"] == "LoadFell"
    assert team.condition("chat", "ScalingActive")["status"] == "True"


def test_release_that_holds_a_pool_can_be_upgraded_after_somebody_scaled_it_by_hand(
    team: ServingTeam, cluster: LocalCluster, tmp_path: Path
):
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: chat\nversion: 1.0.0\n")
    held = inference_pool("chat", replicas={"min": 1, "max": 4}, image="registry.local/serve:{{ .Values.version }}")
    held["metadata"]["namespace"] = team.namespace
    (chart / "templates" / "pool.yaml").write_text(json.dumps(held))
    release = f"chat-{team.namespace}"
    helm(cluster, "install", release, str(chart), values={"version": "1"})
    try:
        team.wait_replicas("chat", 1)
        team.kubectl("scale", "gpool", "chat", "--replicas=4")
        assert team.pool("chat")["spec"]["replicas"]["desired"] == 4

        helm(cluster, "upgrade", release, str(chart), values={"version": "2"})  # raises unless its exit code is 0

        assert team.pool("chat")["spec"]["image"] == "registry.local/serve:2"
        assert team.pool("chat")["spec"]["replicas"]["desired"] == 4
    finally:
        helm(cluster, "uninstall", release)


def test_pods_that_somebody_else_shaped_are_restored_and_a_restart_is_let_through(team: ServingTeam):
    team.serve("chat", replicas={"min": 1, "max": 1})
    team.wait_replicas("chat", 1)

    def container() -> dict:
        return team.child("deployment", "chat")["spec"]["template"]["spec"]["containers"][0]

    team.kubectl("set", "resources", "deployment", "chat", "--requests=cpu=3")
    wait_until(lambda: "cpu" not in container()["resources"].get("requests", {}), 20, container)
    team.kubectl("set", "image", "deployment/chat", "main=registry.local/evil:1")
    wait_until(lambda: container()["image"] == "registry.local/serve:1", 20, container)

    team.kubectl("rollout", "restart", "deployment/chat")
    generation = team.child("deployment", "chat")["metadata"]["generation"]
    wait_until(lambda: team.child("deployment", "chat")["status"].get("updatedReplicas") == 1, 20)
    team.wait_replicas("chat", 1)
    after = team.child("deployment", "chat")
    assert after["metadata"]["generation"] == generation
    assert "kubectl.kubernetes.io/restartedAt" in after["spec"]["template"]["metadata"]["annotations"]


def test_manifest_that_is_applied_again_and_again_changes_nothing(
    team: ServingTeam, engines: Engines, operator: OperatorProcess
):
    engines.clients = 20
    manifest = json.dumps(inference_pool("chat", scaling=BY_ENGINE))
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "-f", "-")
    team.kubectl(*apply, text=manifest)
    team.wait_replicas("chat", 3)
    generation = team.child("deployment", "chat")["metadata"]["generation"]
    before = writes(operator)

    for _ in range(5):
        team.kubectl(*apply, text=manifest)

    assert writes(operator) - before <= 1  # what was still to be told when it began
    assert team.wait_replicas("chat", 3)["decisions"][-1]["replicas"] == 3
    assert team.child("deployment", "chat")["metadata"]["generation"] == generation
    managers = {entry["manager"]: entry["fieldsV1"] for entry in managed_fields(team, "chat")}
    assert set(managers["stokehold"]) == {"f:status"}


def writes(operator: OperatorProcess) -> float:
    counts = "stokehold_api_request_duration_seconds_count"
    return sum(operator.metric(counts, verb=verb) for verb in ("create", "update", "patch", "delete"))


def managed_fields(team: ServingTeam, name: str) -> list[dict]:
    shown = json.loads(team.kubectl("get", "gpool", name, "-o", "json", "--show-managed-fields"))
    return list(shown["metadata"]["managedFields"])

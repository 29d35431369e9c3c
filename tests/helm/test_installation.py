"""The chart on a real API server: rendered objects are valid, and releases come, change and go without losing work."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.cluster.certificates import Authority
from hack.installation import CHART, NAMESPACE, RELEASE, HelmError, helm

from kit.jobs import Team, training_job, wait_until

pytestmark = pytest.mark.cluster

RUNTIME_CLASS = (
    '{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "runc"}'
)
KEPT = ("trainingjobs", "devworkspaces", "inferencepools", "gpuqueues", "gpunodepools")
VALUE_SETS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "everything that needs no other operator": {
        "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {}}]},
        "monitoring.dashboards.enabled": True,
        "operator.replicas": 3,
        "operator.tolerations": [{"operator": "Exists"}],
        "operator.nodeSelector": {"kubernetes.io/os": "linux"},
        "operator.affinity": {"podAntiAffinity": {}},
        "operator.podLabels": {"team": "platform"},
        "operator.podAnnotations": {"note": "x"},
        "operator.extraArgs": ["--webhook-address=::"],
        "operator.serviceAccount.annotations": {"eks.amazonaws.com/role-arn": "x"},
        "agent.nodeSelector": {"kubernetes.io/os": "linux"},
        "agent.podLabels": {"team": "platform"},
        "image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": ["registry"]},
        "webhook.failurePolicy": "Fail",
    },
    "as little as possible": {
        "webhook.enabled": False,
        "agent.enabled": False,
        "crds.install": False,
        "rbac.aggregate": False,
        "priorityClasses.create": False,
        "operator": {"replicas": 1, "priorityClassName": ""},
    },
    "an own certificate and an address": {
        "webhook.certificate": {"source": "Secret", "secretName": "mine", "caBundle": "e30="},
        "webhook.url": "https://stokehold.example:9443",
        "agent": {"runtimeClassName": "", "ownNodeOnly": False},
    },
}


@pytest.fixture(scope="module", autouse=True)
def namespace(cluster: LocalCluster) -> Iterator[None]:
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    cluster.kubectl("apply", "-f", "-", input=RUNTIME_CLASS)
    yield
    cluster.kubectl("delete", "-f", "-", input=RUNTIME_CLASS)


def upgrade(cluster: LocalCluster, **values: object) -> str:
    return helm(cluster, "upgrade", "--install", RELEASE, str(CHART), "--wait", "--timeout=90s", values=values)


def get(cluster: LocalCluster, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("-n", NAMESPACE, "get", kind, name, "-o", "json"))
    return found


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS.keys())
def test_the_api_server_takes_what_is_rendered(cluster: LocalCluster, values: dict[str, Any]):
    rendered = helm(cluster, "template", RELEASE, str(CHART), values=values)

    apply = ("apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server")
    cluster.kubectl(*apply, "-f", "-", input=rendered)


def test_a_release_comes_changes_and_goes_and_the_users_objects_stay(cluster: LocalCluster):
    notes = helm(cluster, "install", RELEASE, str(CHART), "--wait", "--timeout=90s")
    assert "kubectl apply -f - <<YAML" in notes
    assert get(cluster, "deployment", f"{RELEASE}-operator")["status"]["readyReplicas"] == 2
    gpu_nodes = cluster.kubectl("get", "nodes", "-l", "nvidia.com/gpu.present", "-o", "name").split()
    assert get(cluster, "daemonset", f"{RELEASE}-agent")["status"]["numberReady"] == len(gpu_nodes) == 6

    _agent_makes_way_for_a_driver_upgrade(cluster, gpu_nodes[0].removeprefix("node/"))
    team = Team.create(cluster, "installed")
    for made in live_objects(team):
        cluster.kubectl("apply", "-f", "-", input=json.dumps(made))
    before = everything(cluster)
    certificate = get(cluster, "secret", f"{RELEASE}-webhook")["data"]
    bundle = authorities(cluster)

    upgrade(cluster)
    upgrade(cluster, **{"operator.replicas": 3, "operator.logLevel": "DEBUG", "agent.interval": "30s"})
    assert everything(cluster) == before
    assert get(cluster, "secret", f"{RELEASE}-webhook")["data"] == certificate
    assert authorities(cluster) == bundle
    assert get(cluster, "deployment", f"{RELEASE}-operator")["status"]["readyReplicas"] == 3

    with pytest.raises(HelmError, match=f"already: upgrade or uninstall release {RELEASE} in namespace {NAMESPACE}"):
        helm(cluster, "install", "second", str(CHART), values={"crds.install": False, "priorityClasses.create": False})
    with pytest.raises(HelmError, match="'replica' not allowed"):
        upgrade(cluster, **{"operator.replica": 1})
    assert get(cluster, "deployment", f"{RELEASE}-operator")["spec"]["replicas"] == 3

    helm(cluster, "uninstall", RELEASE, "--wait", "--timeout=90s")
    assert everything(cluster) == before
    assert not cluster.kubectl("get", "validatingwebhookconfigurations", "-o", "name")
    team.kubectl("run", "plain-pod", "--image=x")
    helm(cluster, "install", RELEASE, str(CHART), "--wait", "--timeout=90s")
    assert everything(cluster) == before  # and with them the CRDs, adopted again
    helm(cluster, "uninstall", RELEASE, "--wait", "--timeout=90s")
    cluster.kubectl("delete", ",".join(KEPT), "--all", "-A")
    team.delete()


def _agent_makes_way_for_a_driver_upgrade(cluster: LocalCluster, node: str) -> None:
    """As NVIDIA's GPU operator asks for it, and says when it is over."""

    def has_agent() -> bool:
        of_agents = ("-l", "app.kubernetes.io/component=agent")
        pods = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "pods", *of_agents, "-o", "json"))["items"]
        return any(p["spec"].get("nodeName") == node for p in pods if "deletionTimestamp" not in p["metadata"])

    def seen() -> str:
        return cluster.kubectl("-n", NAMESPACE, "get", "nodes,daemonsets,pods", "-o", "wide", "--show-labels")

    wait_until(has_agent, 30, seen)
    for value, wanted in (("paused-for-driver-upgrade", False), ("true", True)):
        cluster.kubectl("label", "node", node, f"nvidia.com/gpu.deploy.client={value}", "--overwrite")
        wait_until(lambda wanted=wanted: has_agent() is wanted, 30, seen)
    cluster.kubectl("label", "node", node, "nvidia.com/gpu.deploy.client-")


def test_a_new_certificate_leaves_the_one_before_it_trusted(cluster: LocalCluster):
    def rotate(*, port: int) -> str:
        url = f"https://127.0.0.{port}:9443"
        upgrade(cluster, **{"operator.replicas": 0, "agent.enabled": False, "webhook.url": url})
        (bundle,) = set(authorities(cluster))
        own = decoded(get(cluster, "secret", f"{RELEASE}-webhook")["data"]["ca.crt"])
        assert decoded(bundle).startswith(own)
        return decoded(bundle)

    first = rotate(port=1)
    assert rotate(port=1) == first
    second = rotate(port=2)
    assert second.endswith(first)

    cluster.kubectl("-n", NAMESPACE, "delete", "secret", f"{RELEASE}-webhook")
    third = rotate(port=2)
    assert third.endswith(second.removesuffix(first))
    assert first not in third  # or the list would grow for ever
    assert rotate(port=2) == third
    helm(cluster, "uninstall", RELEASE, "--wait")


def test_a_change_of_the_certificates_source_leaves_the_authority_before_it_trusted(
    cluster: LocalCluster, tmp_path: Path
):
    sparse = {"operator.replicas": 0, "agent.enabled": False}
    upgrade(cluster, **sparse)
    (made,) = set(authorities(cluster))
    other = Authority.create(tmp_path, "other").files.certificate.read_text()
    given = {"source": "Secret", "secretName": "given", "caBundle": b64encode(other.encode()).decode()}

    for _ in range(2):
        upgrade(cluster, **sparse, **{f"webhook.certificate.{name}": value for name, value in given.items()})
        assert {decoded(bundle) for bundle in authorities(cluster)} == {other + decoded(made)}
    upgrade(cluster, **sparse)
    (back,) = set(authorities(cluster))
    assert decoded(back).endswith(other)
    helm(cluster, "uninstall", RELEASE, "--wait")


def live_objects(team: Team) -> list[dict[str, Any]]:
    def an_object(kind: str, name: str, spec: dict[str, Any], *, namespaced: bool) -> dict[str, Any]:
        place = {"namespace": team.namespace} if namespaced else {}
        return {
            "apiVersion": "stokehold.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, **place},
            "spec": spec,
        }

    job = training_job("job", suspend=True)
    job["metadata"]["namespace"] = team.namespace
    return [
        job,
        an_object("DevWorkspace", "ws", {"image": "x"}, namespaced=True),
        an_object("GPUQueue", "all", {"namespaces": {}}, namespaced=False),
        an_object("GPUNodePool", "pool", {"gpuType": "h100", "nodeSelector": {"x": "y"}}, namespaced=False),
    ]


def everything(cluster: LocalCluster) -> dict[str, tuple[str, str]]:
    """UID and resourceVersion of each object of ours: an unchanged version is an untouched object."""
    listed = json.loads(cluster.kubectl("get", ",".join(KEPT), "-A", "-o", "json"))["items"]
    return {
        f"{o['kind']}/{o['metadata']['name']}": (o["metadata"]["uid"], o["metadata"]["resourceVersion"]) for o in listed
    }


def authorities(cluster: LocalCluster) -> list[str]:
    configuration = get(cluster, "validatingwebhookconfiguration", f"{RELEASE}-{NAMESPACE}")
    return [hook["clientConfig"]["caBundle"] for hook in configuration["webhooks"]]


def decoded(text: str) -> str:
    return b64decode(text).decode()

"""The chart on a real API server: rendered objects are valid, and releases come, change and go without losing work."""

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.installation import CHART, NAMESPACE, RELEASE, HelmError, helm

from kit.jobs import Team, training_job

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


def test_other_names_make_a_new_certificate_and_the_old_authority_is_trusted_meanwhile(cluster: LocalCluster):
    upgrade(cluster, **{"operator.replicas": 0, "agent.enabled": False})
    old = get(cluster, "secret", f"{RELEASE}-webhook")["data"]["ca.crt"]
    assert set(authorities(cluster)) == {old}

    upgrade(cluster, **{"operator.replicas": 0, "agent.enabled": False, "webhook.url": "https://127.0.0.1:9443"})

    new = get(cluster, "secret", f"{RELEASE}-webhook")["data"]["ca.crt"]
    assert new != old
    assert decoded(new).endswith(decoded(old))
    assert set(authorities(cluster)) == {new}
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

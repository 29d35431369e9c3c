"""The agent against a real API server, under a service account with no right beyond its own kind."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from hack.cluster import LocalCluster

from agent.processes import NODE, World, eventually
from kit.nvml.driver import uuid_of
from kit.pod_resources import with_gpus

pytestmark = pytest.mark.cluster

ACCOUNT = "agent-under-test"
GROUP = "stokehold.dev"
RULES = [
    {"apiGroups": [GROUP], "resources": ["gpunodes"], "verbs": ["get", "create", "patch"]},
    {"apiGroups": [GROUP], "resources": ["gpunodes/status"], "verbs": ["patch"]},
]
MANIFESTS = (
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": "default"}},
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": ACCOUNT},
        "rules": RULES,
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
    },
)


# What docs/concepts/node-agent.md advises: the token of a pod says on which node the pod runs.
OWN_NODE_ONLY = f"""
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {ACCOUNT}}}
spec:
  matchConstraints:
    resourceRules:
      - apiGroups: [{GROUP}]
        apiVersions: ["*"]
        operations: [CREATE, UPDATE]
        resources: [gpunodes, gpunodes/status]
  matchConditions:
    - name: is-an-agent
      expression: request.userInfo.username == 'system:serviceaccount:default:{ACCOUNT}'
  validations:
    - expression: >-
        request.userInfo.extra[?'authentication.kubernetes.io/node-name'].orValue(['']).exists(n, n == request.name)
      message: an agent may write only the GPUNode of its own node
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {ACCOUNT}}}
spec: {{policyName: {ACCOUNT}, validationActions: [Deny]}}
"""


@pytest.fixture
def kubeconfig(cluster: LocalCluster) -> Iterator[Path]:
    manifests = yaml.safe_dump_all(MANIFESTS)
    cluster.kubectl("apply", "-f", "-", input=manifests)
    yield cluster.kubeconfig_for_service_account("default", ACCOUNT)
    cluster.kubectl("delete", "-f", "-", input=manifests)
    cluster.kubectl("delete", "gpunode", NODE, "--ignore-not-found")


def test_the_api_server_takes_the_status_and_keeps_it_over_a_restart(
    cluster: LocalCluster, kubeconfig: Path, world: World
):
    world.kubelet.give(with_gpus("team-a", "notebook", uuid_of(0)))
    world.nvml[1].split(9)

    agent = world.start_agent("--kubeconfig", str(kubeconfig))
    eventually(lambda: activity(cluster, 0) == "Quiet")

    whole, parent = status(cluster)["gpus"]
    assert whole["owners"] == [{"namespace": "team-a", "pod": "notebook", "container": "main"}]
    assert parent["migDevices"][0]["activity"]["state"] == "Unknown"
    assert whole["memoryBytes"] == world.nvml[0].memory_total
    processes = (psutil.Process(agent.process.pid), *psutil.Process(agent.process.pid).children())
    assert sum(process.memory_info().rss for process in processes) < 80 << 20

    assert agent.stop() == 0
    assert activity(cluster, 0) == "Unknown"
    world.start_agent("--kubeconfig", str(kubeconfig))
    eventually(lambda: activity(cluster, 0) == "Quiet")


def test_an_object_deleted_under_the_agent_comes_back_with_its_next_write(
    cluster: LocalCluster, kubeconfig: Path, world: World
):
    agent = world.start_agent("--kubeconfig", str(kubeconfig))
    eventually(lambda: activity(cluster, 0) == "Quiet")

    cluster.kubectl("delete", "gpunode", NODE)
    world.nvml[0].utilization = 80
    eventually(lambda: activity(cluster, 0) == "Active")
    assert agent.metrics()["stokehold_agent_failed_writes_total"] == 0


def test_an_admission_policy_keeps_each_agent_to_the_node_of_its_pod(
    cluster: LocalCluster, kubeconfig: Path, world: World
):
    own, other = cluster.kubectl("get", "nodes", "-o", "name").replace("node/", "").split()[:2]
    cluster.kubectl("apply", "-f", "-", input=OWN_NODE_ONLY)
    try:
        token = a_token_of_a_pod_on(cluster, own)
        config = yaml.safe_load(kubeconfig.read_text())
        config["users"][0]["user"]["token"] = token
        bound = world.directory / "bound"
        bound.write_text(yaml.safe_dump(config))
        eventually(lambda: "only the GPUNode of its own node" in refusal(cluster, bound, other))

        intruder = world.start_agent("--kubeconfig", str(bound), "--node-name", other)
        eventually(lambda: intruder.metrics()["stokehold_agent_failed_writes_total"] > 0)
        assert "only the GPUNode of its own node" in intruder.log.read_text()
        world.start_agent("--kubeconfig", str(bound), "--node-name", own)
        eventually(lambda: own in cluster.kubectl("get", "gpunodes", "-o", "name"))
        assert other not in cluster.kubectl("get", "gpunodes", "-o", "name")
    finally:
        cluster.kubectl("delete", "-f", "-", input=OWN_NODE_ONLY)
        cluster.kubectl("delete", "pod", ACCOUNT, "--force", "--grace-period=0", "--ignore-not-found")
        cluster.kubectl("delete", "gpunode", own, other, "--ignore-not-found")


def a_token_of_a_pod_on(cluster: LocalCluster, node: str) -> str:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": ACCOUNT, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "serviceAccountName": ACCOUNT,
            "containers": [{"name": "agent", "image": "agent"}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(pod))
    return cluster.kubectl(
        "create", "token", ACCOUNT, "--bound-object-kind=Pod", f"--bound-object-name={ACCOUNT}"
    ).strip()


def refusal(cluster: LocalCluster, kubeconfig: Path, node: str) -> str:
    """What the API server says to a GPUNode of this node, without making one."""
    manifest = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "GPUNode", "metadata": {"name": node}}
    command = [cluster.bin("kubectl"), "--kubeconfig", kubeconfig, "create", "--dry-run=server", "--validate=false"]
    done = subprocess.run(  # noqa: S603 - our own kubectl
        [*command, "-f", "-"], input=yaml.safe_dump(manifest), capture_output=True, text=True, check=False, timeout=30
    )
    return done.stderr


def status(cluster: LocalCluster) -> dict[str, Any]:
    printed = cluster.kubectl("get", "gpunode", NODE, "--ignore-not-found", "-o", "json")
    found: dict[str, Any] = json.loads(printed).get("status", {}) if printed else {}
    return found


def activity(cluster: LocalCluster, index: int) -> str:
    gpus = status(cluster).get("gpus", ())
    state: str = next((gpu["activity"]["state"] for gpu in gpus if gpu["index"] == index), "")
    return state

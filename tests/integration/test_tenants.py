"""What a tenant may do, and what has no effect or is refused however it is tried; without the webhook too."""

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.desks import Desks
from kit.jobs import Object, Team, training_job, wait_until
from kit.serving import inference_pool

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

KINDS = ("trainingjobs", "inferencepools", "devworkspaces")


@pytest.fixture
def bound(team: Team) -> Team:
    for role in ("edit", "view"):
        team.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}-user")
    return team


@pytest.mark.parametrize(
    ("user", "verb", "resource", "allowed"),
    [
        *[("edit-user", verb, kind, "yes") for kind in KINDS for verb in ("create", "get", "update", "delete")],
        *[("edit-user", "patch", f"{kind}/status", "no") for kind in KINDS],
        *[("view-user", "list", kind, "yes") for kind in KINDS],
        *[("view-user", "create", kind, "no") for kind in KINDS],
        ("edit-user", "create", "gpuqueues", "no"),
        ("edit-user", "patch", "gpunodepools", "no"),
        ("edit-user", "list", "gpuqueues", "yes"),
        ("view-user", "list", "gpuqueues", "yes"),
        ("nobody", "list", "trainingjobs", "no"),
    ],
)
def test_built_in_roles_reach_our_kinds(bound: Team, user: str, verb: str, resource: str, allowed: str):
    group, _, subresource = resource.partition("/")
    options = [f"--subresource={subresource}"] if subresource else []

    answer = bound.kubectl("auth", "can-i", verb, f"{group}.stokehold.dev", f"--as={user}", *options, check=False)

    assert answer.splitlines()[-1].split(" ")[0] == allowed


@pytest.mark.parametrize(
    ("pod", "field"),
    [
        ({"nodeName": "h100-0"}, "nodeName"),
        ({"schedulerName": "mine"}, "schedulerName"),
        ({"schedulingGates": [{"name": "example.com/gate"}]}, "schedulingGates"),
        ({"priorityClassName": "system-node-critical"}, "priorityClassName"),
        ({"hostPID": True}, "hostPID"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"nodeSelector": {"stokehold.dev/pool": "gold"}}, "nodeSelector"),
        ({"tolerations": [{"key": "stokehold.dev/burst", "operator": "Exists"}]}, "tolerations"),
        ({"tolerations": [{"operator": "Exists"}]}, "tolerations"),
        ({"containers": [{"name": "main", "securityContext": {"privileged": True}}]}, "privileged"),
        ({"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]}, "resources"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "hostPath"),
    ],
)
def test_escapes_through_the_pod_template_are_refused_by_the_api_server(team: Team, pod: dict, field: str):
    with pytest.raises(RuntimeError, match=field):
        team.submit("escape", podTemplate={"spec": pod})


def test_data_class_cannot_be_changed(team: Team):
    team.submit("secret", dataClass="restricted")

    with pytest.raises(RuntimeError, match="dataClass"):
        team.patch("secret", {"dataClass": "public"})


def test_exemption_for_ever_is_refused_with_the_longest_that_is_allowed(team: Team):
    desks = Desks(team)
    with pytest.raises(RuntimeError, match=r"spec.idle.exempt.until: 2099-01-01 .* at most 30 days from now"):
        desks.open("mine", idle={"exempt": {"until": "2099-01-01T00:00:00Z", "reason": "mine"}}, running=False)

    desks.open("mine", running=False)

    with pytest.raises(RuntimeError, match=r"spec.idle.exempt.until"):
        desks.patch("mine", {"idle": {"exempt": {"until": "2099-01-01T00:00:00Z", "reason": "mine"}}})


def test_queue_of_another_team_is_never_used(team: Team, cluster: LocalCluster):
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "team-b"}}
    queue = {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "GPUQueue",
        "metadata": {"name": f"b-{team.namespace}"},
        "spec": {"namespaces": selector},
    }
    # The webhook refuses a queue of others; one that is not there yet may come, so this gets past it.
    team.apply(training_job("poach", queueName=f"b-{team.namespace}"), queue)
    try:
        wait_until(lambda: "does not serve namespace" in team.wait_reason("poach", "Misconfigured")["message"], 45)

        assert team.pods("poach") == []
    finally:
        cluster.kubectl("delete", "gq", f"b-{team.namespace}")


def test_missing_priority_class_is_told_at_once(team: Team):
    team.submit("typo", priorityClassName="nope")

    told = team.wait_reason("typo", "Misconfigured", within=6)

    assert "nope" in told["message"]
    assert "Misconfigured" in team.events("typo")


def test_bare_pod_with_our_labels_disturbs_nothing(team: Team):
    labels = {"stokehold.dev/job": "real", "stokehold.dev/attempt": "9", "stokehold.dev/index": "0"}
    spec = {"containers": [{"name": "c", "image": "x"}]}
    fake = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fake", "labels": labels}, "spec": spec}
    team.apply(fake, training_job("real"))

    status = team.wait_phase("real", "Running")

    assert status["attempt"] == 1


def test_replica_that_its_tenant_freed_from_the_queue_is_counted_and_flagged(bound: Team, operator: OperatorProcess):
    bound.submit("holds", numNodes=2, gpusPerNode=8, gpuTypes=["a100-80gb"])
    bound.wait_phase("holds", "Running")
    bound.apply(inference_pool("chat", gpusPerReplica=8, gpuTypes=["a100-80gb"], replicas={"min": 1, "max": 1}))

    def of_pool() -> list[str]:
        return bound.kubectl("get", "pods", "-l", "stokehold.dev/inference-pool=chat", "-o", "name").split()

    wait_until(of_pool, 20)
    (pod,) = of_pool()
    bound.kubectl("patch", pod, "--type=merge", "-p", '{"spec":{"schedulingGates":[]}}', "--as=edit-user")
    wait_until(lambda: "GateRemoved" in bound.events("chat"), 30, lambda: bound.kubectl("get", "gpool", "-o", "yaml"))
    node = bound.kubectl("get", pod, "-o", "jsonpath={.spec.nodeName}")
    there = {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}
    bound.submit("beside", gpusPerNode=1, podTemplate=there)

    assert bound.wait_reason("beside", "WaitingForCapacity")["details"]["available"] == 0
    assert operator.metric("stokehold_pods_past_queue", namespace=bound.namespace, kind="InferencePool") == 1
    bound.kubectl("delete", "gpool", "chat", "--cascade=foreground")


def test_bare_pods_with_our_labels_on_a_node_of_their_own_choice_are_counted_and_flagged(
    team: Team, operator: OperatorProcess
):
    def bare(name: str, labels: dict[str, str], **annotations: str) -> Object:
        asks = {"limits": {"nvidia.com/gpu": "4"}}
        spec = {"nodeName": "a100-0", "containers": [{"name": "c", "image": "x", "resources": asks}]}
        meta = {"name": name, "labels": {"stokehold.dev/job": "real"} | labels, "annotations": annotations}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    first = {"stokehold.dev/attempt": "1", "stokehold.dev/index": "0"}
    team.apply(bare("fake", first, **{"stokehold.dev/gang": '{"size":1}'}), bare("half", {}))
    wait_until(lambda: [pod["status"]["phase"] for pod in team.pods()] == ["Running"] * 2, 10)

    team.submit("real", numNodes=2, gpusPerNode=8, gpuTypes=["a100-80gb"])
    assert team.wait_reason("real", "WaitingForCapacity")["details"]["available"] == 8
    team.submit("witness", gpusPerNode=8, gpuTypes=["a100-80gb"])

    team.wait_phase("witness", "Running")
    assert team.nodes_of("witness") == ["a100-1"]
    assert operator.metric("stokehold_pods_past_queue", namespace=team.namespace, kind="TrainingJob") == 2
    assert team.events("fake") == team.events("half") == ["NotOfTheQueue"]
    team.kubectl("delete", "tj", "real", "witness")
    wait_until(lambda: {pod["metadata"]["name"] for pod in team.pods()} == {"fake", "half"}, 20)


def test_namespace_deletion_in_full_flight_is_clean(team: Team, cluster: LocalCluster, operator):
    team.submit("runs", numNodes=2, gpusPerNode=8, gpuTypes=["h100"])
    team.submit("waits", numNodes=9, gpusPerNode=8)
    team.wait_phase("runs", "Running")
    team.wait_reason("waits", "WaitingForCapacity")
    errors = len(operator.logged("error"))

    cluster.kubectl("delete", "namespace", team.namespace, "--wait=false")

    wait_until(lambda: not cluster.kubectl("get", "ns", team.namespace, "--ignore-not-found"), 60)
    assert len(operator.logged("error")) == errors
    cluster.kubectl("create", "namespace", team.namespace)

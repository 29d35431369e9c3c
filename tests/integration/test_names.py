"""Names that fit the object but not its children: either refused with the limit, or shortened so that all works."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.jobs import Object, Team, wait_until
from kit.serving import inference_pool

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

LONG = "experiment-with-a-very-long-name-that-tells-the-whole-story-of"
DOTTED = ("deep." * 40)[:199] + "e"
NAMES = ["llama-3.1-8b", "7b-sft", "x" * 60, "y" * 63, "z" * 64, DOTTED, LONG + "a", LONG + "b"]


def test_each_accepted_name_gets_pods_and_a_service_that_the_workers_find(team: Team):
    for name in NAMES:
        team.submit(name, numNodes=2, gpusPerNode=1)

    for name in NAMES:
        team.wait_phase(name, "Running", within=30)

    services = {s["metadata"]["name"] for s in json.loads(team.kubectl("get", "services", "-o", "json"))["items"]}
    pods = team.pods()
    assert len(pods) == 2 * len(NAMES)
    assert len(services) == len(NAMES)
    for pod in pods:
        master = next(e["value"] for e in pod["spec"]["containers"][0]["env"] if e["name"] == "MASTER_ADDR")
        assert master.split(".")[1] in services
        assert all(len(value) <= 63 for value in pod["metadata"]["labels"].values())
        assert len(pod["spec"]["hostname"]) <= 63


def test_name_that_is_too_long_is_refused_with_the_limit(team: Team):
    team.kubectl("get", "tj")

    refusal = _refusal(team, "n" * 201)

    assert "metadata.name" in refusal
    assert "200" in refusal


def test_children_keep_their_names_and_go_with_the_job(team: Team):
    team.submit(LONG + "a", numNodes=2)
    team.wait_phase(LONG + "a", "Running")

    team.kubectl("delete", "tj", LONG + "a")

    wait_until(lambda: not team.kubectl("get", "pods,services", "-o", "name"), 60)


def test_odd_but_valid_text_reaches_the_pod_unchanged(team: Team):
    args = ["--prompt=héllo 🚂", "line one\nline two", "$(CHECKPOINT_DIR)"]
    team.submit("odd", args=args, podTemplate={"metadata": {"annotations": {"note": "🚂" * 2000}}})

    team.wait_phase("odd", "Running")

    pod = team.pods("odd")[0]
    assert pod["spec"]["containers"][0]["args"] == args
    assert pod["metadata"]["annotations"]["note"] == "🚂" * 2000


def test_pod_that_the_server_refuses_is_reported_not_retried_in_silence(team: Team):
    team.submit("labelled", volumeMounts=[{"name": "absent", "mountPath": "/a"}])

    wait_until(lambda: team.reason("labelled") == "CreationRefused", 20, lambda: team.status("labelled"))

    assert "volumeMounts" in team.status("labelled")["queue"]["message"]


def test_two_that_want_one_name_and_a_service_of_somebody_else_are_told_and_start_once_the_name_is_free(
    team: Team, operator: OperatorProcess
):
    foreign = {"spec": {"type": "ExternalName", "externalName": "other.example"}, "apiVersion": "v1", "kind": "Service"}
    team.apply(*({**foreign, "metadata": {"name": name}} for name in ("desk", "train-gang")))
    before = _versions(team)
    pool = {"replicas": {"min": 1, "max": 1}, "gpuTypes": ["h100"]}
    team.apply(inference_pool("chat", **pool), _object("DevWorkspace", "lab", image="x"))
    wait_until(lambda: {"chat", "lab"} <= set(_versions(team)), 30)

    team.apply(inference_pool("lab", **pool), *(_object("DevWorkspace", name, image="x") for name in ("chat", "desk")))
    team.submit("train", numNodes=2)

    taken = {
        ("gpool", "lab"): "Service lab exists already and belongs to DevWorkspace lab",
        ("gws", "chat"): "Service chat exists already and belongs to InferencePool chat",
        ("gws", "desk"): "Service desk exists already and was made by somebody else",
        ("tj", "train"): "Service train-gang exists already and was made by somebody else",
    }
    expected = {who: f"NameTaken: {whose}" for who, whose in taken.items()}
    wait_until(
        lambda: {who: _told(team, *who) for who in taken} == expected, 30, lambda: [_told(team, *w) for w in taken]
    )
    assert {name: _versions(team)[name] for name in before} == before
    assert not team.pods("train")

    team.kubectl("delete", "service", "desk", "train-gang")
    said = _why(team, "gpool/lab")
    assert (said["reason"], said["message"]) == ("NameTaken", taken["gpool", "lab"])
    assert "under another name" in said["nextStep"]
    team.wait_phase("train", "Running", within=70)
    wait_until(lambda: team.kubectl("get", "gws", "desk", "-o", "jsonpath={.status.phase}") == "Active", 70)
    assert operator.logged("error") == []
    team.kubectl("delete", "gpool,gws,tj", "--all", "--wait=false")
    wait_until(lambda: not team.pods(), 60, lambda: team.kubectl("get", "pods"))


@pytest.fixture
def long_queue_and_pool(team: Team, cluster: LocalCluster) -> Iterator[None]:
    """All work of the team goes through a queue and to a pool whose names are as long as names can be."""
    queue = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}}
    pool = {"gpuType": "h100", "nodeSelector": {"sim.stokehold.dev/pool": "h100"}}
    made = {"GPUQueue": queue, "GPUNodePool": pool}
    team.apply(*(_object(kind, DOTTED, **spec) for kind, spec in made.items()))
    yield
    team.kubectl("delete", "gpool,gws,tj", "--all", "--wait=false")
    wait_until(lambda: not team.pods(), 60, lambda: team.kubectl("get", "pods"))
    cluster.kubectl("delete", "gq,gnp", DOTTED)


POOLS = ["qwen2.5-7b", "x" * 60, "y" * 63, "7b-" + "v" * 60, DOTTED, LONG + "a", LONG + "b"]
WORKSPACES = ["ada.2", "d" * 52, "e" * 53, "w" * 63, "7b", DOTTED[5:], LONG + "c", LONG + "d"]
CHILDREN = {
    "InferencePool": {"Deployment", "Service", "PodDisruptionBudget"},
    "DevWorkspace": {"StatefulSet", "Service"},
}


@pytest.mark.usefixtures("long_queue_and_pool")
def test_pools_and_workspaces_of_any_accepted_name_run_in_a_queue_and_on_nodes_of_any_name(
    team: Team, operator: OperatorProcess
):
    pools = [inference_pool(name, replicas={"min": 1, "max": 1}, gpuTypes=["h100"]) for name in POOLS]
    desks = [_object("DevWorkspace", name, image="registry.local/jupyter:1", gpuTypes=["h100"]) for name in WORKSPACES]
    team.apply(*pools, *desks)
    team.submit("by-name", queueName=DOTTED, gpuTypes=["h100"])

    team.wait_phase("by-name", "Running", within=30)
    wait_until(lambda: set(_phases(team)) == {"Ready", "Active"}, 30, lambda: _phases(team))
    children = _children(team)
    assert team.status("by-name")["placement"]["pool"] == DOTTED
    assert len(_phases(team)) == len(children) == len(POOLS) + len(WORKSPACES)
    for (kind, _), kinds in children.items():
        assert set(kinds) == CHILDREN[kind]

    operator.kill()
    operator.restart()
    team.submit("after", {"run-for": "1s"}, gpuTypes=["h100"])
    team.wait_phase("after", "Succeeded", within=40)
    assert _children(team) == children


def _object(kind: str, name: str, **spec: object) -> Object:
    return {"apiVersion": "stokehold.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _phases(team: Team) -> list[str]:
    return team.kubectl("get", "gpool,gws", "-o", "jsonpath={.items[*].status.phase}").split()


def _versions(team: Team) -> dict[str, str]:
    """Of the Services: one whose version is the same has been touched by nobody."""
    return {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in team.items("services")}


def _told(team: Team, kind: str, name: str) -> str:
    return team.kubectl("get", kind, name, "-o", "jsonpath={.status.queue.reason}: {.status.queue.message}")


def _why(team: Team, what: str) -> Object:
    command = [sys.executable, "-m", "stokehold.cli.main", "why", what, "-n", team.namespace, "-o", "json"]
    done = subprocess.run(  # noqa: S603 - ourselves
        [*command, "--kubeconfig", str(team.cluster.kubeconfig)], capture_output=True, text=True, check=True, timeout=60
    )
    answer: Object = json.loads(done.stdout)
    return answer


def _children(team: Team) -> dict[tuple[str, str], dict[str, str]]:
    """The children of each object, by kind and name of the object: their names by their kind."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    kinds = "deployments,statefulsets,services,poddisruptionbudgets"
    for child in json.loads(team.kubectl("get", kinds, "-o", "json"))["items"]:
        owner = child["metadata"]["ownerReferences"][0]
        found.setdefault((owner["kind"], owner["name"]), {})[child["kind"]] = child["metadata"]["name"]
    return found


def _refusal(team: Team, name: str) -> str:
    try:
        team.submit(name)
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"a name of {len(name)} characters was accepted")

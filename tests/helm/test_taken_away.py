"""What the operator stands on changes or goes while it runs: schemas, the kinds, the release's namespace."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.installation import CHART, NAMESPACE, RELEASE, ROOT, OperatorProcess, beside, helm, install

from kit.burst import Cloud
from kit.jobs import Team, wait_until
from kit.serving import inference_pool

pytestmark = pytest.mark.cluster

CRDS = ROOT / "crds"
KINDS = sorted(path.stem for path in CRDS.glob("*.yaml"))
KINDS_WITH_OBJECTS = ("trainingjobs", "devworkspaces", "gpunodeclaims", "gpunodepools")


@pytest.fixture
def change_schema(installed: LocalCluster) -> Iterator[Callable[[str, Callable[[Any, Any], None]], None]]:
    """Changes a kind's schema by a function of the properties of spec and of status, for one test."""

    before: list[Any] = []

    def change(plural: str, edit: Callable[[Any, Any], None]) -> None:
        crd = json.loads(installed.kubectl("get", "crd", f"{plural}.stokehold.dev", "-o", "json"))
        del crd["metadata"]["resourceVersion"]
        before.append(copy.deepcopy(crd))
        (version,) = crd["spec"]["versions"]
        properties = version["schema"]["openAPIV3Schema"]["properties"]
        edit(properties["spec"]["properties"], properties["status"]["properties"])
        installed.kubectl("replace", "-f", "-", input=json.dumps(crd))

    yield change
    for crd in before:
        installed.kubectl("replace", "-f", "-", input=json.dumps(crd))


def test_objects_stored_under_an_older_rule_get_their_status_and_go_and_the_others_go_on(
    installed: LocalCluster,
    start_operator: Callable[..., OperatorProcess],
    change_schema: Callable[[str, Callable[[Any, Any], None]], None],
):
    operator = start_operator()
    team, cloud = Team.create(installed, "stricter"), Cloud(installed)
    queue = "q" * 120
    _store_objects(team, cloud, queue)

    def stricter(spec: Any, status: Any) -> None:
        spec["queueName"]["maxLength"] = 60
        del spec["env"]
        spec["shiny"] = {"type": "string"}
        status["phase"]["enum"] = ["Pending", "Starting", "Running", "Restarting", "Succeeded", "Failed"]

    def terser(_: Any, status: Any) -> None:
        status["phase"]["enum"] = ["Requested", "Launched", "Registered"]
        status["conditions"]["items"]["properties"]["reason"]["maxLength"] = 6

    change_schema("trainingjobs", stricter)
    change_schema("gpunodeclaims", terser)
    change_schema(
        "devworkspaces", lambda _, status: status["conditions"]["items"]["properties"]["reason"].update(maxLength=6)
    )
    assert all(_row(installed, kind) for kind in KINDS_WITH_OBJECTS)
    _delete_within_ten_seconds(team, "gws/first", f"gnc/{cloud.claims()[0]['metadata']['name']}")
    operator.stop()
    operator.restart()
    serves = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}}
    team.apply(
        {"apiVersion": "stokehold.dev/v1alpha1", "kind": "GPUQueue", "metadata": {"name": queue}, "spec": serves}
    )
    team.patch("pauses", {"suspend": True})
    team.submit("new", {"run-for": "1s"}, shiny="only the newer version knows it")

    team.wait_phase("long", "Running", within=40)
    team.wait_phase("new", "Succeeded", within=40)
    wait_until(lambda: team.events("pauses") == ["WriteRefused"], 30, lambda: team.events("pauses"))
    assert operator.metric("stokehold_writes_refused_total", kind="TrainingJob", reason="Invalid") >= 1
    assert team.job("long")["spec"]["queueName"] == queue
    assert team.job("new")["spec"]["shiny"]
    assert operator.metric("stokehold_writes_refused_total", kind="GPUNodeClaim", reason="Invalid") >= 1
    assert all(_row(installed, kind) for kind in KINDS_WITH_OBJECTS)
    cloud.declare(max_nodes=3, keepWarm=0, delay="1h")
    names = [f"gnc/{claim['metadata']['name']}" for claim in cloud.claims()]
    _delete_within_ten_seconds(team, "gws/second", *names, "tj/long", "tj/pauses", "tj/new")
    cloud.delete()
    installed.kubectl("delete", "gq", queue)
    assert operator.logged("error") == []


def _store_objects(team: Team, cloud: Cloud, queue: str) -> None:
    cloud.declare(max_nodes=3, keepWarm=3, delay="1h", simulated={"bootTime": "1s"})
    team.submit("long", queueName=queue, env=[{"name": "A", "value": "b"}])
    team.submit("pauses")
    team.apply(*(_desk(name) for name in ("first", "second")))
    team.wait_phase("pauses", "Running", within=40)
    team.wait_reason("long", "Misconfigured")
    wait_until(lambda: cloud.phases() == ["Ready"] * 3, 40, cloud.claims)


def _delete_within_ten_seconds(team: Team, *names: str) -> None:
    team.kubectl("delete", *names, "--timeout=10s")


DROPPED = ("observedGeneration", "activity", "costPerGpuHour", "decisions", "gpus", "usage", "selector")
"""Fields of statuses that an older schema does not have."""


def test_schema_that_lacks_fields_of_ours_costs_no_endless_writes(
    installed: LocalCluster,
    start_operator: Callable[..., OperatorProcess],
    change_schema: Callable[[str, Callable[[Any, Any], None]], None],
):
    operator = start_operator()
    team = Team.create(installed, "older")
    of = {"apiVersion": "stokehold.dev/v1alpha1"}
    workspace = {**of, "kind": "DevWorkspace", "metadata": {"name": "desk"}, "spec": {"image": "x", "idle": {}}}
    pool = {"gpuType": "a100", "nodeSelector": {"sim.stokehold.dev/pool": "a100"}}
    for plural in ("trainingjobs", "devworkspaces", "inferencepools", "gpunodepools"):
        change_schema(plural, lambda _, status: [status.pop(field, None) for field in DROPPED])

    team.submit("runs", gpuTypes=["a100"])
    team.submit("waits", gpuTypes=["a100"], numNodes=9, gpusPerNode=8)
    team.apply(
        workspace,
        inference_pool("chat"),
        {**of, "kind": "GPUNodePool", "metadata": {"name": "a100"}, "spec": pool},
    )
    team.wait_phase("runs", "Running", within=40)
    team.wait_reason("waits", "WaitingForCapacity", within=40)
    at_rest = '{.status.conditions[?(@.type=="MetricsFresh")].reason}'
    wait_until(lambda: team.kubectl("get", "gpool", "chat", "-o", f"jsonpath={at_rest}") == "Missing", 40)
    wait_until(lambda: not written_within(operator, 3), 20)

    assert not written_within(operator, 6)
    assert operator.logged("error") == []
    team.kubectl("delete", "tj,gws,gpool", "--all", "--timeout=30s")
    installed.kubectl("delete", "gnp", "a100")


def test_operator_names_the_kinds_that_are_gone_and_goes_on_when_they_are_back_without_a_restart(
    installed: LocalCluster, start_operator: Callable[..., OperatorProcess]
):
    operator = start_operator()
    team = Team.create(installed, "kinds")
    team.submit("before")
    team.wait_phase("before", "Running")

    installed.kubectl("delete", "-f", str(CRDS), "--wait=true", "--timeout=60s")
    wait_until(lambda: missing(operator) == KINDS, 60, lambda: operator.get("/readyz"))

    helm(installed, "upgrade", RELEASE, str(CHART), values=beside(installed))
    back_after = wait_until(lambda: operator.get("/readyz") == "ok\n", 60, lambda: operator.get("/readyz"))
    team.submit("after", numNodes=2)
    team.wait_phase("after", "Running", within=30)

    assert back_after < 30
    assert_pods_go_with_their_job(team, "after")
    wait_until(lambda: not team.pods("before"), 10)  # its job went with the kind
    assert operator.is_running
    assert operator.logged("error") == []


def test_work_outlives_the_namespace_of_the_release_and_the_next_installation_takes_it_over(
    installed: LocalCluster, start_operator: Callable[..., OperatorProcess]
):
    operator = start_operator("before")
    team = Team.create(installed, "outlives")
    team.submit("runs")
    team.wait_phase("runs", "Running", within=60)
    before = [pod["metadata"]["uid"] for pod in team.live_pods("runs")]

    installed.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
    operator.wait_end(60)  # nobody vouches for it any more
    team.submit("later", {"run-for": "1s"})
    team.kubectl("run", "plain-pod", "--image=x")
    install(installed)
    start_operator("after")

    team.wait_phase("later", "Succeeded", within=60)
    assert [pod["metadata"]["uid"] for pod in team.live_pods("runs")] == before
    assert team.status("runs")["attempt"] == 1


def assert_pods_go_with_their_job(team: Team, name: str) -> None:
    """Although the garbage collector hears of kinds as young as ours are here only after half a minute."""
    before = {pod["metadata"]["uid"] for pod in team.pods(name)}
    team.kubectl("delete", "tj", name)
    team.submit(name, numNodes=2)

    wait_until(lambda: not before & {pod["metadata"]["uid"] for pod in team.pods(name)}, 10)
    team.wait_phase(name, "Running", within=10)
    (service,) = team.items("services", f"stokehold.dev/job={name}")
    assert service["metadata"]["ownerReferences"][0]["uid"] == team.job(name)["metadata"]["uid"]


def _desk(name: str) -> dict[str, Any]:
    spec = {"image": "x"}
    return {"apiVersion": "stokehold.dev/v1alpha1", "kind": "DevWorkspace", "metadata": {"name": name}, "spec": spec}


def _row(cluster: LocalCluster, plural: str) -> list[str]:
    """The first object of a kind as `kubectl get` prints it, with its columns."""
    lines = cluster.kubectl("get", f"{plural}.stokehold.dev", "-A", "-o", "wide").splitlines()
    assert "<invalid>" not in lines[1]
    return lines[1].split()


def missing(operator: OperatorProcess) -> list[str]:
    lines = operator.get("/readyz").splitlines()
    return sorted(line.split(":")[0] for line in lines if "does not know this kind" in line)


def written_within(operator: OperatorProcess, seconds: float) -> float:
    """How many statuses it writes in that time."""

    def so_far() -> float:
        return operator.metric("stokehold_api_request_duration_seconds_count", verb="update")

    before = so_far()
    time.sleep(seconds)
    return so_far() - before

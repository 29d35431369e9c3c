"""A live Prometheus scrapes a live operator and a live agent: panels and alerts have data when they should.

Alerts are asked for by their own expression, without the time that it must hold. Some have their threshold lowered, for
nobody can wait that long here (LOWERED).
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from hack.cluster import LocalCluster
from hack.cluster.certificates import Authority
from hack.engines import Engines
from hack.fault_proxy import FaultProxy
from hack.installation import NAMESPACE, OF_THIS_TREE, SERVICE_ACCOUNT, OperatorProcess

from agent.processes import AgentProcess, World
from hack import binaries
from kit.burst import Cloud
from kit.desks import Desks, offer_volumes
from kit.jobs import Team, training_job, wait_until
from kit.nvml.driver import GPU_IS_LOST, uuid_of
from kit.pod_resources import with_gpus
from kit.prometheus import Prometheus
from kit.serving import inference_pool
from observability.conftest import ALERTS

pytestmark = pytest.mark.cluster

DASHBOARD = Path(__file__).parents[2] / "helm/stokehold/dashboards/overview.json"
INTERVAL = "20s"
NODE = "h100-0"
LOWERED = {
    "StokeholdCycleFails": ("> 3", "> 1"),
    "StokeholdGangWaitsLong": ("> 4 * 3600", "> 2"),
    "StokeholdWatchStale": ("> 120", "> 0.5"),
    "StokeholdWritesRefused": ("> 3", "> 1"),  # each time is later than the one before
    "StokeholdWritesUnknown": ("> 0.05", "> 0"),  # of all operators of the last ten minutes
}
RULES = [rule for path in ALERTS for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
PROVOKED: set[str] = set()
_numbers = itertools.count(1)

# Refuses what the operator writes into the status of TrainingJobs in one namespace.
REFUSE_STATUS = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {namespace}}}
spec:
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
    resourceRules:
      - {{apiGroups: [stokehold.dev], apiVersions: ["*"], operations: [UPDATE], resources: [trainingjobs/status]}}
  validations: [{{expression: "false", message: refused by a test}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {namespace}}}
spec: {{policyName: {namespace}, validationActions: [Deny]}}
"""


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, f"observed-{next(_numbers)}")
    yield made
    made.delete()


@pytest.fixture
def operator(prometheus: Prometheus, start_operator: Callable[..., OperatorProcess]) -> Iterator[OperatorProcess]:
    started = start_operator("observed")
    prometheus.scrape("operator", started.port)
    wait_until(lambda: prometheus.value("max(stokehold_leader)") == 1, 60)
    yield started
    started.stop()  # gives the Lease back: the next one need not wait for its end


@pytest.fixture
def agent(prometheus: Prometheus, cluster: LocalCluster, world: World) -> Iterator[AgentProcess]:
    started = world.start_agent("--node-name", NODE, "--kubeconfig", str(cluster.kubeconfig))
    prometheus.scrape("agent", started.port)
    wait_until(lambda: prometheus.value("stokehold_agent_nvml_responsive") == 1, 30)
    yield started
    prometheus.scrape("agent")
    started.kill()
    cluster.kubectl("delete", "gpunode", NODE, "--ignore-not-found")


def alert_of(name: str) -> str:
    """The alert's own expression, with its threshold lowered where LOWERED says so."""
    (expr,) = (rule["expr"] for rule in RULES if rule["alert"] == name)
    if name in LOWERED:
        assert LOWERED[name][0] in expr
        expr = expr.replace(*LOWERED[name])
    return expr


def assert_fires(prometheus: Prometheus, name: str, within: float = 40, **labels: str) -> None:
    """The expression has a series with these labels within the time."""

    def fires() -> bool:
        return any(labels.items() <= found.items() for found, _ in prometheus.ask(alert_of(name)))

    wait_until(fires, within, lambda: prometheus.ask(alert_of(name)))
    PROVOKED.add(name)


def panels() -> Iterator[tuple[str, str]]:
    """Title and expression of each query of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", INTERVAL)


@pytest.fixture
def busy_fleet(
    prometheus: Prometheus, start_operator: Callable[..., OperatorProcess], team: Team
) -> Iterator[OperatorProcess]:
    """A serving pool with load, a workspace, a job whose node is bought and given back, one whose node is refused."""
    cloud, engines = Cloud(team.cluster, f"cloud-{team.namespace}"), Engines.start()
    started = start_operator("fleet", "--scrape-via", engines.address, "--scrape-interval", "2s")
    prometheus.scrape("operator", started.port)
    cloud.declare(simulated={"availableNodes": 1})
    boots = f'stokehold_node_boot_seconds_count{{pool="{cloud.name}"}}'
    wait_until(lambda: prometheus.ask(boots), 60)  # at 0, or the first boot is no increase
    offer_volumes(team.cluster, 1)
    Desks(team).open("desk")
    team.apply(inference_pool("chat"))
    for name in ("bought", "refused-nodes"):
        spec = {"gpuTypes": ["h100"], "capacity": ["on-demand"], "dataClass": "internal"}
        team.submit(name, {"run-for": "1s"}, gpusPerNode=8, **spec)
    yield started
    team.kubectl("delete", "gpool,gws,statefulsets", "--all", "--wait=false")
    team.empty()
    cloud.delete()
    engines.stop()


def test_every_panel_shows_data(
    cluster: LocalCluster,
    prometheus: Prometheus,
    busy_fleet: OperatorProcess,
    agent: AgentProcess,
    world: World,
    team: Team,
):
    world.nvml[0].utilization = 80
    refusing = Team.create(cluster, f"{team.namespace}-full")
    refusing.kubectl("create", "quota", "none", "--hard=pods=0")
    refusing.submit("refused")
    team.submit("runs", numNodes=2, gpusPerNode=8, gpuTypes=["h100"])
    team.submit("waits", numNodes=9, gpusPerNode=8)
    team.submit("ends", {"run-for": "1s"})
    team.submit("fails", {"run-for": "1s", "exit-code": "1"}, failurePolicy={"maxRestarts": 5})
    unseen = set(panels())

    def all_were_seen() -> bool:
        unseen.difference_update(
            [(title, expr) for title, expr in unseen if prometheus.ask(f"max_over_time(({expr})[3m:1s])")]
        )
        return not unseen

    try:
        wait_until(all_were_seen, 90, lambda: unseen)

        for expr in (
            'sum(max by (pool) (stokehold_gpus{pool="own-h100", state="allocatable"})) == 32',
            'max(stokehold_gpus{gpu_type=~"h100.*", state="used"}) >= 16',
            'sum(max by (queue, reason) (stokehold_jobs_waiting{reason="WaitingForCapacity"})) >= 1',
            'sum(max by (queue, reason) (stokehold_jobs_waiting{reason="CreationRefused"})) == 1',
            "max(DCGM_FI_DEV_GPU_UTIL) == 80",
            'count(stokehold_gpu_activity{verdict="Active"} == 1) == 1',
            'sum(max by (pool) (stokehold_gpu_nodes{agent="heard"})) == 1',
            'sum(stokehold_evictions_total{reason="WorkerFailed"}) >= 1',
            'sum(stokehold_node_cost_total{currency="USD"}) > 0',
            'max(stokehold_workspaces{phase=~"Active|Quiet"}) == 1',
            'max(stokehold_inference_pool_ready_replicas{pool="chat"}) == 1',
        ):
            wait_until(partial(prometheus.ask, expr), 40, partial(str, expr))
    finally:
        refusing.delete()


def test_metrics_keep_the_conventions(operator: OperatorProcess, agent: AgentProcess):
    promtool = binaries.ensure(["prometheus"]).path("promtool")
    ours = [line for line in agent.get("/metrics").splitlines() if "DCGM_FI" not in line]  # those names are NVIDIA's

    for text in (operator.get("/metrics"), "\n".join(ours) + "\n"):
        done = subprocess.run(  # noqa: S603 - our own binary
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_no_operator_fires(prometheus: Prometheus):
    prometheus.scrape("operator")

    assert_fires(prometheus, "StokeholdOperatorDown")


def test_a_standby_whose_leader_has_died_fires_until_it_leads(
    prometheus: Prometheus, operator: OperatorProcess, start_operator: Callable[..., OperatorProcess]
):
    standby = start_operator("standby")
    prometheus.scrape("operator", standby.port)
    wait_until(lambda: prometheus.value("max(stokehold_leader)") == 0, 30)

    operator.kill()
    assert_fires(prometheus, "StokeholdNoLeader", within=5)

    wait_until(lambda: not prometheus.ask(alert_of("StokeholdNoLeader")), 60)


def test_a_clock_that_was_moved_and_a_certificate_that_became_none_fire(
    cluster: LocalCluster, prometheus: Prometheus, tmp_path: Path
):
    (tmp_path / "sitecustomize.py").write_text("import time; real = time.time; time.time = lambda: real() + 7200\n")
    pair = Authority.create(tmp_path, "ca").server(tmp_path, "webhook")
    listen = ("--webhook-address", "127.0.0.1", "--webhook-port", str(cluster.layout.ports["webhook"]))
    options = (*listen, "--webhook-cert", str(pair.certificate), "--webhook-key", str(pair.key))
    program = ("env", f"PYTHONPATH={tmp_path}", *OF_THIS_TREE)
    moved = OperatorProcess.start(cluster, "moved", tmp_path / "moved.log", options, program)
    try:
        prometheus.scrape("operator", moved.port)
        pair.certificate.write_text("garbage")

        assert_fires(prometheus, "StokeholdClockMoved")
        assert_fires(prometheus, "StokeholdWebhookCertificate")
    finally:
        moved.stop()


def test_the_age_of_each_watch_is_told(prometheus: Prometheus, operator: OperatorProcess):
    for resource in ("pods", "nodes", "trainingjobs"):
        assert_fires(prometheus, "StokeholdWatchStale", resource=resource)


def test_a_policy_that_refuses_statuses_fires(
    cluster: LocalCluster, prometheus: Prometheus, operator: OperatorProcess, team: Team
):
    policy = REFUSE_STATUS.format(namespace=team.namespace)
    team.submit("told", suspend=True)
    team.wait_phase("told", "Suspended")
    cluster.kubectl("apply", "-f", "-", input=policy)
    try:
        change = ("patch", "tj", "told", "--subresource=status", "--type=merge", "-p", '{"status": {"attempt": 9}}')
        wait_until(lambda: not team.kubectl(*change, "--dry-run=server", check=False), 30)  # the API server knows it
        team.submit("waits", numNodes=9, gpusPerNode=8)

        assert_fires(prometheus, "StokeholdWritesRefused", within=90, action="WriteStatus")
        again = {"kind": "TrainingJob", "reason": "Invalid"}
        wait_until(lambda: operator.metric("stokehold_writes_refused_total", **again) > 2, 40)
        assert team.events("waits") == ["WriteRefused"]  # one, though it was refused again and again
    finally:
        cluster.kubectl("delete", "-f", "-", input=policy)


@pytest.fixture
def any_data_class(cluster: LocalCluster) -> Iterator[Callable[[], None]]:
    """The API server takes any dataClass of TrainingJobs, until the returned function is called: an upgrade."""
    crd, field = (
        "trainingjobs.stokehold.dev",
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/dataClass",
    )
    schema = json.loads(cluster.kubectl("get", "crd", crd, "-o", "json"))["spec"]["versions"][0]["schema"]
    strict = schema["openAPIV3Schema"]["properties"]["spec"]["properties"]["dataClass"]

    def serve(declared: object) -> None:
        patch = json.dumps([{"op": "replace", "path": field, "value": declared}])
        cluster.kubectl("patch", "crd", crd, "--type=json", "-p", patch)

    serve({"type": "string", "maxLength": 63})
    yield partial(serve, strict)
    serve(strict)


def test_a_job_stored_under_an_older_rule_is_told_that_it_cannot_be_read(
    prometheus: Prometheus, operator: OperatorProcess, team: Team, any_data_class: Callable[[], None]
):
    old = json.dumps(training_job("old", dataClass="Top Secret"))
    wait_until(lambda: team.kubectl("apply", "-f", "-", text=old, check=False), 30)
    any_data_class()

    assert_fires(prometheus, "StokeholdUnreadableObjects", kind="TrainingJob")
    wait_until(lambda: team.events("old"), 20)
    team.submit("new", {"run-for": "1s"})
    team.wait_phase("new", "Succeeded")
    assert team.events("old") == ["Unreadable"]

    team.kubectl("delete", "tj", "old", "--timeout=10s")
    wait_until(lambda: not prometheus.ask(alert_of("StokeholdUnreadableObjects")), 20)


# A fault of our own: one planner raises whatever it is asked.
BROKEN = """
from stokehold.planning.autoscaling import plan

def raises(*_):
    raise RuntimeError("put in by a test")

plan.plan_autoscaling = raises
from stokehold.cli.main import main
main()
"""


def test_a_planner_that_raises_fires_by_its_name_and_the_others_go_on(
    cluster: LocalCluster, prometheus: Prometheus, team: Team, tmp_path: Path
):
    (tmp_path / "broken.py").write_text(BROKEN)
    program = (sys.executable, str(tmp_path / "broken.py"))
    operator = OperatorProcess.start(cluster, "broken", tmp_path / "broken.log", program=program)
    try:
        prometheus.scrape("operator", operator.port)
        team.submit("goes-on", {"run-for": "1s"})

        assert_fires(prometheus, "StokeholdCycleFails", planner="autoscaling")
        team.wait_phase("goes-on", "Succeeded")
    finally:
        operator.stop()


def test_whatever_waits_fires_by_its_kind(prometheus: Prometheus, operator: OperatorProcess, team: Team):
    assert prometheus.ask(alert_of("StokeholdGangWaitsLong")) == []

    team.submit("waits", numNodes=9, gpusPerNode=8)
    Desks(team).open("waits", gpuTypes=["l40s"])
    team.apply(inference_pool("waits", gpuTypes=["l40s"]))

    try:
        for kind in ("TrainingJob", "DevWorkspace", "InferencePool"):
            assert_fires(prometheus, "StokeholdGangWaitsLong", kind=kind)
    finally:
        team.kubectl("delete", "gpool,gws", "--all", "--wait=false")


def test_a_dozen_deleted_pods_are_a_storm(prometheus: Prometheus, operator: OperatorProcess, team: Team):
    names = [f"victim-{number}" for number in range(12)]
    team.apply(*(training_job(name, {"stops-after": "10s"}, gpusPerNode=1) for name in names))
    wait_until(lambda: all(team.phase(name) == "Running" for name in names), 60)

    team.kubectl("delete", "pods", "--all", "--wait=false")

    assert_fires(prometheus, "StokeholdEvictionStorm", reason="PodLost")


def test_a_provider_without_capacity_fires_for_its_pool(
    prometheus: Prometheus, start_operator: Callable[..., OperatorProcess], team: Team
):
    operator = start_operator("buying", "--burst-age", "2s")
    prometheus.scrape("operator", operator.port)
    cloud = Cloud(team.cluster, f"cloud-{team.namespace}")
    try:
        cloud.declare(max_nodes=6, simulated={"availableNodes": 0})
        team.submit("gang", numNodes=5, gpusPerNode=8, gpuTypes=["h100"], dataClass="internal")

        assert_fires(prometheus, "StokeholdBurstFailing", within=60, pool=cloud.name, reason="Capacity")
    finally:
        team.empty()
        cloud.delete()
        operator.stop()


def test_a_provider_that_makes_two_machines_for_one_claim_fires_for_its_pool(
    prometheus: Prometheus, start_operator: Callable[..., OperatorProcess], team: Team
):
    operator = start_operator("buying-twice", "--burst-age", "1s", "--orphan-after", "1s")
    prometheus.scrape("operator", operator.port)
    cloud = Cloud(team.cluster, f"cloud-{team.namespace}")
    try:
        cloud.declare(max_nodes=5, simulated={"duplicatePercent": 100})
        wait_until(lambda: prometheus.ask(f'stokehold_orphan_machines_total{{pool="{cloud.name}"}}'), 30)
        team.submit("gang", numNodes=5, gpusPerNode=8, gpuTypes=["h100"], dataClass="internal")

        assert_fires(prometheus, "StokeholdOrphanMachines", within=60, pool=cloud.name)
    finally:
        team.empty()
        cloud.delete()
        operator.stop()


def test_workspaces_that_all_turn_quiet_at_once_fire_and_are_refused_their_stop(
    prometheus: Prometheus, operator: OperatorProcess, world: World, team: Team
):
    desks = Desks(team)
    offer_volumes(team.cluster, 8)  # one is still another's
    names = [f"desk-{number}" for number in range(5)]
    try:
        for name in names:
            desks.open(name, gpuTypes=["h100"])
        for name in names:
            desks.wait_phase(name, "Active", "Quiet")
        pods = [pod for name in names for pod in desks.pods(name)]
        (node,) = {pod["spec"]["nodeName"] for pod in pods}
        names_of_pods = [pod["metadata"]["name"] for pod in pods]
        world.nvml.count = len(pods)
        world.kubelet.give(*(with_gpus(team.namespace, pod, uuid_of(index)) for index, pod in enumerate(names_of_pods)))
        for pod in pods:
            world.log_pod(team.namespace, pod["metadata"]["name"], pod["metadata"]["uid"])
        world.start_agent("--kubeconfig", str(team.cluster.kubeconfig), "--node-name", node, "--heartbeat", "1s")

        assert_fires(prometheus, "StokeholdMassIdle", within=60)
        assert_fires(prometheus, "StokeholdWorkspaceStopRefused", reason="MassIdle")
        assert {desks.phase(name) for name in names} == {"Quiet"}
    finally:
        desks.close()
        team.cluster.kubectl("delete", "gpunodes", "--all", check=False)


def test_writes_that_get_no_answer_fire(
    cluster: LocalCluster, prometheus: Prometheus, start_operator: Callable[..., OperatorProcess], team: Team
):
    with FaultProxy.start(cluster, "unanswered") as proxy:
        direct = cluster.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        operator = start_operator("unanswered", kubeconfig=proxy.kubeconfig(direct))
        prometheus.scrape("operator", operator.port)
        team.submit("ends", {"run-for": "1s"})
        team.wait_phase("ends", "Succeeded")
        fault = proxy.hold(lambda call: call.is_write and call.resource == "pods")
        team.submit("starts")

        assert_fires(prometheus, "StokeholdWritesUnknown", within=60)
        proxy.end(fault)
        team.wait_phase("starts", "Running")
        team.empty()  # while its operator is there
        operator.stop()  # before its proxy goes, or it would be in the middle of a handshake


def test_an_agent_that_wrote_last_long_ago_fires(
    cluster: LocalCluster, prometheus: Prometheus, operator: OperatorProcess, agent: AgentProcess
):
    wait_until(lambda: prometheus.value('max(stokehold_gpu_nodes{agent="heard"})') == 1, 30)
    agent.kill()

    old = json.dumps({"status": {"heartbeatTime": "2026-01-01T00:00:00Z"}})
    cluster.kubectl("patch", "gpunode", NODE, "--subresource=status", "--type=merge", "-p", old)

    assert_fires(prometheus, "StokeholdAgentSilent")


def test_a_driver_that_hangs_fires_for_its_node(prometheus: Prometheus, agent: AgentProcess, world: World):
    world.nvml.hang("nvmlDeviceGetUtilizationRates")

    assert_fires(prometheus, "StokeholdAgentBlind", node=NODE)


def test_a_lost_gpu_fires_with_its_node(prometheus: Prometheus, agent: AgentProcess, world: World):
    assert prometheus.ask(alert_of("StokeholdGpuLost")) == []

    world.nvml.fail("*", GPU_IS_LOST, gpu=0)

    assert_fires(prometheus, "StokeholdGpuLost", node=NODE)


def test_prometheus_evaluates_every_alert_without_an_error(prometheus: Prometheus):
    wait_until(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()), 30)

    seen = prometheus.rules()
    assert {rule["name"] for rule in seen} == {rule["alert"] for rule in RULES}
    assert [(rule["name"], rule.get("lastError")) for rule in seen if rule["health"] != "ok"] == []


def test_every_alert_was_provoked():
    assert {rule["alert"] for rule in RULES} == PROVOKED

"""The chart as text: what helm renders, and what it refuses. Needs helm, no cluster."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.installation import CHART

from hack import binaries
from stokehold.controllers.admission import USER_KINDS

pytestmark = pytest.mark.cluster  # helm is one of the built binaries

Object = dict[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("helm")


def run_helm(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    homes = {f"HELM_{kind}_HOME": str(home) for kind in ("CACHE", "CONFIG", "DATA")}
    command = [binaries.ensure(["helm"]).path("helm"), *arguments]
    return subprocess.run(command, env=homes, capture_output=True, text=True, check=False)  # noqa: S603 - our own helm


def render(home: Path, *sets: str, chart: Path = CHART) -> list[Object]:
    done = run_helm(home, "template", "gpu", str(chart), "-n", "gpus", *(p for s in sets for p in ("--set-json", s)))
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(rendered: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [o for o in rendered if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def test_lint_finds_nothing(home: Path):
    done = run_helm(home, "lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("operatr.replicas=3", "'operatr' not allowed"),
        ("operator.replica=3", "'replica' not allowed"),
        ("operator.serviceAccount.nmae=x", "'nmae' not allowed"),
        ("operator.resources.request.cpu=1", "'request' not allowed"),
        ("webhook.certificate.issuerRef.nam=x", "'nam' not allowed"),
        ("monitoring.monitors.enable=true", "'enable' not allowed"),
        ("webhook.failurePolicy=Maybe", "must be one of 'Ignore', 'Fail'"),
        ("webhook.url=http://127.0.0.1:1", "webhook/url"),
        ("operator.replicas=two", "operator/replicas"),
        ("agent.interval=15", "agent/interval"),
        ("image.digest=latest", "image/digest"),
    ],
)
def test_a_wrong_value_is_refused_by_name(home: Path, setting: str, named: str):
    done = run_helm(home, "template", "gpu", str(CHART), "--set", setting)

    assert done.returncode != 0
    assert named in done.stderr


def test_a_parent_chart_may_hand_its_global_values_down(home: Path):
    assert render(home, 'global={"imageRegistry": "x"}')


def test_each_kind_that_users_write_has_a_webhook_at_the_path_that_the_operator_serves(home: Path):
    webhooks = one(render(home), "ValidatingWebhookConfiguration")["webhooks"]

    paths = {hook["clientConfig"]["service"]["path"]: hook["rules"][0]["resources"] for hook in webhooks}
    assert paths == {f"/{kind.RESOURCE.plural}": [kind.RESOURCE.plural] for kind in USER_KINDS}


def test_webhooks_touch_nothing_but_the_specs_of_our_own_kinds(home: Path):
    for hook in one(render(home), "ValidatingWebhookConfiguration")["webhooks"]:
        (rule,) = hook["rules"]
        assert rule["apiGroups"] == ["stokehold.dev"]
        assert "/" not in rule["resources"][0]
        assert rule["operations"] == ["CREATE", "UPDATE"]


def test_cert_manager_owns_the_certificate_when_asked(home: Path):
    rendered = render(home, 'webhook.certificate={"source": "CertManager"}')

    certificate, configuration = one(rendered, "Certificate"), one(rendered, "ValidatingWebhookConfiguration")
    injected = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert injected == f"gpus/{certificate['metadata']['name']}"
    assert "caBundle" not in configuration["webhooks"][0]["clientConfig"]
    assert "Secret" not in {o["kind"] for o in rendered}
    volume = one(rendered, "Deployment")["spec"]["template"]["spec"]["volumes"][0]
    assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]


def test_no_container_may_more_than_it_needs(home: Path):
    rendered = render(home)
    for kind in ("Deployment", "DaemonSet"):
        pod = one(rendered, kind)["spec"]["template"]["spec"]
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "nvidia.com/gpu" not in str(container["resources"])
    operator = one(rendered, "Deployment")["spec"]["template"]["spec"]
    assert operator["securityContext"]["runAsNonRoot"]
    assert "hostPID" not in operator
    mounts = one(rendered, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert all(mount["readOnly"] for mount in mounts)


def test_secrets_are_read_in_our_own_namespace_alone_and_nobody_gets_a_wildcard(home: Path):
    roles = [o for o in render(home) if o["kind"] in ("Role", "ClusterRole")]
    rules = [(role, rule) for role in roles for rule in role["rules"]]
    on_secrets = [(role["kind"], rule["verbs"]) for role, rule in rules if "secrets" in rule["resources"]]
    assert on_secrets == [("Role", ["get"])]
    assert not any("*" in str(rule) for _, rule in rules)


def test_dashboards_and_alerts_are_taken_from_their_folders_as_they_are(home: Path, tmp_path: Path):
    chart = tmp_path / "stokehold"
    for path in (p for p in CHART.rglob("*") if p.is_file()):
        copy = chart / path.relative_to(CHART)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for folder in ("dashboards", "alerts"):
        (chart / folder).mkdir(exist_ok=True)
    (chart / "dashboards" / "probe.json").write_text('{"title": "{{pool}}"}\n')
    alert = {"alert": "X", "expr": "up == 0", "annotations": {"summary": "{{ $labels.pod }} is gone"}}
    (chart / "alerts" / "probe.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [alert]}]}))

    on = ("monitoring.dashboards.enabled=true", "monitoring.rules.enabled=true", "monitoring.monitors.enabled=true")
    rendered = render(home, *on, chart=chart)

    config = one(rendered, "ConfigMap", "gpu-dashboard-probe")
    assert config["data"] == {"probe.json": '{"title": "{{pool}}"}\n'}
    assert one(rendered, "PrometheusRule", "gpu-probe")["spec"]["groups"][0]["rules"] == [alert]
    service = one(rendered, "Service")
    selector = one(rendered, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= service["metadata"]["labels"].items()


def test_alerts_link_to_their_runbooks_where_these_are_served(home: Path):
    page = "https://wiki.example.com/stokehold/runbooks"
    rendered = render(home, "monitoring.rules.enabled=true", f'monitoring.rules.runbookUrl="{page}"')

    groups = (group for o in rendered if o["kind"] == "PrometheusRule" for group in o["spec"]["groups"])
    alerts = {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"]}
    assert len(alerts) > 10
    links = {name: told["runbook_url"] for name, told in alerts.items()}
    assert links == {name: f"{page}#{name.lower()}" for name in alerts}


def test_agent_leaves_a_node_whose_driver_is_about_to_be_replaced(home: Path):
    spec = one(render(home), "DaemonSet")["spec"]["template"]["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]

    paused = ["paused-for-driver-upgrade", "paused-for-mig-change"]
    for term in terms:  # one of several is enough for a node, so each must have them
        absent_or_not_paused = {m["key"]: m["values"] for m in term["matchExpressions"] if m["operator"] == "NotIn"}
        assert absent_or_not_paused["nvidia.com/gpu.deploy.client"] == paused
        assert absent_or_not_paused["nvidia.com/gpu.deploy.dcgm-exporter"] == paused


@pytest.mark.parametrize("serves", [True, False])
def test_an_operator_that_serves_admission_goes_on_until_nobody_is_sent_to_it(home: Path, serves: bool):
    deployment = one(render(home, f"webhook.enabled={str(serves).lower()}"), "Deployment")

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container.get("lifecycle") == ({"preStop": {"sleep": {"seconds": 5}}} if serves else None)

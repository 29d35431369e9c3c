"""The commands on a real control plane, as a user who has the role `edit` in one namespace and nothing else."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.jobs import Team, wait_until
from kit.operators import one_operator

pytestmark = pytest.mark.cluster

SNOOZE = "stokehold.dev/snooze"
_numbers = itertools.count(1)


class Person:
    """Somebody with a kubeconfig who types commands."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stokehold.cli.main", *arguments, "--kubeconfig", str(self.kubeconfig)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - ourselves

    def reads(self, *arguments: str) -> Any:
        """The JSON that a command in the own namespace prints."""
        done = self.run(*arguments, "-n", self.namespace, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def fails(self, *arguments: str, code: int = 1) -> str:
        """What a command that must fail says."""
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture(scope="module")
def operator(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with one_operator(cluster, tmp_path_factory.mktemp("operator")) as running:
        yield running


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, f"cli-{next(_numbers)}")
    yield made
    made.kubectl("delete", "gws", "--all", "--cascade=foreground", "--timeout=60s")  # their pods come back otherwise
    made.delete()


@pytest.fixture
def user(cluster: LocalCluster, team: Team) -> Person:
    team.kubectl("create", "rolebinding", "edit", "--clusterrole=edit", f"--user=user-of-{team.namespace}")
    return Person(cluster.kubeconfig_for(f"user-of-{team.namespace}"), team.namespace)


def a_workspace(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "DevWorkspace",
        "metadata": {"name": name},
        "spec": {"image": "registry.local/jupyter:1", "gpus": 1, **spec},
    }


def workspace(team: Team, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(team.kubectl("get", "gws", name, "-o", "json", "--show-managed-fields"))
    return found


def test_get_and_queue_show_what_runs_and_what_waits_in_order(operator: OperatorProcess, team: Team, user: Person):
    team.submit("runs", numNodes=2, gpusPerNode=8, gpuTypes=["h100"])
    team.submit("first", numNodes=9, gpusPerNode=8)
    team.submit("typo", priorityClassName="nope")
    team.wait_phase("runs", "Running")
    team.wait_reason("first", "WaitingForCapacity")
    team.wait_reason("typo", "Misconfigured")

    items = {item["name"]: item for item in user.reads("get")["items"]}
    waiting = user.reads("queue")["items"]

    assert items["runs"]["phase"] == "Running"
    assert items["runs"]["gpus"] == 16
    assert len(items["runs"]["nodes"]) == 2
    assert items["first"]["reason"] == "WaitingForCapacity"
    assert [(row["name"], row["position"]) for row in waiting] == [("first", 1), ("typo", None)]
    assert all(row["nextStep"] and row["waitingSince"] for row in waiting)
    table = user.run("queue", "-n", user.namespace).stdout.splitlines()
    assert table[0].split() == ["POSITION", "QUEUE", "KIND", "NAME", "GPUS", "WAITS", "REASON", "MESSAGE"]
    assert "first" in table[1]
    assert user.reads("why", "tj/first")["reason"] == "WaitingForCapacity"
    assert "is Pending: WaitingForCapacity" in user.run("why", "first", "-n", user.namespace).stdout
    assert user.reads("queue", "--queue", "another")["items"] == []
    assert {item["kind"] for item in user.reads("get", "tj")["items"]} == {"TrainingJob"}


def test_an_empty_namespace_is_no_error(user: Person):
    done = user.run("get", "-n", user.namespace)

    assert (done.returncode, done.stdout) == (0, "")
    assert f"nothing in namespace {user.namespace}" in done.stderr


def test_all_namespaces_need_the_right_for_all(cluster: LocalCluster, team: Team, user: Person):
    team.submit("waits", numNodes=9, gpusPerNode=8)

    assert "you may not list" in user.fails("queue", "-A")
    administrator = Person(cluster.kubeconfig, team.namespace)
    listed = json.loads(administrator.run("queue", "-A", "-o", "json").stdout)["items"]
    assert (team.namespace, "waits") in {(row["namespace"], row["name"]) for row in listed}


def test_top_counts_on_nodes_where_it_may_and_else_says_what_is_missing(
    cluster: LocalCluster, operator: OperatorProcess, team: Team, user: Person
):
    team.submit("runs", numNodes=2, gpusPerNode=8, gpuTypes=["h100"])
    team.wait_phase("runs", "Running")

    without = user.run("top")
    assert (without.returncode, without.stdout) == (0, "")
    assert "stokehold-fleet-viewer" in without.stderr

    binding = f"viewer-{team.namespace}"
    cluster.kubectl(
        "create",
        "clusterrolebinding",
        binding,
        "--clusterrole=stokehold-fleet-viewer",
        f"--user=user-of-{team.namespace}",
    )
    try:
        done = user.run("top", "-o", "json")
        pools = {row["gpuType"]: row for row in json.loads(done.stdout)["items"]}
    finally:
        cluster.kubectl("delete", "clusterrolebinding", binding)
    (h100,) = (row for name, row in pools.items() if "h100" in name)
    assert (h100["nodes"], h100["gpus"], h100["active"]) == (4, 32, None)
    assert h100["used"] >= 16
    assert h100["used"] + h100["free"] == 32
    assert done.stderr == ""


def test_a_snooze_is_the_users_patch_and_is_bounded(operator: OperatorProcess, team: Team, user: Person):
    team.apply(a_workspace("nb", idle={"snooze": {"max": "3h", "budgetPerDay": "3h"}}))
    wait_until(lambda: workspace(team, "nb").get("status", {}).get("phase") == "Active", 40)

    told = user.reads("snooze", "nb", "2h")
    until = datetime.fromisoformat(told["requestedUntil"])
    written = workspace(team, "nb")

    assert written["metadata"]["annotations"][SNOOZE] == told["requestedUntil"]
    assert timedelta(minutes=118) < until - datetime.now(UTC) <= timedelta(hours=2)  # noqa: TID251 - against the clock
    managers = {entry["manager"] for entry in written["metadata"]["managedFields"]}
    assert "stokehold-cli" in managers
    assert told["answered"]
    assert told["snoozedUntil"] == told["requestedUntil"]
    assert "is not stopped for being idle before" in user.run("snooze", "gws/nb", "90m", "-n", user.namespace).stdout
    user.reads("snooze", "nb", "170m")
    spent = user.reads("snooze", "nb", "3h")
    assert spent["answered"]
    assert spent["snoozedUntil"] < spent["requestedUntil"]
    too_long = user.fails("snooze", "nb", "4h", "-n", user.namespace)
    assert "spec.idle.snooze.max" in too_long
    assert "3h" in too_long


def test_a_stopped_workspace_is_resumed_not_snoozed(team: Team, user: Person):
    team.apply(a_workspace("nb", running=False))

    assert "stokehold resume nb" in user.fails("snooze", "nb", "1h", "-n", user.namespace)
    assert user.reads("resume", "nb") == {"namespace": user.namespace, "name": "nb", "wasRunning": False}
    assert workspace(team, "nb")["spec"]["running"] is True
    assert user.reads("resume", "nb")["wasRunning"] is True


def test_who_may_only_look_cannot_snooze(cluster: LocalCluster, team: Team):
    team.apply(a_workspace("nb"))
    team.kubectl("create", "rolebinding", "view", "--clusterrole=view", "--user=looker")
    looker = Person(cluster.kubeconfig_for("looker"), team.namespace)

    assert looker.reads("get")["items"][0]["name"] == "nb"
    said = looker.fails("snooze", "nb", "1h", "-n", team.namespace)
    assert "you may not change the DevWorkspace nb" in said
    assert SNOOZE not in workspace(team, "nb")["metadata"].get("annotations", {})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["snooze", "nope", "1h"], 1, "no DevWorkspace nope"),
        (["resume", "nope"], 1, "no DevWorkspace nope"),
        (["why", "nope"], 1, "no TrainingJob nope"),
        (["snooze", "nb", "soon"], 2, "DURATION must be a duration"),
        (["snooze", "nb", "-1h"], 2, "No such option"),
        (["snooze", "nb", "5s"], 2, "a minute or more"),
        (["snooze", "tj/nb", "1h"], 2, "no workspace"),
        (["get", "pods"], 2, "tj (TrainingJob)"),
        (["why", "pod/x"], 2, "tj (TrainingJob)"),
        (["get", "-o", "yaml"], 2, "'yaml' is not one of"),
    ],
)
def test_mistakes_are_told_in_one_sentence(user: Person, arguments: list[str], code: int, words: str):
    assert words in user.fails(*arguments, "-n", user.namespace, code=code)


def test_another_namespace_and_another_context_are_refused_by_name(user: Person, tmp_path: Path):
    assert "you may not read devworkspaces in namespace kube-system" in user.fails(
        "snooze", "x", "1h", "-n", "kube-system"
    )
    assert "no context nowhere" in user.fails("get", "--context", "nowhere")

    config = yaml.safe_load(user.kubeconfig.read_text())
    second = {"name": "second", "context": {**config["contexts"][0]["context"], "namespace": user.namespace}}
    config |= {"contexts": [*config["contexts"], second]}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    there = Person(path, "")
    assert f"nothing in namespace {user.namespace}" in there.run("get", "--context", "second").stderr
    assert "namespace default" in there.fails("get")


def test_no_server_and_no_kubeconfig_are_told_apart(tmp_path: Path, user: Person):
    config = yaml.safe_load(user.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    dead = tmp_path / "dead"
    dead.write_text(yaml.safe_dump(config))

    assert "did not answer" in Person(dead, "").fails("get", "-n", "x")
    assert "Set KUBECONFIG" in Person(tmp_path / "missing", "").fails("get", "-n", "x")


def test_kubectl_finds_the_plugin(cluster: LocalCluster, user: Person):
    scripts = Path(sys.executable).parent
    command = [cluster.bin("kubectl"), "stokehold", "get", "-n", user.namespace, "--kubeconfig", user.kubeconfig]

    done = subprocess.run(  # noqa: S603 - our own kubectl
        command, env={"PATH": str(scripts)}, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert "nothing in namespace" in done.stderr

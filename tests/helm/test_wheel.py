"""What users install: the wheel, run under the chart's service accounts, is never refused a right."""

import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hack.cluster import LocalCluster, ports
from hack.installation import ROOT, OperatorProcess, kubeconfig_for_agent

import stokehold
from hack import wheel
from kit.jobs import Team, wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stokehold` from the wheel."""
    return wheel.install(tmp_path_factory.mktemp("wheel"))


def test_the_program_is_the_wheels_and_not_this_trees(program: Path):
    assert wheel.module_of(program.parent / "python") != Path(stokehold.__file__)


def test_the_wheel_carries_the_kinds(program: Path):
    listed = {path.name for path in (program.parent.parent).rglob("stokehold/crds/*.yaml")}

    assert listed == {path.name for path in (ROOT / "crds").glob("*.yaml")}


def test_operator_and_agent_from_the_wheel_are_refused_no_right(installed: LocalCluster, program: Path, tmp_path: Path):
    refused_before = installed.refused_requests()
    operator = OperatorProcess.start(installed, "from-wheel", tmp_path / "operator.log", program=[str(program)])
    try:
        live_through_everything(Team.create(installed, "from-wheel"))
        with agent(installed, program, "h100-0", tmp_path / "agent.log") as metrics:
            wait_until(lambda: "h100-0" in installed.kubectl("get", "gpunodes", "-o", "name"), 60)
            assert "stokehold_agent_failed_writes_total 0.0" in metrics()

        assert operator.metric("stokehold_api_request_duration_seconds_count", code="201") > 0
        assert operator.metric("stokehold_api_request_duration_seconds_count", code="403") == 0
        assert operator.metric("stokehold_admissions_total", outcome="allowed") == 1
        assert operator.logged("error") == []
        assert installed.refused_requests() == refused_before
    finally:
        operator.stop()


def live_through_everything(team: Team) -> None:
    """A gang that succeeds, a job that restarts and fails, one that is deleted while it runs, one that waits."""
    team.submit("gang", {"run-for": "1s"}, numNodes=2, gpusPerNode=8, priorityClassName="train-normal")
    team.submit("fails", {"run-for": "0s", "exit-code": "1"}, failurePolicy={"maxRestarts": 1})
    team.submit("deleted")
    team.submit("waits", gpusPerNode=8, numNodes=9)
    wait_until(lambda: team.status("deleted").get("phase") == "Running", 60)
    team.kubectl("delete", "tj", "deleted")
    wait_until(lambda: team.status("waits").get("queue", {}).get("reason"), 60)
    wait_until(lambda: team.status("gang").get("phase") == "Succeeded", 60, lambda: team.status("gang"))
    wait_until(lambda: team.status("fails").get("phase") == "Failed", 90, lambda: team.status("fails"))
    team.delete()


@contextmanager
def agent(cluster: LocalCluster, program: Path, node: str, log: Path) -> Iterator[Callable[[], str]]:
    """`stokehold agent` on a machine without a driver; gives what it serves."""
    (port,) = ports.choose(["agent"]).values()
    options = ["--kubeconfig", kubeconfig_for_agent(cluster, node), "--node-name", node]
    command = [program, "agent", *options, "--metrics-address", f"127.0.0.1:{port}"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own program
    try:
        yield lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    finally:
        process.terminate()
        assert process.wait(20) == 0, log.read_text()

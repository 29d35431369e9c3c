"""What users install: the wheel, run under the chart's service accounts, is never refused a right."""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hack.cluster import LocalCluster, ports
from hack.installation import ROOT, OperatorProcess, kubeconfig_for_agent

import stokehold
from kit.jobs import Team, wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stokehold` from the wheel, in a virtual environment of its own.

    Its dependencies are those of this environment, which are the locked ones; its code is the wheel's alone.
    """
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], cwd=ROOT)
    run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("stokehold-*.whl")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel])
    own = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    (own / "locked.pth").write_text(str(Path(pytest.__file__).parent.parent) + "\n")
    where = run([python, "-c", "import stokehold; print(stokehold.__file__)"], cwd=folder).strip()
    assert Path(where).is_relative_to(own)
    assert where != stokehold.__file__
    return python.parent / "stokehold"


def test_the_wheel_carries_the_kinds(program: Path):
    listed = {path.name for path in (program.parent.parent).rglob("stokehold/crds/*.yaml")}

    assert listed == {path.name for path in (ROOT / "crds").glob("*.yaml")}


def test_operator_and_agent_from_the_wheel_are_refused_no_right(installed: LocalCluster, program: Path, tmp_path: Path):
    refused_before = refused(installed)
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
        assert refused(installed) == refused_before
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


def refused(cluster: LocalCluster) -> float:
    """How many requests the API server has answered with 403, whoever made them."""
    samples = re.findall(
        r'^authorization_attempts_total\{result="(.*)"\} (.*)$',
        cluster.kubectl("get", "--raw", "/metrics"),
        re.MULTILINE,
    )
    assert "allowed" in dict(samples)
    return sum(float(count) for result, count in samples if result != "allowed")


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


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 - as written above
    assert done.returncode == 0, done.stderr
    return done.stdout

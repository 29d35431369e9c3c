"""What the operator stands on is taken away while it runs, and comes back: the kinds, the release's namespace."""

from collections.abc import Callable

import pytest
from hack.cluster import LocalCluster
from hack.installation import NAMESPACE, ROOT, OperatorProcess, install

from kit.jobs import Team, wait_until

pytestmark = pytest.mark.cluster

CRDS = ROOT / "crds"
KINDS = sorted(path.stem for path in CRDS.glob("*.yaml"))


def test_operator_names_the_kinds_that_are_gone_and_goes_on_when_they_are_back_without_a_restart(
    installed: LocalCluster, start_operator: Callable[..., OperatorProcess]
):
    operator = start_operator()
    team = Team.create(installed, "kinds")
    team.submit("before")
    team.wait_phase("before", "Running")

    installed.kubectl("delete", "-f", str(CRDS), "--wait=true", "--timeout=60s")
    wait_until(lambda: missing(operator) == KINDS, 60, lambda: operator.get("/readyz"))

    installed.kubectl("apply", "-f", str(CRDS))
    back_after = wait_until(lambda: operator.get("/readyz") == "ok\n", 60, lambda: operator.get("/readyz"))
    team.submit("after", {"run-for": "1s"})
    team.wait_phase("after", "Succeeded", within=30)

    assert back_after < 30
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


def missing(operator: OperatorProcess) -> list[str]:
    lines = operator.get("/readyz").splitlines()
    return sorted(line.split(":")[0] for line in lines if "does not know this kind" in line)

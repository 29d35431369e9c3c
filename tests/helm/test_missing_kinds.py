"""The kinds are deleted while the operator runs, and come back."""

from collections.abc import Callable

import pytest
from hack.cluster import LocalCluster
from hack.installation import ROOT, OperatorProcess

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


def missing(operator: OperatorProcess) -> list[str]:
    lines = operator.get("/readyz").splitlines()
    return sorted(line.split(":")[0] for line in lines if "does not know this kind" in line)

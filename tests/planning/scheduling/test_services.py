"""Services that somebody deletes while the gang or the workspace that they lead to runs."""

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW, a_gang, a_job, a_node, a_snapshot
from kit.workspaces import a_workspace
from stokehold.model.actions import RestoreService
from stokehold.model.snapshot import Job, Workspace
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

PAIR = a_job("pair", numNodes=2, status={"phase": "Running", "attempt": 1})
GANG = replace(PAIR, pods=a_gang(PAIR))
DESK = a_workspace("ada")


def restored(*owners: Job | Workspace, with_service: frozenset[str] | None = frozenset()) -> list[Job | Workspace]:
    """Whose Services a plan makes anew."""
    jobs = [owner for owner in owners if isinstance(owner, Job)]
    desks = {owner.key: owner for owner in owners if isinstance(owner, Workspace)}
    nodes = [a_node("n1"), a_node("n2")]
    snapshot = a_snapshot(nodes, jobs, taken_at=NOW, workspaces=desks, with_service=with_service)
    plan = plan_scheduling(snapshot, SchedulingSettings())
    return [action.owner for action in plan if isinstance(action, RestoreService)]


def test_service_of_a_gang_or_a_workspace_that_runs_comes_back():
    assert restored(GANG, DESK) == [GANG, DESK]
    assert restored(GANG, DESK, with_service=frozenset({GANG.uid})) == [DESK]
    assert restored(GANG, DESK, with_service=frozenset({GANG.uid, DESK.uid})) == []


def test_nothing_is_made_while_nobody_knows_what_is_there():
    assert restored(GANG, DESK, with_service=None) == []


def over(job: Job, **fields: Any) -> Job:
    return replace(job, pods=a_gang(PAIR, phase="Succeeded", finished_at=NOW, exit_code=0), **fields)


@pytest.mark.parametrize(
    "owner",
    [
        replace(GANG, deleting=True),
        over(PAIR),
        replace(GANG, pods=GANG.pods[:1]),  # the rest of it brings the Service with it
        replace(a_job("one"), pods=a_gang(a_job("one"))),
        replace(DESK, deleting=True),
        a_workspace("ada", running=False),
        replace(DESK, pod_set=None),
    ],
    ids=["gang deleted", "gang over", "half a gang", "one worker", "desk deleted", "desk to stop", "desk waits"],
)
def test_work_that_does_not_run_or_needs_none_gets_none(owner: Job | Workspace):
    assert restored(owner) == []

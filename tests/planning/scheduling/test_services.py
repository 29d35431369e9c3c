"""Services that somebody deletes while the gang or the workspace that they lead to runs."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from builders import NOW, a_gang, a_job, a_node, a_snapshot
from kit.workspaces import a_workspace
from stokehold.model import names
from stokehold.model.actions import RestoreService
from stokehold.model.reasons import Event
from stokehold.model.snapshot import Job, Restores, Snapshot, Workspace
from stokehold.planning.scheduling.plan import next_due, plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

PAIR = a_job("pair", numNodes=2, status={"phase": "Running", "attempt": 1})
GANG = replace(PAIR, pods=a_gang(PAIR))
DESK = a_workspace("ada")


SETTINGS = SchedulingSettings()


def cluster_of(
    *owners: Job | Workspace,
    with_service: frozenset[str] | None = frozenset(),
    restores: Mapping[str, Restores] | None = None,
) -> Snapshot:
    jobs = [owner for owner in owners if isinstance(owner, Job)]
    desks = {owner.key: owner for owner in owners if isinstance(owner, Workspace)}
    nodes = [a_node("n1"), a_node("n2")]
    known = {"with_service": with_service, "restores": restores or {}}
    return a_snapshot(nodes, jobs, taken_at=NOW, workspaces=desks, **known)


def restorations(snapshot: Snapshot) -> list[RestoreService]:
    return [action for action in plan_scheduling(snapshot, SETTINGS) if isinstance(action, RestoreService)]


def restored(*owners: Job | Workspace, with_service: frozenset[str] | None = frozenset()) -> list[Job | Workspace]:
    """Whose Services a plan makes anew."""
    return [action.owner for action in restorations(cluster_of(*owners, with_service=with_service))]


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


@pytest.mark.parametrize(("times", "pause"), [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (10_000, 300)])
def test_service_that_is_taken_away_as_often_as_it_is_made_comes_back_later_each_time(times: int, pause: int):
    def lost(ago: timedelta) -> Snapshot:
        return cluster_of(GANG, DESK, restores={DESK.uid: Restores(times, NOW - ago)})

    early, late = (timedelta(seconds=pause - one) for one in (0.5, 0))
    assert [action.owner for action in restorations(lost(early))] == [GANG], "others do not wait"
    assert next_due(lost(early), SETTINGS) == NOW + timedelta(seconds=0.5)
    assert [action.owner for action in restorations(lost(late))] == [GANG, DESK]


def test_owner_hears_of_it_when_the_service_goes_once_more():
    before = {owner.uid: Restores(1, NOW - timedelta(minutes=1)) for owner in (GANG, DESK)}

    assert [action.notes for action in restorations(cluster_of(GANG, DESK))] == [(), ()]
    told = [note for action in restorations(cluster_of(GANG, DESK, restores=before)) for note in action.notes]
    assert [(note.reason, note.warning) for note in told] == [(Event.SERVICE_TAKEN_AWAY, True)] * 2
    assert names.workspace_name(DESK.name) in told[1].message


def test_service_that_is_there_is_nobodys_next_thing_to_do():
    restores = {DESK.uid: Restores(3, NOW)}
    there = cluster_of(DESK, with_service=frozenset({DESK.uid}), restores=restores)
    gone: datetime | None = next_due(cluster_of(DESK, restores=restores), SETTINGS)

    assert gone == NOW + timedelta(seconds=4)
    assert next_due(there, SETTINGS) is None

"""Workspaces in the one queue, and the volume without which none may start."""

from dataclasses import replace
from typing import Any

import pytest

from builders import NOW, a_node, a_snapshot
from kit.workspaces import a_workspace
from stokehold.api.names import FRESH_VOLUME_ANNOTATION
from stokehold.model.actions import Action, StartWorkspace, WriteStatus
from stokehold.model.snapshot import VolumeClaim, Workspace
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

BOUND = VolumeClaim("Bound")
RAN_BEFORE = {"startTime": "2026-01-01T09:00:00Z", "stoppedAt": "2026-01-01T10:00:00Z", "phase": "Stopped"}


def waiting(status: dict[str, Any], **fields: Any) -> Workspace:
    """A workspace with files that should run and has neither StatefulSet nor pod."""
    made = a_workspace("ada", storage={"size": "1Gi"}, status=status, pods=())
    return replace(made, pod_set=None, **fields)


def plan(workspace: Workspace) -> Action:
    snapshot = a_snapshot([a_node("n1")], workspaces={workspace.key: workspace}, taken_at=NOW)
    (action,) = plan_scheduling(snapshot, SchedulingSettings())
    return action


@pytest.mark.parametrize(
    ("status", "fields", "new"),
    [
        ({}, {}, True),
        ({}, {"volume": BOUND}, False),
        (RAN_BEFORE, {"volume": BOUND}, False),
        (RAN_BEFORE, {"annotations": {FRESH_VOLUME_ANNOTATION: "ada-home"}}, True),
    ],
    ids=["first start", "claim made before a crash", "restart", "empty on request"],
)
def test_it_starts_with_its_volume_and_with_an_empty_one_only_at_first_or_when_asked(
    status: dict[str, Any], fields: dict[str, Any], new: bool
):
    action = plan(waiting(status, **fields))

    assert isinstance(action, StartWorkspace)
    assert action.new_volume is new


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "its volume claim ada-home with its files is gone"),
        ({"annotations": {FRESH_VOLUME_ANNOTATION: "other-home"}}, "with its files is gone"),
        ({"volume": VolumeClaim("Bound", deleting=True)}, "is being deleted"),
        ({"volume": VolumeClaim("Lost")}, "is lost"),
    ],
    ids=["gone", "asked for another", "dying", "lost"],
)
def test_it_never_starts_without_its_files_and_says_so(fields: dict[str, Any], message: str):
    action = plan(waiting(RAN_BEFORE, **fields))

    assert isinstance(action, WriteStatus)
    queue = action.status["queue"]
    assert queue["reason"] == "VolumeUnavailable"
    assert message in queue["message"]
    assert queue["nextStep"]
    assert [note.warning for note in action.notes] == [True]


def test_one_without_storage_needs_no_volume():
    made = replace(a_workspace("bob", storage=None, status=RAN_BEFORE, pods=()), pod_set=None)

    action = plan(made)

    assert isinstance(action, StartWorkspace)
    assert not action.new_volume

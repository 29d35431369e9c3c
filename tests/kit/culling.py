"""Workspaces that have run for a while, and what the culling planner says of them."""

from datetime import timedelta
from typing import Any

from builders import NOW
from kit.workspaces import a_gpu, workspaces_at
from stokehold.model.actions import Action, WriteStatus
from stokehold.model.snapshot import Sighting, Snapshot, Workspace
from stokehold.planning.culling.plan import plan_culling
from stokehold.planning.culling.settings import CullingSettings

SETTINGS = CullingSettings()
MINUTE = timedelta(minutes=1)
LONG_AGO = NOW - timedelta(hours=5)


def plan(snapshot: Snapshot) -> list[Action]:
    return list(plan_culling(snapshot, SETTINGS))


def started(minutes_ago: float, **activity: Any) -> dict[str, Any]:
    """The status of one that has run for so long; `activity` is its clock."""
    start = NOW - minutes_ago * MINUTE
    return {"phase": "Quiet", "startTime": start, "activity": {"lastActiveTime": start, **activity}}


def quiet_for(minutes: float, **status: Any) -> dict[str, Any]:
    """The status of one that was seen quiet all the time until a minute ago."""
    seen = NOW - MINUTE
    clock = {"quietSeconds": round(minutes * 60), "unknownSeconds": 0, "observedTime": seen}
    return {**started(minutes + 1, **clock, measuredSince=seen - minutes * MINUTE), **status}


def quiet_gpu(owner: str = "ada", **fields: Any) -> dict[str, Any]:
    return a_gpu(owner, since=LONG_AGO, **fields)


def only_status(actions: list[Action]) -> dict[str, Any]:
    assert [type(action) for action in actions] == [WriteStatus]
    assert isinstance(actions[0], WriteStatus)
    return actions[0].status


def idle_condition(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in status["conditions"] if c["type"] == "Idle")
    return found


def judged(workspace: Workspace, sighting: Sighting | None, **fields: Any) -> dict[str, Any]:
    """The status that is written for one workspace."""
    sightings = () if sighting is None else (sighting,)
    return only_status(plan(workspaces_at(NOW, [workspace], *sightings, **fields)))

"""What the clock and the owner say: snoozes, lifetimes, stops and starts by schedule."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from builders import NOW
from kit.culling import (
    LONG_AGO,
    MINUTE,
    judged,
    only_status,
    plan,
    quiet_for,
    quiet_gpu,
    started,
)
from kit.workspaces import a_gpu, a_sighting, a_workspace, carried_out, workspaces_at
from stokehold.model.actions import EndWorkspace, ResumeWorkspace, WriteStatus
from stokehold.model.snapshot import Holidays, Workspace


def used_up(seconds: int, when: datetime = NOW) -> dict[str, Any]:
    return {"snoozedAt": when, "snoozedSecondsToday": seconds}


@pytest.mark.parametrize(
    ("asked", "status", "granted", "used"),
    [
        ("2026-01-01T13:00:00Z", {}, "2026-01-01T13:00:00Z", 3600),
        ("2026-01-01T14:00:00+01:00", {}, "2026-01-01T13:00:00Z", 3600),
        ("2026-01-03T00:00:00Z", {}, "2026-01-01T16:00:00Z", 4 * 3600),
        ("2026-01-01T13:00:00Z", used_up(28800), None, 28800),
        ("2026-01-01T13:00:00Z", used_up(27000), "2026-01-01T12:30:00Z", 28800),
        ("2026-01-01T13:00:00Z", used_up(28800, NOW - timedelta(days=1)), "2026-01-01T13:00:00Z", 3600),
        ("2026-01-01T11:00:00Z", {}, None, None),
        ("tomorrow", {}, None, None),
        ("0001-01-01T00:00:00+14:00", {}, None, None),
        ("9999-12-31T23:59:59-14:00", {}, None, None),
        ("2026-01-01T13:00:00", {}, None, None),
    ],
)
def test_snooze_is_granted_within_its_bounds(asked: str, status: dict[str, Any], granted: str | None, used: int | None):
    workspace = a_workspace(annotations={"stokehold.dev/snooze": asked}, status=quiet_for(5, **status))

    told = judged(workspace, a_sighting(quiet_gpu(), heard=NOW))

    assert told.get("snoozedUntil") == granted
    assert told.get("snoozedSecondsToday") == used
    assert told["snoozeRequest"] == asked


def test_snooze_is_answered_once_and_ends_when_the_annotation_goes():
    workspaces = [a_workspace(annotations={"stokehold.dev/snooze": "2026-01-03T00:00:00Z"}, status=quiet_for(50))]
    sighting = a_sighting(quiet_gpu(), heard=NOW)
    granted = carried_out(workspaces, plan(workspaces_at(NOW, workspaces, sighting)))

    later = NOW + 30 * MINUTE
    again = plan(workspaces_at(later, granted, a_sighting(quiet_gpu(), heard=later)))
    without = [replace(w, annotations={}) for w in granted]
    ended = only_status(plan(workspaces_at(later, without, a_sighting(quiet_gpu(), heard=later))))

    assert only_status(again)["snoozedUntil"] == "2026-01-01T16:00:00Z"
    assert "snoozedUntil" not in ended
    assert ended["phase"] == "Warned"


def test_lifetime_ends_it_in_use_or_not_and_snoozed_or_not():
    active = a_gpu(state="Active", since=NOW - MINUTE)
    status = started(7 * 24 * 60) | {"snoozedUntil": NOW + 60 * MINUTE}

    (ending,) = plan(workspaces_at(NOW, [a_workspace(maxLifetime="7d", status=status)], a_sighting(active, heard=NOW)))

    assert isinstance(ending, EndWorkspace)
    assert ending.record.reason == "MaxLifetime"


def berlin(*stop: str, **rest: Any) -> dict[str, Any]:
    return {"timeZone": "Europe/Berlin", "stop": list(stop), **rest}


def test_schedule_stops_it_at_the_hour_of_its_zone():
    in_use = a_sighting(a_gpu(state="Active", since=NOW - MINUTE), heard=NOW)
    at_one = a_workspace(schedule=berlin("0 13 * * *"), status=started(60))  # 12:00 UTC in winter
    at_two = a_workspace(schedule=berlin("0 14 * * *"), status=started(60))

    (ending,) = plan(workspaces_at(NOW, [at_one], in_use))
    waits = judged(at_two, in_use)

    assert isinstance(ending, EndWorkspace)
    assert ending.record.reason == "Schedule"
    assert waits["stopAt"] == "2026-01-01T13:00:00Z"


def test_schedule_that_was_missed_is_made_up_for_but_not_after_a_later_start():
    missed = berlin("0 12 * * *")  # 11:00 UTC, an hour ago
    seen = a_sighting(quiet_gpu(), heard=NOW)

    (ending,) = plan(workspaces_at(NOW, [a_workspace(schedule=missed, status=started(120))], seen))
    stays = judged(a_workspace(schedule=missed, status=started(30)), seen)

    assert isinstance(ending, EndWorkspace)
    assert stays["stopAt"] == "2026-01-01T12:30:00Z"  # the idle stop comes first, the schedule tomorrow


def test_snooze_puts_the_schedule_off():
    snoozed = started(120) | {"snoozedUntil": NOW + 60 * MINUTE}
    workspace = a_workspace(schedule=berlin("0 13 * * *"), status=snoozed)

    status = judged(workspace, a_sighting(quiet_gpu(), heard=NOW))

    assert status["stopAt"] == "2026-01-01T13:00:00Z"


@pytest.mark.parametrize("cron", ["99 0 * * *", "0 0 31 2 *"])
def test_schedule_that_names_no_time_is_told_and_stops_nothing(cron: str):
    status = judged(a_workspace(schedule=berlin(cron), status=started(30)), a_sighting(quiet_gpu(), heard=NOW))

    valid = next(c for c in status["conditions"] if c["type"] == "Valid")
    assert (valid["status"], valid["reason"]) == ("False", "InvalidSchedule")


def test_unknown_zone_is_told():
    schedule = {"timeZone": "Mars/Olympus", "stop": ["0 12 * * *"]}

    status = judged(a_workspace(schedule=schedule, status=started(30)), a_sighting(quiet_gpu(), heard=NOW))

    assert "Mars/Olympus" in next(c for c in status["conditions"] if c["type"] == "Valid")["message"]


def stopped_since(moment: datetime, **spec: Any) -> Workspace:
    status = {"phase": "Stopped", "startTime": LONG_AGO, "stoppedAt": moment, "observedGeneration": 1}
    made = a_workspace(running=False, pods=(), status=status, **spec)
    assert made.pod_set is not None
    return replace(made, pod_set=replace(made.pod_set, replicas=0))


def test_schedule_starts_it_once_and_never_long_after():
    on_time = stopped_since(NOW - 60 * MINUTE, schedule=berlin(start=["50 12 * * *"]))
    too_late = stopped_since(NOW - 180 * MINUTE, schedule=berlin(start=["30 11 * * *"]))
    stopped_after = stopped_since(NOW - 5 * MINUTE, schedule=berlin(start=["50 12 * * *"]))

    assert [type(a) for a in plan(workspaces_at(NOW, [on_time]))] == [ResumeWorkspace]
    assert plan(workspaces_at(NOW, [too_late])) == []
    assert plan(workspaces_at(NOW, [stopped_after])) == []


CHRISTMAS = date(2025, 12, 25)
CHRISTMAS_MORNING = datetime(2025, 12, 25, 7, 30, tzinfo=UTC)  # 08:30 in Berlin


@pytest.mark.parametrize(
    ("now", "holidays", "starts", "wrong"),
    [
        (CHRISTMAS_MORNING, Holidays(frozenset({CHRISTMAS})), False, ""),
        (CHRISTMAS_MORNING, Holidays(frozenset({date(2025, 12, 24)})), True, ""),
        (CHRISTMAS_MORNING, Holidays(frozenset({CHRISTMAS}), ("xmas",)), False, "'xmas' in ConfigMap de-be is no day"),
        (CHRISTMAS_MORNING, Holidays(frozenset(), ("xmas",)), True, "'xmas' in ConfigMap de-be is no day"),
        (CHRISTMAS_MORNING, None, False, "there is no ConfigMap de-be with the label stokehold.dev/holidays"),
        # The day is Berlin's: there it is the 25th already, in UTC still the 24th.
        (datetime(2025, 12, 24, 23, 45, tzinfo=UTC), Holidays(frozenset({CHRISTMAS})), False, ""),
        (datetime(2025, 12, 25, 23, 45, tzinfo=UTC), Holidays(frozenset({CHRISTMAS})), True, ""),
    ],
)
def test_days_off_are_days_of_its_zone_on_which_it_is_not_started(
    now: datetime, holidays: Holidays | None, starts: bool, wrong: str
):
    schedule = berlin(start=["30 0 * * *", "0 8 * * *"], holidays={"configMap": "de-be"})
    stopped = stopped_since(now - timedelta(hours=5), schedule=schedule, created_at=now - timedelta(days=9))
    stopped = replace(stopped, holidays=holidays, status=stopped.status.model_copy(update={"observed_generation": 0}))

    actions = plan(workspaces_at(now, [stopped]))

    assert [type(a) for a in actions] == [WriteStatus, *([ResumeWorkspace] if starts else [])]
    valid = next(c for c in only_status(actions[:1])["conditions"] if c["type"] == "Valid")
    assert (valid["status"] == "False", wrong in valid.get("message", "")) == (bool(wrong), True)


def test_a_stop_comes_on_days_off_too_and_a_stopped_one_hears_of_a_configmap_that_comes():
    schedule = berlin("0 13 * * *", start=["0 8 * * *"], holidays={"configMap": "de-be"})
    runs = replace(a_workspace(schedule=schedule, status=started(60)), holidays=Holidays(frozenset({NOW.date()})))
    (ending,) = plan(workspaces_at(NOW, [runs]))
    assert isinstance(ending, EndWorkspace)

    stopped = [replace(stopped_since(NOW - MINUTE, schedule=schedule), generation=2)]
    stopped = carried_out(stopped, plan(workspaces_at(NOW, stopped)))
    assert plan(workspaces_at(NOW, stopped)) == []
    stopped = [replace(stopped[0], holidays=Holidays(frozenset()))]
    told = only_status(plan(workspaces_at(NOW, stopped)))
    assert next(c for c in told["conditions"] if c["type"] == "Valid")["status"] == "True"
    assert plan(workspaces_at(NOW, carried_out(stopped, plan(workspaces_at(NOW, stopped))))) == []

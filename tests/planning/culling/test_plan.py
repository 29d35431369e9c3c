"""The culling planner on values: what is not known to be idle is left alone, and everything says why."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import GPU, NOW, a_job
from kit.culling import (
    LONG_AGO,
    MINUTE,
    idle_condition,
    judged,
    only_status,
    plan,
    quiet_for,
    quiet_gpu,
    started,
)
from kit.workspaces import a_gpu, a_sighting, a_workspace, carried_out, resumed, workspaces_at
from stokehold.model.actions import (
    EndWorkspace,
    StopWorkspace,
    WriteStatus,
)
from stokehold.model.snapshot import Notebook, StopRecord
from stokehold.planning.culling.signals import NOT_MEASURED


def test_ready_pod_starts_the_clock_and_counts_as_activity():
    status = judged(a_workspace(), a_sighting(quiet_gpu(), heard=NOW))

    assert status["phase"] == "Quiet"
    assert status["startTime"] == status["activity"]["lastActiveTime"] == "2026-01-01T12:00:00Z"
    assert status["url"] == "http://ada.team-a.svc:8888"
    assert status["placement"]["node"] == "n1"
    assert "stopAt" not in status


def test_quiet_time_is_counted_up_to_the_last_heartbeat_and_no_further():
    workspace = a_workspace(status=started(30))

    status = judged(workspace, a_sighting(quiet_gpu(), heard=NOW - 4 * MINUTE))

    assert status["activity"]["quietSeconds"] == 26 * 60
    assert status["activity"]["observedTime"] == "2026-01-01T11:56:00Z"
    assert idle_condition(status)["reason"] == "IdleTooShort"
    assert status["stopAt"] == "2026-01-01T12:30:00Z"


def test_activity_turns_the_clock_back():
    active = a_gpu(state="Active", since=NOW - MINUTE, last_active=NOW)

    status = judged(a_workspace(status=quiet_for(55)), a_sighting(active, heard=NOW))

    assert status["phase"] == "Active"
    assert "quietSeconds" not in status["activity"]
    assert idle_condition(status)["reason"] == "InUse"


def test_activity_between_two_plans_is_not_missed():
    """Busy and quiet again while nobody looked: the agent remembers when it was last active."""
    again = a_gpu(since=NOW - 2 * MINUTE, last_active=NOW - 10 * MINUTE)
    old = {**quiet_for(50), "activity": {**quiet_for(50)["activity"], "observedTime": NOW - 20 * MINUTE}}

    status = judged(a_workspace(status=old), a_sighting(again, heard=NOW))

    assert status["activity"]["lastActiveTime"] == "2026-01-01T11:50:00Z"
    assert status["activity"]["quietSeconds"] == 120


def test_activity_that_is_to_come_holds_back_no_idle_clock():
    """The agent's clock was ahead for a while: what it wrote then is read by the agent that follows it."""
    ahead = a_gpu(since=NOW - 10 * MINUTE, last_active=NOW + 120 * MINUTE)

    status = judged(a_workspace(status=quiet_for(20)), a_sighting(ahead, heard=NOW))

    assert status["activity"]["quietSeconds"] == 21 * 60


def test_warned_first_then_stopped_when_the_warning_is_over_and_it_was_seen_quiet_again():
    workspaces = [a_workspace(status=quiet_for(50))]
    warning = plan(workspaces_at(NOW, workspaces, a_sighting(quiet_gpu(), heard=NOW)))

    assert only_status(warning)["phase"] == "Warned"
    assert only_status(warning)["stopAt"] == "2026-01-01T12:10:00Z"
    assert [note.reason for note in warning[0].notes] == ["IdleWarning"]
    warned = carried_out(workspaces, warning)
    due = NOW + 10 * MINUTE
    for now, heard in ((NOW + 9 * MINUTE, NOW + 9 * MINUTE), (due + MINUTE, due - MINUTE)):
        early = plan(workspaces_at(now, warned, a_sighting(quiet_gpu(), heard=heard)))
        assert not any(isinstance(action, EndWorkspace) for action in early)
    (ending,) = plan(workspaces_at(due, warned, a_sighting(quiet_gpu(), heard=due)))
    assert isinstance(ending, EndWorkspace)
    assert (ending.record.reason, ending.record.time) == ("Idle", due)


def test_even_without_time_to_react_the_warning_is_on_record_before_the_stop():
    workspaces = [a_workspace(idle={"warnBefore": "0s"}, status=quiet_for(90))]
    seen = a_sighting(quiet_gpu(), heard=NOW)

    warning = plan(workspaces_at(NOW, workspaces, seen))

    assert only_status(warning)["phase"] == "Warned"
    (ending,) = plan(workspaces_at(NOW, carried_out(workspaces, warning), seen))
    assert isinstance(ending, EndWorkspace)


def test_stop_goes_on_from_the_record_and_keeps_the_reason():
    record = StopRecord("Idle", "idle for 3600 s", NOW)
    workspace = a_workspace(status=quiet_for(60), running=False, stop_record=record)

    stop, told = plan(workspaces_at(NOW, [workspace]))

    assert isinstance(stop, StopWorkspace)
    assert isinstance(told, WriteStatus)
    assert (told.status["phase"], told.status["stopReason"]) == ("Stopping", "Idle")
    assert told.status["stoppedAt"] == "2026-01-01T12:00:00Z"
    assert told.status["usage"] == {"gpuSeconds": 61 * 60, "idleGpuSeconds": 61 * 60}
    after = carried_out([workspace], [stop, told])
    assert only_status(plan(workspaces_at(NOW, after)))["phase"] == "Stopped"


def test_stop_by_its_owner_says_so_even_after_an_earlier_stop_of_ours():
    earlier = StopRecord("Idle", "idle for long", NOW - timedelta(hours=9))

    _, told = plan(workspaces_at(NOW, [a_workspace(status=started(60), running=False, stop_record=earlier)]))

    assert isinstance(told, WriteStatus)
    assert told.status["stopReason"] == "UserRequest"


def test_resume_counts_as_activity_and_books_what_the_stop_has_saved():
    stopped = {"phase": "Stopped", "stopReason": "Idle", "startTime": LONG_AGO, "stoppedAt": NOW - 60 * MINUTE}
    clock = {"lastActiveTime": LONG_AGO, "quietSeconds": 7200, "observedTime": NOW - 60 * MINUTE}
    record = StopRecord("Idle", "idle", NOW - 60 * MINUTE)
    workspace = a_workspace(status={**stopped, "activity": clock}, running=False, stop_record=record)

    status = judged(resumed(workspace), a_sighting(quiet_gpu(), heard=NOW))

    assert status["startTime"] == status["activity"]["lastActiveTime"] == "2026-01-01T12:00:00Z"
    assert "quietSeconds" not in status["activity"]
    assert status["usage"]["reclaimedGpuSeconds"] == 3600


UNKNOWN = {
    "no agent": lambda: None,
    "silent agent": lambda: a_sighting(quiet_gpu(), heard=NOW - 12 * MINUTE),
    "agent from the future": lambda: a_sighting(quiet_gpu(), heard=NOW + 5 * MINUTE),
    "owners not known": lambda: a_sighting(quiet_gpu(), heard=NOW, owners_known=False),
    "somebody else's GPU": lambda: a_sighting(quiet_gpu("bob"), heard=NOW),
    "GPU of an earlier pod of the same name": lambda: a_sighting(
        quiet_gpu(owners=[{"namespace": "team-a", "pod": "ada-0", "podUID": "an-earlier-one"}]), heard=NOW
    ),
    "no verdict": lambda: a_sighting(quiet_gpu(activity={}), heard=NOW),
    "verdict unknown": lambda: a_sighting(a_gpu(state="Unknown", since=LONG_AGO), heard=NOW),
    "word of a newer agent": lambda: a_sighting(a_gpu(state="Dozing", since=LONG_AGO), heard=NOW),
    "quiet since nobody knows when": lambda: a_sighting(quiet_gpu(activity={"state": "Quiet"}), heard=NOW),
    "unhealthy GPU": lambda: a_sighting(quiet_gpu(health={"state": "Unhealthy", "reason": "GpuLost"}), heard=NOW),
    "used by a stranger": lambda: replace(
        a_sighting(quiet_gpu(foreignUsers=[{"command": "python"}]), heard=NOW),
        told=frozenset({"foreign GPU-ada-0 "}),
    ),
    "shared and in use": lambda: a_sighting(
        a_gpu(
            state="Active",
            since=LONG_AGO,
            owners=[{"namespace": "team-a", "pod": "ada-0"}, {"namespace": "team-b", "pod": "x"}],
        ),
        heard=NOW,
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_is_never_idle_and_the_status_says_why(case: str):
    warned = quiet_for(70, phase="Warned", warnedAt=NOW - 20 * MINUTE, stopAt=NOW - 10 * MINUTE)

    status = judged(a_workspace(status=warned), UNKNOWN[case]())

    assert status["phase"] == "Active"
    assert (idle_condition(status)["status"], idle_condition(status)["reason"]) == ("Unknown", "SignalUnknown")
    assert idle_condition(status)["message"].startswith("gpu: ")
    assert "stopAt" not in status
    assert "warnedAt" not in status
    assert status["activity"]["quietSeconds"] == 70 * 60  # the clock stands still


def test_one_active_gpu_of_several_is_activity_and_a_missing_one_is_unknown():
    two = a_workspace(gpus=2, status=quiet_for(70))
    busy = a_gpu(state="Active", since=NOW - MINUTE, number=1)

    active = judged(two, a_sighting(quiet_gpu(), busy, heard=NOW))
    partial = judged(two, a_sighting(quiet_gpu(), heard=NOW))

    assert idle_condition(active)["reason"] == "InUse"
    assert idle_condition(partial)["reason"] == "SignalUnknown"


def test_gap_counts_as_unknown_time_and_the_clock_goes_on_from_where_it_stood():
    workspace = a_workspace(status=quiet_for(48))
    back = a_gpu(since=NOW + 19 * MINUTE)

    later = NOW + 20 * MINUTE
    status = only_status(plan(workspaces_at(later, [workspace], a_sighting(back, heard=later))))

    assert status["activity"]["quietSeconds"] == 49 * 60
    assert status["activity"]["unknownSeconds"] == 20 * 60
    assert status["activity"]["coveragePercent"] == 71


@pytest.mark.parametrize(
    ("jupyter", "seen_minutes"),
    [
        (None, 5),
        (Notebook(NOW + 16 * MINUTE, "pod-ada", last_activity=LONG_AGO), 5),
        (Notebook(NOW + 16 * MINUTE, "pod-ada", error="it did not answer in 5 s"), 0),
    ],
)
def test_what_was_seen_before_the_agent_fell_silent_counts_though_no_status_had_it_yet(
    jupyter: Notebook | None, seen_minutes: int
):
    """The figures were written at NOW - 1 min, the last heartbeat came at NOW + 4 min."""
    signals = {} if jupyter is None else {"jupyter": {}}
    workspaces = [a_workspace(idle={"signals": signals}, status=quiet_for(48, stopAt=NOW + 12 * MINUTE))]
    notebooks = {} if jupyter is None else {("team-a", "ada"): jupyter}
    last_word = a_sighting(quiet_gpu(), heard=NOW + 4 * MINUTE)

    written = plan(workspaces_at(NOW + 16 * MINUTE, workspaces, last_word, notebooks=notebooks))

    silent = only_status(written)
    assert (idle_condition(silent)["reason"], "stopAt" in silent) == ("SignalUnknown", False)
    assert "gpu: the agent of n1 has been silent since 2026-01-01 12:04:00 UTC" in idle_condition(silent)["message"]
    assert silent["activity"]["quietSeconds"] == (48 + seen_minutes) * 60
    assert silent["activity"]["unknownSeconds"] == 0
    later = NOW + 24 * MINUTE
    again = a_sighting(a_gpu(since=later - MINUTE), heard=later)
    quiet = {key: replace(told, time=later, error="", last_activity=LONG_AGO) for key, told in notebooks.items()}
    back = only_status(plan(workspaces_at(later, carried_out(workspaces, written), again, notebooks=quiet)))
    assert back["activity"]["quietSeconds"] == (48 + seen_minutes + 1) * 60
    assert back["activity"]["unknownSeconds"] == (24 - seen_minutes) * 60


def test_poorly_measured_is_not_stopped_until_a_whole_window_was_seen():
    clock = {"quietSeconds": 70 * 60, "unknownSeconds": 30 * 60, "measuredSince": NOW - 30 * MINUTE}
    poor = a_workspace(status=started(100, **clock, observedTime=NOW))

    now = judged(poor, a_sighting(quiet_gpu(), heard=NOW))
    later = NOW + 30 * MINUTE
    seen = only_status(plan(workspaces_at(later, [poor], a_sighting(quiet_gpu(), heard=later))))

    assert idle_condition(now)["reason"] == "CoverageTooLow"
    assert seen["phase"] == "Warned"


@pytest.mark.parametrize(
    ("idle", "status", "reason"),
    [
        ({"mode": "DryRun"}, {}, "DryRun"),
        ({"policy": "OnPressure"}, {}, "NoPressure"),
        ({"exempt": {"until": NOW + MINUTE, "reason": "a demo"}}, {}, "Exempt"),
        ({"minRunning": "3h"}, {}, "MinRunning"),
        ({}, {"snoozedUntil": NOW + MINUTE, "snoozeRequest": ""}, "Snoozed"),
    ],
)
def test_idle_workspace_is_held_with_a_reason(idle: dict[str, Any], status: dict[str, Any], reason: str):
    workspace = a_workspace(idle=idle, status=quiet_for(90, warnedAt=NOW - 30 * MINUTE, phase="Warned", **status))

    told = judged(workspace, a_sighting(quiet_gpu(), heard=NOW))

    assert (told["phase"], idle_condition(told)["reason"]) == ("Quiet", reason)
    assert idle_condition(told)["status"] == "True"
    assert "warnedAt" not in told


def test_exemption_that_reaches_too_far_does_not_count_and_says_what_is_allowed():
    far = a_workspace(
        idle={"exempt": {"until": "2099-01-01T00:00:00Z", "reason": "mine"}},
        status=quiet_for(90, warnedAt=NOW - 30 * MINUTE, phase="Warned"),
    )

    (ended,) = plan(workspaces_at(NOW, [far], a_sighting(quiet_gpu(), heard=NOW)))
    told = judged(replace(far, status=a_workspace(status=quiet_for(5)).status), a_sighting(quiet_gpu(), heard=NOW))

    assert isinstance(ended, EndWorkspace)
    valid = next(c for c in told["conditions"] if c["type"] == "Valid")
    assert (valid["status"], valid["reason"]) == ("False", "ExemptionTooLong")
    assert "spec.idle.exempt.until: 2099-01-01 is too far ahead" in valid["message"]
    assert "at most 30 days from now" in valid["message"]


def test_on_pressure_stops_only_for_work_that_could_start_there():
    waiting = {"phase": "Pending", "queue": {"reason": "WaitingForCapacity"}}
    idle = a_workspace(idle={"policy": "OnPressure"}, status=quiet_for(90))
    seven_used = {"n1": {GPU: 7}}

    wanted = judged(
        idle, a_sighting(quiet_gpu(), heard=NOW), jobs=[a_job(status=waiting)], used={"n1": {GPU: 7, "pods": 1}}
    )
    too_large = judged(
        idle, a_sighting(quiet_gpu(), heard=NOW), jobs=[a_job(gpusPerNode=8, status=waiting)], used=seven_used
    )
    room = judged(idle, a_sighting(quiet_gpu(), heard=NOW), jobs=[a_job(status=waiting)])

    assert wanted["phase"] == "Warned"
    assert idle_condition(too_large)["reason"] == idle_condition(room)["reason"] == "NoPressure"


def test_pressure_takes_no_more_than_it_needs_and_the_longest_idle_first():
    waiting = {"phase": "Pending", "queue": {"reason": "WaitingForCapacity"}}
    idle = {"policy": "OnPressure"}
    short, long = (a_workspace(name, idle=idle, status=quiet_for(n)) for name, n in (("a", 90), ("b", 200)))
    seen = a_sighting(quiet_gpu("a"), quiet_gpu("b"), heard=NOW)

    actions = plan(workspaces_at(NOW, [short, long], seen, jobs=[a_job(status=waiting)], used={"n1": {GPU: 6}}))

    phases = {a.subject.name: a.status["phase"] for a in actions if isinstance(a, WriteStatus)}
    assert phases == {"a": "Quiet", "b": "Warned"}


def test_mass_idle_stops_nothing_and_says_so():
    names = [f"w{i}" for i in range(6)]
    warned = quiet_for(70, phase="Warned", warnedAt=NOW - 20 * MINUTE)
    workspaces = [a_workspace(name, status=warned) for name in names]
    seen = a_sighting(*(quiet_gpu(name) for name in names), heard=NOW)

    actions = plan(workspaces_at(NOW, workspaces, seen))

    assert {idle_condition(a.status)["reason"] for a in actions if isinstance(a, WriteStatus)} == {"MassIdle"}
    assert len(actions) == 6
    a_day_later = NOW + timedelta(hours=25)
    calm = plan(
        workspaces_at(
            a_day_later,
            carried_out(workspaces, actions),
            a_sighting(*(quiet_gpu(name) for name in names), heard=a_day_later),
        )
    )
    assert {a.status["phase"] for a in calm if isinstance(a, WriteStatus)} == {"Warned"}


@pytest.mark.parametrize("name", NOT_MEASURED)
def test_signals_that_nobody_measures_hold_the_workspace(name: str):
    workspace = a_workspace(idle={"signals": {name: {}}}, status=quiet_for(90, warnedAt=NOW - 30 * MINUTE))

    status = judged(workspace, a_sighting(quiet_gpu(), heard=NOW))

    assert idle_condition(status)["reason"] == "SignalUnknown"
    assert f"{name}: this version does not measure it" in idle_condition(status)["message"]
    assert {s["name"]: s["state"] for s in status["activity"]["signals"]} == {"gpu": "Quiet", name: "Unknown"}


def test_workspace_without_any_signal_is_never_idle():
    status = judged(a_workspace(gpus=0, status=started(900)), None)

    assert idle_condition(status)["reason"] == "SignalUnknown"


def test_gpu_signal_that_is_not_required_does_not_hold_one_whose_kernels_are_idle():
    signals = {"gpu": {"required": False}, "jupyter": {}}
    asleep = Notebook(NOW, "pod-ada", kernels=1, last_activity=NOW - 90 * MINUTE)

    status = judged(
        a_workspace(idle={"signals": signals}, status=started(90)), None, notebooks={("team-a", "ada"): asleep}
    )

    assert status["phase"] == "Warned"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "SignalUnknown"),
        (Notebook(NOW - 5 * MINUTE, "pod-ada", last_activity=LONG_AGO), "SignalUnknown"),
        (Notebook(NOW, "pod-of-before", last_activity=LONG_AGO), "SignalUnknown"),
        (Notebook(NOW, "pod-ada", error="connection refused"), "SignalUnknown"),
        (Notebook(NOW, "pod-ada"), "SignalUnknown"),
        (Notebook(NOW, "pod-ada", last_activity=NOW + 2 * MINUTE), "SignalUnknown"),
        (Notebook(NOW, "pod-ada", last_activity=NOW - timedelta(days=700_000)), "Warned"),
        (Notebook(NOW, "pod-ada", kernels=2, busy_kernels=1, last_activity=LONG_AGO), "InUse"),
        (Notebook(NOW, "pod-ada", kernels=2, last_activity=NOW - MINUTE), "IdleTooShort"),
        (Notebook(NOW, "pod-ada", kernels=2, last_activity=LONG_AGO), "Warned"),
    ],
)
def test_jupyter_counts_beside_the_gpu(answer: Notebook | None, reason: str):
    workspace = a_workspace(idle={"signals": {"jupyter": {}}}, status=quiet_for(50))
    told = {} if answer is None else {("team-a", "ada"): answer}

    status = judged(workspace, a_sighting(quiet_gpu(), heard=NOW), notebooks=told)

    assert idle_condition(status)["reason"] == reason

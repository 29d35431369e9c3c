"""Conditions keep their shape: one of each type, and a time that tells since when."""

from datetime import UTC, datetime, timedelta

from stokehold.api.conditions import Condition, with_condition
from stokehold.api.times import format_time

THEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = THEN + timedelta(hours=1)


def test_new_type_is_added_behind_the_others():
    ready = Condition(type="Ready", status="True")

    assert with_condition((ready,), Condition(type="Idle", status="False"))[0] is ready


def test_time_stays_while_the_status_stays():
    old = Condition(type="Ready", status="False", reason="A", last_transition_time=THEN)

    (new,) = with_condition((old,), Condition(type="Ready", status="False", reason="B", last_transition_time=NOW))

    assert (new.reason, new.last_transition_time) == ("B", THEN)


def test_time_moves_when_the_status_changes():
    old = Condition(type="Ready", status="False", last_transition_time=THEN)

    (new,) = with_condition((old,), Condition(type="Ready", status="True", last_transition_time=NOW))

    assert new.last_transition_time == NOW


def test_times_print_as_kubernetes_writes_them():
    assert format_time(THEN) == "2026-01-01T00:00:00Z"

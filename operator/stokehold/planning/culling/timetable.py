"""Stops and starts by the clock: `spec.schedule` in its time zone, and `spec.maxLifetime`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from stokehold.api.names import HOLIDAYS_LABEL
from stokehold.api.v1alpha1.dev_workspace import Schedule
from stokehold.model.reasons import Stop
from stokehold.model.snapshot import Workspace

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ClockStop:
    """A stop that comes whether the workspace is in use or not."""

    reason: Stop
    message: str
    at: datetime


def zone_of(workspace: Workspace) -> tzinfo:
    """The schedule's zone, UTC where it has none or one that does not exist."""
    schedule = workspace.spec.schedule
    return (_zone(schedule.time_zone) if schedule else None) or UTC


def what_is_wrong(workspace: Workspace) -> str | None:
    """Why the schedule cannot be kept, for its owner; None if it can."""
    schedule = workspace.spec.schedule
    if schedule is None:
        return None
    return _wrong_times(schedule) or (_wrong_holidays(workspace, schedule) if schedule.start else None)


def _wrong_holidays(workspace: Workspace, schedule: Schedule) -> str | None:
    if schedule.holidays is None:
        return None
    name, found = schedule.holidays.config_map, workspace.holidays
    if found is None:
        return (
            f"spec.schedule.holidays: there is no ConfigMap {name} with the label {HOLIDAYS_LABEL} in this namespace; "
            "until there is, the workspace is not started by the clock"
        )
    if found.strange:
        return f"spec.schedule.holidays: {found.strange[0]!r} in ConfigMap {name} is no day such as 2026-12-25"
    return None


def _wrong_times(schedule: Schedule) -> str | None:
    if _zone(schedule.time_zone) is None:
        return f"spec.schedule.timeZone: {schedule.time_zone} is no time zone of the IANA database"
    for cron in (*schedule.stop, *schedule.start):
        if not _is_cron(cron):
            return f"spec.schedule: {cron!r} names no time that exists"
    return None


def clock_stop(
    workspace: Workspace, started: datetime, snoozed_until: datetime | None, now: datetime
) -> ClockStop | None:
    """The next stop by the clock, or one that is due already. A snooze puts the schedule off, not the lifetime."""
    stops = []
    if (most := workspace.spec.max_lifetime) is not None:
        ends = started + most.to_timedelta()
        stops.append(ClockStop(Stop.MAX_LIFETIME, f"it has run for spec.maxLifetime ({most})", ends))
    schedule = workspace.spec.schedule
    if schedule and schedule.stop and _wrong_times(schedule) is None:
        zone = zone_of(workspace)
        missed = _last(schedule.stop, zone, now)
        at = missed if missed is not None and missed > started else _next(schedule.stop, zone, now)
        if at is not None:
            message = f"spec.schedule stops it at {at.astimezone(zone):%H:%M} ({zone})"
            stops.append(ClockStop(Stop.SCHEDULE, message, max(at, snoozed_until or at)))
    return min(stops, key=lambda stop: stop.at, default=None)


def should_start(workspace: Workspace, since: datetime, now: datetime, latest: timedelta) -> datetime | None:
    """The time of `spec.schedule.start` that has come since it was stopped, on no day off, if it is not long past."""
    schedule = workspace.spec.schedule
    if schedule is None or not schedule.start or _wrong_times(schedule) is not None:
        return None
    if schedule.holidays is not None and workspace.holidays is None:
        return None  # nobody knows whether today is one
    off = workspace.holidays.days if workspace.holidays is not None else frozenset()
    zone = zone_of(workspace)
    dues = [due for cron in schedule.start if (due := _last((cron,), zone, now)) is not None]
    due = max((due for due in dues if due.astimezone(zone).date() not in off), default=None)
    return due if due is not None and due > since and now - due <= latest else None


def _last(crons: Iterable[str], zone: tzinfo, now: datetime) -> datetime | None:
    minute = now.replace(second=0, microsecond=0)
    return max((t for cron in crons if (t := _fire(cron, zone, minute + MINUTE, True)) is not None), default=None)


def _next(crons: Iterable[str], zone: tzinfo, now: datetime) -> datetime | None:
    minute = now.replace(second=0, microsecond=0)
    return min((t for cron in crons if (t := _fire(cron, zone, minute, False)) is not None), default=None)


@lru_cache(maxsize=4096)
def _fire(cron: str, zone: tzinfo, minute: datetime, backwards: bool) -> datetime | None:
    """The nearest time before or after the minute, which itself does not count."""
    try:
        return next(CronSim(cron, minute.astimezone(zone), reverse=backwards)).astimezone(UTC)
    except (CronSimError, StopIteration):
        return None


@lru_cache(maxsize=1024)
def _is_cron(cron: str) -> bool:
    try:
        CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None

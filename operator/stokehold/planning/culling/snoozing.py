"""Users put a stop off by an annotation; each value is answered once, within what `spec.idle.snooze` allows."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from stokehold.api.names import SNOOZE_ANNOTATION
from stokehold.api.times import parse_time
from stokehold.api.v1alpha1.dev_workspace import Snooze
from stokehold.model.actions import Note
from stokehold.model.reasons import Event, Idleness
from stokehold.model.snapshot import Workspace
from stokehold.model.statuses import whole


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The answer: until when, when it was granted, and how much of the day's budget is used."""

    until: datetime | None
    granted_at: datetime | None
    seconds_today: int | None
    request: str
    notes: tuple[Note, ...] = ()


def answer(workspace: Workspace, now: datetime, zone: tzinfo) -> Snoozed:
    """What stands in the status, or the answer to a new request."""
    status = workspace.status
    request = workspace.annotations.get(SNOOZE_ANNOTATION, "")
    told = Snoozed(status.snoozed_until, status.snoozed_at, status.snoozed_seconds_today, status.snooze_request)
    if request == status.snooze_request:
        return told
    if not request:
        return Snoozed(None, told.granted_at, told.seconds_today, "")
    wanted = parse_time(request)
    if wanted is None:
        return _refused(told, request, f"{request!r} is no time such as 2026-11-25T18:00:00Z")
    return _grant(workspace, told, request, wanted, now, zone)


def _grant(workspace: Workspace, told: Snoozed, request: str, wanted: datetime, now: datetime, zone: tzinfo) -> Snoozed:
    allowed = (workspace.spec.idle.snooze if workspace.spec.idle else None) or Snooze()
    used = told.seconds_today or 0
    if told.granted_at is None or told.granted_at.astimezone(zone).date() != now.astimezone(zone).date():
        used = 0
    left = max(0, int(allowed.budget_per_day.seconds) - used)
    held_until = max(now, told.until or now)
    end = min(wanted, now + allowed.max.to_timedelta())
    if end > held_until:
        end = min(end, held_until + timedelta(seconds=left))
    if end <= now:
        why = "it lies in the past" if wanted <= now else f"nothing of the day's {allowed.budget_per_day} is left"
        return _refused(Snoozed(None, told.granted_at, told.seconds_today, request), request, why)
    end = whole(end)
    booked = max(0, round((end - held_until).total_seconds()))
    short = "" if end >= whole(wanted) else f"; asked for {wanted.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    note = Note(
        Idleness.SNOOZED, f"left alone until {end.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC{short}", f"snoozed {request}"
    )
    return Snoozed(end, whole(now), used + booked, request, (note,))


def _refused(told: Snoozed, request: str, why: str) -> Snoozed:
    note = Note(Event.SNOOZE_REFUSED, f"not snoozed: {why}", f"refused {request}", warning=True)
    return Snoozed(None, told.granted_at, told.seconds_today, request, (note,))

"""Times of the day or week in which a pool has more replicas than its load asks for. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from stokehold.api.v1alpha1.inference_pool import ScheduledFloor

MOST_REMEMBERED = 4096


def scheduled_floor(schedule: Sequence[ScheduledFloor], now: datetime) -> int:
    """The fewest replicas that the schedule asks for now; of several times that overlap, the highest number."""
    minute = now.replace(second=0, microsecond=0)
    return max((floor.min_replicas for floor in schedule if _is_on(floor, minute)), default=0)


def faults(schedule: Sequence[ScheduledFloor]) -> list[str]:
    """What nobody can read, by its place in the spec; such a time never begins."""
    found = []
    for i, floor in enumerate(schedule):
        place = f"scaling.schedule[{i}]"
        if _zone(floor.time_zone) is None:
            found.append(f"{place}.timeZone {floor.time_zone} is not known")
        found += [
            f"{place}.{name} {text!r} is no time in cron"
            for name, text in (("start", floor.start), ("end", floor.end))
            if not _is_cron(text)
        ]
    return found


def _is_on(floor: ScheduledFloor, minute: datetime) -> bool:
    """On from start to end: whichever came last."""
    started = _last(floor.start, floor.time_zone, minute)
    ended = _last(floor.end, floor.time_zone, minute)
    return started is not None and (ended is None or started > ended)


@lru_cache(maxsize=MOST_REMEMBERED)
def _last(cron: str, time_zone: str, minute: datetime) -> datetime | None:
    """The last time that the line names up to this minute, this minute included; None when there is none."""
    zone = _zone(time_zone)
    if zone is None or not _is_cron(cron):
        return None
    after = (minute + timedelta(minutes=1)).astimezone(zone)
    last = next(CronSim(cron, after, reverse=True), None)
    return None if last is None else last.astimezone(UTC)  # within one zone Python compares the hands of the clock


@lru_cache(maxsize=MOST_REMEMBERED)
def _is_cron(text: str) -> bool:
    try:
        CronSim(text, datetime(2000, 1, 1))  # noqa: DTZ001 - only the line is looked at
    except CronSimError:
        return False
    return True


@lru_cache(maxsize=MOST_REMEMBERED)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None

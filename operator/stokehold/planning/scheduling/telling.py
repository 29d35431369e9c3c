"""Telling those who wait why, when it is news."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from stokehold.model.actions import Action, Note, WriteStatus
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Snapshot
from stokehold.model.statuses import Owner, Status
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.scheduling import reporting, single_pods
from stokehold.planning.scheduling.queueing import Gang, Promised, Replica, Work
from stokehold.planning.scheduling.settings import SchedulingSettings

NEEDS_THE_OWNER = (
    Waiting.MISCONFIGURED,
    Waiting.NO_MATCHING_FLAVOR,
    Waiting.CREATION_REFUSED,
    Waiting.NAME_TAKEN,
    Waiting.VOLUME_UNAVAILABLE,
)


@dataclass(frozen=True, slots=True)
class Held:
    """Work that waits, and why; `position` counts from 1 within its queue."""

    work: Work
    why: Explanation
    position: int | None = None


class Teller:
    """Writes waiting statuses; a limited number in one plan, for each is a write."""

    def __init__(self, snapshot: Snapshot, settings: SchedulingSettings) -> None:
        self.snapshot = snapshot
        self.settings = settings
        self._left = settings.most_reports
        self._told: set[str] = set()

    def tell(self, held: Held) -> Iterator[Action]:
        """The waiting status, if it is worth a write; what has only just come may start before anybody looks.

        Of several replicas of one pool that wait, the first speaks for all.
        """
        owner, now = owner_of(held.work), self.snapshot.taken_at
        just_came = now - owner.created_at < self.settings.first_report_after and owner.status.queue is None
        if just_came or not self._left or owner.uid in self._told:
            return
        self._told.add(owner.uid)
        if reporting.is_worth_writing(owner, held.why, held.position, now, self.settings.refresh_every):
            self._left -= 1
            yield WriteStatus(owner, _status(held, self.snapshot), _waiting_note(owner, held))


def next_telling(snapshot: Snapshot, settings: SchedulingSettings) -> datetime | None:
    """When the next of those who have only just come is to be told why it waits; None when there is nobody."""
    after, now = settings.first_report_after, snapshot.taken_at
    owners: tuple[Owner, ...] = (
        *snapshot.jobs.values(),
        *snapshot.workspaces.values(),
        *snapshot.serving_pools.values(),
    )
    dues = (owner.created_at + after for owner in owners if owner.status.queue is None)
    return min((due for due in dues if due > now), default=None)


def owner_of(work: Work) -> Owner:
    """The object that the work belongs to."""
    match work:
        case Gang():
            return work.job
        case Replica() | Promised():
            return work.pool
        case _:
            return work


def _status(held: Held, snapshot: Snapshot) -> Status:
    now = snapshot.taken_at
    match held.work:
        case Gang(job, attempt):
            return reporting.waiting(job, attempt, held.why, held.position, now)
        case Replica(pool) | Promised(pool):
            return single_pods.waiting_status(pool, held.why, held.position, now)
        case workspace:
            return single_pods.waiting_status(workspace, held.why, held.position, now)


def _waiting_note(owner: Owner, held: Held) -> tuple[Note, ...]:
    """An Event for what only the owner can mend."""
    why = held.why
    if why.reason not in NEEDS_THE_OWNER or (owner.status.queue and owner.status.queue.reason == why.reason):
        return ()
    attempt = held.work.attempt.number if isinstance(held.work, Gang) else 0
    key = f"{why.reason} {attempt} {owner.generation}"
    return (Note(why.reason, f"{why.message}. {why.next_step}", key, warning=True),)

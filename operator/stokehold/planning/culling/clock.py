"""The idle clock: how long a workspace is known to have been quiet. It lives in `status.activity`.

It counts time for which there is proof, from one observation to the next. A gap in the proof is counted as unknown
time, not as idle time, and does not turn the clock back; activity does.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stokehold.api.v1alpha1.dev_workspace import Activity
from stokehold.model.statuses import whole
from stokehold.planning.culling.signals import Evidence, State

ZERO = timedelta()


@dataclass(frozen=True, slots=True)
class Clock:
    """Quiet and unknown time since the last activity, as far as there is proof: up to `observed`."""

    last_active: datetime
    quiet: timedelta = ZERO
    unknown: timedelta = ZERO
    measured_since: datetime | None = None
    observed: datetime | None = None
    fell_quiet: datetime | None = None
    """Since when there has been no activity but proof of quiet, gaps and forgotten ones included."""

    @property
    def coverage(self) -> float | None:
        """The part of the time since it fell quiet for which there is proof; None before it did."""
        return self.quiet / (self.quiet + self.unknown) if self.quiet else None

    @property
    def quiet_since(self) -> datetime | None:
        """When it fell quiet. What forgets gaps must not move it: who fell quiet together is told by it."""
        if self.observed is None or not self.quiet:
            return None
        return self.fell_quiet or self.observed - self.quiet - self.unknown

    def rests_on(self, window: timedelta, least_coverage: float) -> datetime | None:
        """Since when the proof runs on which a stop after such a window would rest: since it fell quiet, or, where too
        much is missing since then, since the last gap: a whole window after that nobody asks for what was before.

        The answer stays the same however long it is quiet after that: who came back together stays together.
        """
        since = self.quiet_since
        if since is None or self.observed is None or self.measured_since is None:
            return since
        missing = self.observed - since - self.quiet
        quiet = self.quiet - (self.observed - self.measured_since) + window
        return since if quiet >= least_coverage * (quiet + missing) else max(since, self.measured_since)


def read_clock(activity: Activity | None, started: datetime) -> Clock:
    """The clock as it was written; a start counts as activity."""
    last = activity.last_active_time if activity else None
    if activity is None or last is None or last < started:
        return Clock(whole(started))
    return Clock(
        last,
        timedelta(seconds=activity.quiet_seconds or 0),
        timedelta(seconds=activity.unknown_seconds or 0),
        activity.measured_since,
        activity.observed_time,
        activity.quiet_since,
    )


def advance(clock: Clock, evidence: Evidence, window: timedelta) -> Clock:
    """The clock with what has been seen since. After a whole window without a gap older gaps are forgotten."""
    if evidence.last_active is not None and evidence.last_active > clock.last_active:
        clock = Clock(evidence.last_active)
    if evidence.state is State.ACTIVE or evidence.since is None or evidence.until is None:
        return clock
    begin = max(evidence.since, clock.last_active, clock.observed or clock.last_active)
    if evidence.until <= begin:
        return clock
    if clock.observed is None or not clock.quiet:
        clock = replace(clock, measured_since=begin, unknown=ZERO, fell_quiet=begin)
    elif begin > clock.observed:
        clock = replace(clock, measured_since=begin, unknown=clock.unknown + (begin - clock.observed))
    clock = replace(clock, quiet=clock.quiet + (evidence.until - begin), observed=evidence.until)
    if clock.measured_since is not None and evidence.until - clock.measured_since >= window:
        clock = replace(clock, unknown=ZERO)
    return clock

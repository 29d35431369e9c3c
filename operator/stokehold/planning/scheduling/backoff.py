"""How long to hold back after an attempt has ended, and which nodes to leave alone for a while.

Everything is derived from what the jobs' own statuses record, so a new leader knows as much as the old one.
"""

from collections import defaultdict
from datetime import datetime, timedelta

from stokehold.model.reasons import Eviction
from stokehold.model.snapshot import Job, Snapshot
from stokehold.planning.scheduling.attempts import Attempt
from stokehold.planning.scheduling.lifecycle import End
from stokehold.planning.scheduling.settings import SchedulingSettings


def requeue_time(job: Job, attempt: Attempt, end: End, now: datetime, settings: SchedulingSettings) -> datetime:
    """When the next attempt may start: later after each failure, soon after a fault of the cluster."""
    if end.eviction == Eviction.WORKER_FAILED:
        return now + _doubled(settings.restart_backoff, attempt.restarts, settings)
    recent = [e for e in job.status.evictions if e.time is not None and now - e.time <= settings.fault_window]
    return now + _doubled(settings.requeue_backoff, len(recent), settings)


def nodes_to_avoid(snapshot: Snapshot, settings: SchedulingSettings) -> frozenset[str]:
    """Nodes whose kubelet has refused workers more than once of late; forgiven when the last refusal is old enough."""
    refusals: dict[str, int] = defaultdict(int)
    for job in snapshot.jobs.values():
        for eviction in job.status.evictions:
            if eviction.reason != Eviction.REJECTED_BY_NODE or eviction.time is None:
                continue
            if snapshot.taken_at - eviction.time <= settings.fault_window:
                refusals[eviction.node] += 1
    return frozenset(node for node, count in refusals.items() if count >= settings.refusals_to_avoid)


def _doubled(first: timedelta, times: int, settings: SchedulingSettings) -> timedelta:
    return min(first * (1 << min(times, 16)), settings.longest_backoff)

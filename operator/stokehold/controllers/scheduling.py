"""The scheduling cycle: TrainingJobs, from what the watches hold to pods and statuses."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import Gauge

from stokehold.api.conditions import QUOTA_RESERVED, find_condition
from stokehold.api.v1alpha1 import training_job as api
from stokehold.model.actions import Action, FinishJob, WriteStatus
from stokehold.model.snapshot import Job, Snapshot
from stokehold.observability import metrics
from stokehold.planning.scheduling.queueing import queue_of

WAITING = ("", api.PENDING, api.RESTARTING)


def count_actions(actions: Iterable[Action], snapshot: Snapshot) -> None:
    """Metrics of what has been decided."""
    for action in actions:
        match action:
            case FinishJob():
                queue = queue_of(action.job, snapshot)
                metrics.JOBS_FINISHED.labels(queue, action.proof.reason).inc()
                _count_start(action.job, action.status or {}, snapshot)
            case WriteStatus():
                _count_status(action, snapshot)
            case _:
                pass  # counted by outcome where they are carried out


def count_state(snapshot: Snapshot) -> None:
    """Metrics of how things stand: jobs by phase and reason, and how long the oldest has waited."""
    phases: Counter[tuple[str, str]] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    oldest: dict[str, float] = {}
    for job in snapshot.jobs.values():
        queue = queue_of(job, snapshot)
        phases[queue, job.status.phase or api.PENDING] += 1
        if job.status.phase in WAITING:
            reasons[queue, job.status.queue.reason if job.status.queue else "PendingEvaluation"] += 1
            waited = (snapshot.taken_at - _waiting_since(job)).total_seconds()
            oldest[queue] = max(oldest.get(queue, 0.0), waited)
    _publish(metrics.JOBS, phases)
    _publish(metrics.JOBS_WAITING, reasons)
    metrics.OLDEST_WAIT_SECONDS.clear()
    for queue, seconds in oldest.items():
        metrics.OLDEST_WAIT_SECONDS.labels(queue).set(seconds)


def _waiting_since(job: Job) -> datetime:
    """When it last lost its GPUs; a job that never had any has waited since it was made."""
    reserved = find_condition(job.status.conditions, QUOTA_RESERVED)
    return (reserved.last_transition_time if reserved and job.status.start_time else None) or job.created_at


def _count_status(action: WriteStatus, snapshot: Snapshot) -> None:
    if not isinstance(action.subject, Job):
        return
    _count_start(action.subject, action.status, snapshot)
    if action.closes_attempt:
        metrics.EVICTIONS.labels(action.closes_attempt).inc()


def _count_start(job: Job, status: Mapping[str, Any], snapshot: Snapshot) -> None:
    """The wait of a job whose start is told for the first time, be it with its end."""
    started = status.get("startTime")
    if started is None or job.status.start_time is not None:
        return
    waited = (datetime.fromisoformat(started) - job.created_at).total_seconds()
    metrics.JOB_WAIT_SECONDS.labels(queue_of(job, snapshot)).observe(max(0.0, waited))


def _publish(gauge: Gauge, counts: Counter[tuple[str, str]]) -> None:
    gauge.clear()
    for labels, count in counts.items():
        gauge.labels(*labels).set(count)

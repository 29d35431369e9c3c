"""The scheduling cycle: what was decided about TrainingJobs, and what waits, as metrics."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import Gauge

from stokehold.api.conditions import ADMITTED, FALSE, QUOTA_RESERVED, find_condition
from stokehold.api.v1alpha1 import training_job as api
from stokehold.model.actions import Action, FinishJob, WriteStatus
from stokehold.model.reasons import Progress
from stokehold.model.snapshot import Job, Snapshot, Workspace
from stokehold.model.statuses import Owner
from stokehold.observability import metrics
from stokehold.planning.scheduling.queueing import Queues, queue_of
from stokehold.planning.scheduling.single_pods import waiting_replicas, waiting_workspaces

WAITING = ("", api.PENDING, api.RESTARTING)


def count_done(action: Action, snapshot: Snapshot) -> None:
    """Metrics of a decision that has been carried out; `snapshot` is one from about then."""
    match action:
        case FinishJob():
            queue = queue_of(action.job, snapshot)
            metrics.JOBS_FINISHED.labels(queue, action.proof.reason).inc()
            _count_start(action.job, action.status or {}, snapshot)
        case WriteStatus():
            _count_status(action, snapshot)
        case _:
            pass  # no more is told of them than that they were done


def count_state(snapshot: Snapshot) -> None:
    """Metrics of how things stand: jobs by phase and reason, and how long the oldest work of each kind has waited."""
    phases: Counter[tuple[str, str]] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    queues = Queues(snapshot)
    for job in snapshot.jobs.values():
        queue = queues.of(job)
        phases[queue, job.status.phase or api.PENDING] += 1
        if job.status.phase in WAITING:
            reasons[queue, job.status.queue.reason if job.status.queue else Progress.NOT_LOOKED_AT] += 1
    _publish(metrics.JOBS, phases)
    _publish(metrics.JOBS_WAITING, reasons)
    metrics.OLDEST_WAIT_SECONDS.clear()
    for (kind, queue), seconds in oldest_waits(queues).items():
        metrics.OLDEST_WAIT_SECONDS.labels(kind, queue).set(seconds)


def oldest_waits(queues: Queues) -> dict[tuple[str, str], float]:
    """For how many seconds the work of each kind and queue that has waited longest has waited."""
    oldest: dict[tuple[str, str], float] = {}
    for owner, since in _waits(queues.snapshot):
        key = (owner.KIND, queues.of(owner))
        oldest[key] = max(oldest.get(key, 0.0), (queues.snapshot.taken_at - since).total_seconds())
    return oldest


def _waits(snapshot: Snapshot) -> Iterator[tuple[Owner, datetime]]:
    """All that wants GPUs and has none, and since when."""
    for job in snapshot.jobs.values():
        if job.status.phase in WAITING:
            yield job, _lost_at(job, QUOTA_RESERVED) or job.created_at
    for workspace in waiting_workspaces(snapshot):
        # A stopped one that was started again a moment ago has not been told anything yet.
        asked = snapshot.taken_at if workspace.status.start_time else workspace.created_at
        yield workspace, _lost_at(workspace, ADMITTED) or asked
    for replica in waiting_replicas(snapshot):
        yield replica.pool, replica.pod.created_at or snapshot.taken_at


def _lost_at(owner: Job | Workspace, kind: str) -> datetime | None:
    """When the condition of something that has run before became False."""
    lost = find_condition(owner.status.conditions, kind)
    return lost.last_transition_time if lost and lost.status == FALSE and owner.status.start_time else None


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

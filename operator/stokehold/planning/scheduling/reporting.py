"""What the status of a job says: built whole from the recorded one and from what has happened. Pure.

A status is written only when it tells the user something new: each write costs the API server as much as a pod.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from stokehold.api import conditions
from stokehold.api.conditions import Condition, find_condition
from stokehold.api.v1alpha1 import training_job as api
from stokehold.api.v1alpha1.shared import QueueDetails, QueueStatus
from stokehold.model.actions import Placement
from stokehold.model.reasons import Burst, Eviction, Finish, Progress, Waiting
from stokehold.model.snapshot import Job, Node, Proof
from stokehold.model.statuses import News, Owner, Recorded, Status, render, told_conditions, whole
from stokehold.model.unsupported import in_job, validity
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.placement.pools import Pool, taints_to_answer
from stokehold.planning.placement.prices import GpuPrice, Tariff
from stokehold.planning.scheduling.attempts import Attempt
from stokehold.planning.scheduling.lifecycle import End

REMEMBERED_EVICTIONS = 5


def started(job: Job, attempt: Attempt, now: datetime) -> Status:
    """All workers run."""
    start = attempt.started_at or now
    update = {
        "phase": api.RUNNING,
        "queue": None,
        "requeue_at": None,
        "placement": placement_of(attempt),
        "attempt": attempt.number,
        "restarts": attempt.restarts,
        "start_time": job.status.start_time or start,
        "conditions": _told(
            job,
            now,
            (conditions.QUOTA_RESERVED, True, Progress.ADMITTED, "GPUs are reserved"),
            (conditions.ADMITTED, True, Progress.ADMITTED, "the gang was placed"),
            (conditions.PODS_READY, True, Progress.STARTED, "all workers run"),
            *_behind_it(job),
        ),
    }
    return render(job, update)


def starting(job: Job, attempt: Attempt, now: datetime) -> Status:
    """Admitted, but some workers do not run yet: images are pulled, volumes attached."""
    update = {
        "phase": api.STARTING,
        "queue": None,
        "requeue_at": None,
        "placement": placement_of(attempt),
        "attempt": attempt.number,
        "restarts": attempt.restarts,
        "conditions": _told(
            job,
            now,
            (conditions.QUOTA_RESERVED, True, Progress.ADMITTED, "GPUs are reserved"),
            (conditions.ADMITTED, True, Progress.ADMITTED, "the gang was placed"),
            (conditions.PODS_READY, False, Progress.STARTING, _how_far(attempt)),
            *_behind_it(job),
        ),
    }
    return render(job, update)


def is_news_of_start(job: Job, attempt: Attempt) -> bool:
    """Whether a gang that starts is not told to, or keeps from starting what is not told."""
    told, trouble = find_condition(job.status.conditions, conditions.PODS_READY), _trouble(attempt)
    gist = ": ".join(trouble.split(": ")[:2])  # the worker and the reason: the rest may change with each try
    return job.status.phase != api.STARTING or told is None or gist not in told.message


def _how_far(attempt: Attempt) -> str:
    ready = sum(pod.phase == "Running" for pod in attempt.pods)
    trouble = _trouble(attempt)
    return f"{ready} of {attempt.size} workers run" + (f"; {trouble}" if trouble else "")


def _trouble(attempt: Attempt) -> str:
    """What the first worker that cannot start lacks."""
    return next((f"{pod.name}: {pod.trouble[:512]}" for pod in attempt.pods if pod.trouble), "")


def waiting(job: Job, attempt: Attempt, why: Explanation, position: int | None, now: datetime) -> Status:
    """No GPUs yet: one reason, its numbers, and what the owner can do."""
    phase = api.SUSPENDED if why.reason == Waiting.SUSPENDED else api.PENDING
    if why.reason == Waiting.BACKING_OFF and attempt.number > 1:
        phase = api.RESTARTING
    update = {
        "phase": phase,
        "attempt": attempt.number if attempt.number > 1 else None,
        "restarts": attempt.restarts or None,
        "placement": None,
        "queue": queue_status(why, position, now),
        "conditions": _told(
            job, now, (conditions.QUOTA_RESERVED, False, why.reason, why.message), *_no_longer_ready(job)
        ),
    }
    return render(job, update)


def requeued(job: Job, attempt: Attempt, end: End, requeue_at: datetime, tariff: Tariff, now: datetime) -> Status:
    """The attempt is closed, the job goes back to the queue; the number moves on, so nothing is counted twice."""
    reason = end.reason
    counts, suspended = reason == Eviction.WORKER_FAILED, reason == Eviction.SUSPENDED
    message = end.message if suspended else f"{end.message}; next attempt at {requeue_at:%H:%M:%S} UTC"
    why = Explanation(
        Waiting.SUSPENDED if suspended else Waiting.BACKING_OFF,
        message,
        "Set spec.suspend to false to queue it again." if suspended else "Nothing to do: it starts again by itself.",
    )
    status = job.status
    failure = api.Failure(
        time=whole(now),
        reason=reason,
        message=end.message,
        node=end.node,
        exit_code=end.exit_code,
        counts_as_restart=counts,
    )
    eviction = api.Eviction(time=whole(now), reason=reason, node=end.node)
    update = {
        "phase": api.SUSPENDED if suspended else api.RESTARTING,
        "attempt": attempt.number + 1,
        "restarts": attempt.restarts + (1 if counts else 0),
        "requeue_at": None if suspended else whole(requeue_at),
        "last_failure": status.last_failure if suspended else failure,
        "evictions": (*status.evictions, eviction)[-REMEMBERED_EVICTIONS:],
        "queue": queue_status(why, None, now),
        "usage": _usage(job, attempt, tariff, now, lost=True),
        "conditions": _told(
            job,
            now,
            (conditions.QUOTA_RESERVED, False, reason, end.message),
            (conditions.ADMITTED, False, reason, end.message),
            (conditions.PODS_READY, False, reason, end.message),
            (conditions.EVICTED, True, reason, end.message),
            (conditions.REQUEUED, True, reason, message),
        ),
    }
    return render(job, update)


def finished(job: Job, attempt: Attempt, proof: Proof, tariff: Tariff, now: datetime) -> Status:
    """The job is over, well or badly."""
    succeeded = proof.outcome == api.SUCCEEDED
    update = {
        "phase": proof.outcome,
        "queue": None,
        "requeue_at": None,
        "attempt": proof.attempt,
        "restarts": proof.restarts,
        "placement": placement_of(attempt) or job.status.placement,
        "start_time": job.status.start_time or attempt.started_at,
        "completion_time": whole(proof.completed_at),
        "usage": _usage(job, attempt, tariff, now, lost=not succeeded),
        "conditions": _told(
            job,
            now,
            *_given_back(job),
            *_behind_it(job),
            (conditions.FINISHED, True, Recorded(proof.reason), proof.message),
        ),
    }
    return render(job, update)


def proof_of(attempt: Attempt, end: End, now: datetime) -> Proof:
    """The record of the job's end, for the annotation."""
    ends = [pod.finished_at for pod in attempt.pods if pod.finished_at is not None]
    return Proof(
        outcome=api.SUCCEEDED if end.reason == Finish.SUCCEEDED else api.FAILED,
        attempt=attempt.number,
        restarts=attempt.restarts,
        completed_at=max(ends) if ends and end.reason == Finish.SUCCEEDED else whole(now),
        reason=str(end.reason),
        message=end.message,
    )


def proof_from_status(job: Job, now: datetime) -> Proof:
    """The same from a status that says that the job is over, should the annotation be lost."""
    ended = find_condition(job.status.conditions, conditions.FINISHED)
    return Proof(
        outcome=job.status.phase,
        attempt=job.status.attempt or 1,
        restarts=job.status.restarts or 0,
        completed_at=job.status.completion_time or whole(now),
        reason=ended.reason if ended else "",
        message=ended.message if ended else "",
    )


def queue_status(why: Explanation, position: int | None, now: datetime) -> QueueStatus:
    """The part of the status that says why a job waits."""
    details = None
    if why.unit:
        details = QueueDetails(requested=why.requested, available=why.available, unit=why.unit)
    return QueueStatus(
        position=position,
        reason=str(why.reason),
        message=why.message,
        next_step=why.next_step,
        details=details,
        observed_time=whole(now),
    )


def is_worth_writing(owner: Owner, why: Explanation, position: int | None, now: datetime, every: timedelta) -> bool:
    """Whether the waiting status has news: a new reason at once, new numbers now and then."""
    told = owner.status.queue
    if told is None or owner.status.observed_generation != owner.generation or told.reason != why.reason:
        return True
    if told.message == why.message and told.position == position:
        return False
    if why.urgent not in told.message:
        return True
    return told.observed_time is None or now - told.observed_time >= every


def placement_of(attempt: Attempt) -> api.Placement | None:
    """Where the attempt runs, as its pods say."""
    lead = attempt.lead
    if lead is None or lead.worker is None:
        return None
    worker = lead.worker
    return api.Placement(pool=worker.pool, gpu_type=worker.gpu_type, capacity=worker.capacity, nodes=worker.placement)


def planned(attempt: Attempt, pool: Pool | None, nodes: Mapping[str, Node]) -> Placement | None:
    """The placement that the lead worker remembers, to complete a gang by."""
    lead = attempt.lead
    if lead is None or lead.worker is None:
        return None
    worker = lead.worker
    resource = pool.gpu_resource if pool is not None else ""
    taints = taints_to_answer(pool, (nodes[name] for name in worker.placement if name in nodes))
    return Placement(worker.pool, worker.gpu_type, worker.capacity, resource, worker.placement, taints)


def _told(job: Job, now: datetime, *news: News) -> tuple[Condition, ...]:
    return told_conditions(job, now, *news, *validity(job.status.conditions, in_job(job.spec)))


def _no_longer_ready(job: Job) -> list[News]:
    """Conditions that an earlier attempt left True, should its end have been recorded by nobody."""
    stale = [c.type for c in job.status.conditions if c.status == "True"]
    return [
        (kind, False, Progress.WAITING, "the job waits")
        for kind in (conditions.ADMITTED, conditions.PODS_READY)
        if kind in stale
    ]


def _behind_it(job: Job) -> Iterator[News]:
    """What was told while it waited and is true no more: that it was evicted, and why no nodes were bought for it."""
    for kind in (conditions.EVICTED, conditions.REQUEUED):
        told = find_condition(job.status.conditions, kind)
        if told is not None and told.status == conditions.TRUE:
            yield kind, False, Progress.ADMITTED, "a later attempt was placed"
    bought = find_condition(job.status.conditions, conditions.CAPACITY_PROVISIONED)
    if bought is not None and bought.status == conditions.FALSE and bought.reason != Burst.REQUESTED:
        yield conditions.CAPACITY_PROVISIONED, False, Burst.COVERED, "it was placed on nodes that were there"


def _given_back(job: Job) -> list[News]:
    """What had been told of a job that held GPUs or waited for them; what was never told needs no taking back."""
    told = [c.type for c in job.status.conditions]
    return [
        (kind, False, Progress.ENDED, "the job has ended")
        for kind in (conditions.QUOTA_RESERVED, conditions.ADMITTED, conditions.PODS_READY)
        if kind in told
    ]


def _usage(job: Job, attempt: Attempt, tariff: Tariff, now: datetime, *, lost: bool) -> api.Usage:
    """What was used before and what this attempt has: the GPUs that its pods had, whatever the spec says by now."""
    before = job.status.usage or api.Usage()
    gpu_seconds = round(attempt.gpu_seconds(now, tariff.gpu_resource))
    return before.model_copy(
        update={
            "run_seconds": (before.run_seconds or 0) + round(attempt.run_seconds(now)),
            "gpu_seconds": (before.gpu_seconds or 0) + gpu_seconds,
            "lost_gpu_seconds": (before.lost_gpu_seconds or 0) + (gpu_seconds if lost else 0),
            **_cost(before, gpu_seconds, tariff.price),
        }
    )


def _cost(before: api.Usage, gpu_seconds: int, price: GpuPrice | None) -> dict[str, Any]:
    """Amounts of another currency cannot be added: then the first one stands."""
    if price is None or (before.currency is not None and before.currency != price.currency):
        return {}
    return {"cost": (before.cost or 0) + price.of_seconds(gpu_seconds), "currency": price.currency}

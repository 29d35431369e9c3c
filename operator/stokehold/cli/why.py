"""`stokehold why`: one object's state in plain words. What is printed is what the status says, nothing more."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from stokehold.api.conditions import FINISHED, find_condition
from stokehold.api.v1alpha1 import training_job as api
from stokehold.api.v1alpha1.training_job import TrainingJob


@dataclass(frozen=True, slots=True)
class Answer:
    """Why a job stands where it stands: one reason, a sentence, and what to do about it."""

    phase: str
    reason: str
    message: str
    next_step: str = ""


def why(job: TrainingJob) -> Answer:
    """The answer for a TrainingJob, from its status alone."""
    status = job.status
    ended = find_condition(status.conditions, FINISHED)
    if ended is not None and ended.status == "True":
        return Answer(status.phase, ended.reason, ended.message)
    if status.queue is not None:
        queue = status.queue
        return Answer(status.phase, queue.reason, queue.message, queue.next_step)
    if status.phase == api.RUNNING and status.placement is not None:
        nodes = ", ".join(dict.fromkeys(status.placement.nodes))
        return Answer(status.phase, "Started", f"attempt {status.attempt} runs on {nodes}")
    if status.phase == api.STARTING:
        ready = find_condition(status.conditions, "PodsReady")
        return Answer(status.phase, "Starting", ready.message if ready else "its pods are starting")
    return Answer(
        status.phase or api.PENDING,
        "PendingEvaluation",
        "Stokehold has not looked at it yet",
        "Should this last, check that the operator runs: kubectl get lease -n stokehold-system.",
    )


def sentences(job: TrainingJob, now: datetime) -> Iterator[str]:
    """The answer as lines for people."""
    answer = why(job)
    yield f"{job.metadata.namespace}/{job.metadata.name} is {answer.phase}: {answer.reason}"
    yield f"  why   {answer.message}"
    queue = job.status.queue
    if queue is not None:
        if queue.details is not None and queue.details.requested is not None:
            numbers = queue.details
            yield f"  needs {numbers.requested} {numbers.unit}, {numbers.available or 0} can be had now"
        if queue.position is not None:
            yield f"  place {queue.position} in the queue {job.spec.queue_name or '(default)'}"
    if answer.next_step:
        yield f"  next  {answer.next_step}"
    if queue is not None and queue.observed_time is not None:
        yield f"  as of {queue.observed_time:%H:%M:%S} UTC, {(now - queue.observed_time).seconds} s ago"
    if job.status.restarts:
        yield f"  restarts {job.status.restarts} of {job.spec.failure_policy.max_restarts}"
    failure = job.status.last_failure
    if failure is not None and failure.message and failure.message not in answer.message:
        yield f"  last failure: {failure.message}"

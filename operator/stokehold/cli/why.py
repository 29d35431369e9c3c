"""`stokehold why`: one object's state in plain words. What is printed is what the status says, nothing more."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import click

from stokehold.api.conditions import (
    CAPACITY_AVAILABLE,
    FINISHED,
    METRICS_FRESH,
    PODS_READY,
    READY,
    SCALING_ACTIVE,
    find_condition,
)
from stokehold.api.v1alpha1 import training_job as api
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cli import objects
from stokehold.cli.access import Access, access_options, ask, now
from stokehold.cli.objects import Work
from stokehold.cli.tables import plain, print_json, to_json
from stokehold.model.reasons import Idleness, Progress, Stop

TROUBLE_OF_POOLS = (CAPACITY_AVAILABLE, READY, SCALING_ACTIVE, METRICS_FRESH)
"""The conditions of a pool, that which users feel most first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Why something stands where it stands: one reason, a sentence, and what to do about it."""

    phase: str
    """Its `status.phase`."""
    reason: str
    """One word; see docs/reference/reasons.md."""
    message: str
    """The same as a sentence."""
    next_step: str = ""
    """What its owner can do; empty when nothing is to be done."""


@click.command("why")
@click.argument("what", metavar="[KIND/]NAME")
@access_options()
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Sentences for people, or JSON for scripts.",
)
def explain(access: Access, what: str, output: str) -> None:
    """Say why a job, workspace or pool waits, runs or has ended: one reason, and the next step.

    KIND is tj (the default), gws or gpool.
    """
    kind, name = objects.kind_and_name(what, TrainingJob)
    place = access.one_place
    found = ask(access, lambda kube: objects.fetch(kube, kind, place, name))
    if output == "json":
        print_json(to_json(why(found)))
        return
    for line in sentences(found, now()):
        click.echo(plain(line))


def why(found: Work) -> Answer:
    """The answer for an object, from its status alone."""
    match found:
        case TrainingJob():
            return _why_job(found)
        case DevWorkspace():
            return _why_workspace(found)
        case InferencePool():
            return _why_pool(found)


def _why_job(job: TrainingJob) -> Answer:
    status = job.status
    ended = find_condition(status.conditions, FINISHED)
    if ended is not None and ended.status == "True":
        return Answer(status.phase, ended.reason, ended.message)
    if (waits := _why_it_waits(job)) is not None:
        return waits
    if status.phase == api.RUNNING and status.placement is not None:
        nodes = ", ".join(dict.fromkeys(status.placement.nodes))
        return Answer(status.phase, Progress.STARTED, f"attempt {status.attempt} runs on {nodes}")
    if status.phase == api.STARTING:
        ready = find_condition(status.conditions, PODS_READY)
        return Answer(status.phase, Progress.STARTING, ready.message if ready else "its pods are starting")
    return _not_looked_at(status.phase)


def _why_workspace(workspace: DevWorkspace) -> Answer:
    status, name = workspace.status, workspace.metadata.name
    if not workspace.spec.running:
        when = f" since {status.stopped_at:%Y-%m-%d %H:%M} UTC" if status.stopped_at else ""
        return Answer(
            status.phase or "Stopped",
            status.stop_reason or Idleness.NOT_RUNNING,
            f"spec.running is false: it holds no GPUs{when} and keeps its files",
            f"stokehold resume {name} starts it again.",
        )
    if (waits := _why_it_waits(workspace)) is not None:
        return waits
    if status.stop_at is not None and status.phase == "Warned":
        return Answer(
            status.phase,
            Stop.IDLE,
            f"it is idle and will be stopped at {status.stop_at:%Y-%m-%d %H:%M} UTC",
            f"Use it, or stokehold snooze {name} 2h.",
        )
    ready = find_condition(status.conditions, READY)
    if ready is not None and (ready.status == "False" or ready.reason == Progress.STOPS_SOON):
        return Answer(status.phase, ready.reason, ready.message)
    if status.phase:
        where = f" on {status.placement.node}" if status.placement and status.placement.node else ""
        activity = status.activity
        signals = "; ".join(f"{s.name}: {s.state}, {s.evidence}" for s in (activity.signals if activity else ()))
        changed = f"; {ready.message}" if ready is not None and ready.message else ""
        return Answer(status.phase, status.phase, f"it runs{where}" + (f" ({signals})" if signals else "") + changed)
    return _not_looked_at(status.phase)


def _why_pool(pool: InferencePool) -> Answer:
    status = pool.status
    if (waits := _why_it_waits(pool)) is not None:
        return waits
    if not status.phase:
        return _not_looked_at(status.phase)
    trouble = (find_condition(status.conditions, kind) for kind in TROUBLE_OF_POOLS)
    if (worst := next((told for told in trouble if told is not None and told.status == "False"), None)) is not None:
        return Answer(status.phase, worst.reason, worst.message)
    latest = status.decisions[-1] if status.decisions else None
    told = find_condition(status.conditions, READY)
    ready = (
        told.message if told else f"{status.ready_replicas or 0} of {status.desired_replicas or 0} replicas are ready"
    )
    return Answer(
        status.phase, latest.reason if latest else status.phase, f"{ready}; {latest.message}" if latest else ready
    )


def _why_it_waits(found: Work) -> Answer | None:
    queue = found.status.queue
    return Answer(found.status.phase or "Pending", queue.reason, queue.message, queue.next_step) if queue else None


def _not_looked_at(phase: str) -> Answer:
    return Answer(
        phase or "Pending",
        Progress.NOT_LOOKED_AT,
        "Stokehold has not looked at it yet",
        "Should this last, check that the operator runs: kubectl get lease -n stokehold-system.",
    )


def sentences(found: Work, now: datetime) -> Iterator[str]:
    """The answer as lines for people."""
    answer = why(found)
    yield f"{found.metadata.namespace}/{found.metadata.name} is {answer.phase}: {answer.reason}"
    yield f"  why   {answer.message}"
    queue = found.status.queue
    if queue is not None:
        if queue.details is not None and queue.details.requested is not None:
            numbers = queue.details
            unit = numbers.unit if numbers.requested != 1 else re.sub(r"s\b", "", numbers.unit, count=1)
            yield f"  needs {numbers.requested} {unit}, {numbers.available or 0} can be had now"
        if queue.position is not None:
            named = found.spec.queue_name if isinstance(found, TrainingJob) else None
            yield f"  place {queue.position} in the queue {named or '(default)'}"
    if answer.next_step:
        yield f"  next  {answer.next_step}"
    if queue is not None and queue.observed_time is not None:
        yield f"  as of {queue.observed_time:%H:%M:%S} UTC, {int((now - queue.observed_time).total_seconds())} s ago"
    if isinstance(found, TrainingJob):
        yield from _history(found, answer)


def _history(job: TrainingJob, answer: Answer) -> Iterator[str]:
    """What earlier attempts came to."""
    if job.status.restarts:
        yield f"  restarts {job.status.restarts} of {job.spec.failure_policy.max_restarts}"
    failure = job.status.last_failure
    if failure is not None and failure.message and failure.message not in answer.message:
        yield f"  last failure: {failure.message}"

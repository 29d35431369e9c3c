"""`stokehold queue`: what waits for GPUs, in the order in which it is looked at."""

from dataclasses import dataclass
from datetime import datetime

import click

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.v1alpha1 import training_job as api
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cli import objects
from stokehold.cli.access import Access, access_options, ask, now
from stokehold.cli.get import item_of
from stokehold.cli.objects import Work
from stokehold.cli.tables import OUTPUT, Column, show, span
from stokehold.model.reasons import Progress


@dataclass(frozen=True, slots=True)
class Waiting:
    """One object that waits."""

    position: int | None
    """Its place in its queue, from 1; null while it is not in the queue: the reason says why."""
    kind: str
    """TrainingJob, DevWorkspace or InferencePool."""
    namespace: str
    """Its namespace."""
    name: str
    """Its name."""
    queue: str
    """The GPUQueue that it names; empty for the default queue of its namespace."""
    gpus: int
    """How many GPUs it asks for."""
    reason: str
    """The one thing in its way; see docs/reference/reasons.md."""
    message: str
    """The same as a sentence."""
    next_step: str
    """What its owner can do."""
    waiting_since: datetime | None
    """Since when it has had no GPUs."""


@click.command()
@click.option("--queue", "queue_name", help="Only what names this GPUQueue.")
@access_options(everywhere=True)
@OUTPUT
def queue(access: Access, queue_name: str | None, output: str) -> None:
    """Show what waits for GPUs, in order, each with its one reason."""
    place = access.place
    found = ask(access, lambda api: objects.fetch_all(api, list(objects.RESOURCES), place))
    waiting = [waiting_of(one) for one in found if waits(one)]
    rows = sorted((row for row in waiting if queue_name in (None, row.queue)), key=_order)
    moment = now()
    columns = [
        Column[Waiting]("POSITION", lambda row: row.position, right=True),
        Column("QUEUE", lambda row: row.queue or "(default)"),
        *([Column[Waiting]("NAMESPACE", lambda row: row.namespace)] if place is None else []),
        Column("KIND", lambda row: row.kind),
        Column("NAME", lambda row: row.name),
        Column("GPUS", lambda row: row.gpus, right=True),
        Column("WAITS", lambda row: span(moment - (row.waiting_since or moment)), right=True),
        Column("REASON", lambda row: row.reason),
        Column("MESSAGE", lambda row: row.message),
    ]
    where = f"namespace {place}" if place else "any namespace"
    show(rows, columns, output, f"nothing waits in {where}")


def waits(found: Work) -> bool:
    """Whether it should run and has no GPUs; what its owner holds back does not wait."""
    match found:
        case TrainingJob(status=status, spec=spec):
            return status.phase in ("", api.PENDING, api.RESTARTING) and not spec.suspend
        case DevWorkspace(status=told, spec=workspace):
            return told.phase in ("", "Pending") and workspace.running
        case InferencePool(status=seen):
            return seen.queue is not None


def waiting_of(found: Work) -> Waiting:
    """The row of one object that waits."""
    told, item = found.status.queue, item_of(found)
    return Waiting(
        position=told.position if told else None,
        kind=item.kind,
        namespace=item.namespace,
        name=item.name,
        queue=(found.spec.queue_name or "") if isinstance(found, TrainingJob) else "",
        gpus=item.gpus,
        reason=told.reason if told else Progress.NOT_LOOKED_AT,
        message=told.message if told else "Stokehold has not looked at it yet",
        next_step=told.next_step if told else "",
        waiting_since=_since(found),
    )


def _since(found: Work) -> datetime | None:
    """When it lost its GPUs, or asked for them first."""
    match found:
        case TrainingJob():
            kind = conditions.QUOTA_RESERVED if found.status.start_time else ""
        case DevWorkspace():
            kind = conditions.ADMITTED
        case InferencePool():
            kind = conditions.CAPACITY_AVAILABLE
    lost = find_condition(found.status.conditions, kind)
    since = lost.last_transition_time if lost is not None and lost.status == conditions.FALSE else None
    return since or found.metadata.creation_timestamp


def _order(row: Waiting) -> tuple[object, ...]:
    """By queue and place; after them what is not in the queue, the oldest first."""
    since = row.waiting_since.timestamp() if row.waiting_since else 0.0
    return (row.queue, row.position is None, row.position or 0, since, row.namespace, row.name)

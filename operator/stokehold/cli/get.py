"""`stokehold get`: jobs, workspaces and inference pools in one table."""

from dataclasses import dataclass
from datetime import datetime

import click

from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cli import objects
from stokehold.cli.access import Access, access_options, ask, now
from stokehold.cli.objects import Work
from stokehold.cli.tables import OUTPUT, Column, show, span


@dataclass(frozen=True, slots=True)
class Item:
    """One object."""

    kind: str
    """TrainingJob, DevWorkspace or InferencePool."""
    namespace: str
    """Its namespace."""
    name: str
    """Its name."""
    phase: str
    """Its `status.phase`; Pending until the operator has looked at it."""
    gpus: int
    """How many GPUs it asks for: all workers together, or all replicas that are wanted now."""
    gpu_type: str
    """The type of GPU it has, or had last; empty when it never had any."""
    pool: str
    """The GPUNodePool it runs in, or ran in last."""
    nodes: tuple[str, ...]
    """The nodes it runs on, or ran on last, each once."""
    reason: str
    """Why it waits, or why a workspace was stopped; see docs/reference/reasons.md."""
    message: str
    """The same as a sentence."""
    created_at: datetime | None
    """When it was made."""


@click.command()
@click.argument("kind", required=False)
@access_options(everywhere=True)
@OUTPUT
def get(access: Access, kind: str | None, output: str) -> None:
    """Show jobs, workspaces and inference pools, with where they run or why they do not.

    KIND (tj, gws or gpool) shows one kind alone.
    """
    kinds = list(objects.RESOURCES) if kind is None else [objects.kind_called(kind)]
    place = access.place
    found = ask(access, lambda api: objects.fetch_all(api, kinds, place))
    moment = now()
    columns = [
        *([Column[Item]("NAMESPACE", lambda item: item.namespace)] if place is None else []),
        Column[Item]("KIND", lambda item: item.kind),
        Column("NAME", lambda item: item.name),
        Column("PHASE", lambda item: item.phase),
        Column("GPUS", lambda item: item.gpus, right=True),
        Column("GPU", lambda item: item.gpu_type),
        Column("AGE", lambda item: span(moment - (item.created_at or moment)), right=True),
        Column("REASON", lambda item: item.reason),
    ]
    where = f"namespace {place}" if place else "any namespace"
    items = sorted(map(item_of, found), key=lambda item: (item.namespace, item.kind, item.name))
    show(items, columns, output, f"nothing in {where}")


def item_of(found: Work) -> Item:
    """The row of one object, from its spec and status alone."""
    queue = found.status.queue
    reason, message = (queue.reason, queue.message) if queue else ("", "")
    gpu_type = pool = ""
    nodes: tuple[str, ...] = ()
    match found:
        case TrainingJob(spec=spec, status=status):
            gpus = spec.num_nodes * spec.gpus_per_node
            if status.placement is not None:
                gpu_type, pool = status.placement.gpu_type, status.placement.pool
                nodes = tuple(dict.fromkeys(status.placement.nodes))
        case DevWorkspace(spec=workspace, status=told):
            gpus = workspace.gpus
            reason = reason or told.stop_reason
            if told.placement is not None:
                gpu_type, pool = told.placement.gpu_type, told.placement.pool
                nodes = (told.placement.node,) if told.placement.node else ()
        case InferencePool(spec=serving, status=seen):
            wanted = seen.desired_replicas if seen.desired_replicas is not None else serving.replicas.min
            gpus, gpu_type = serving.gpus_per_replica * wanted, seen.gpu_type
    return Item(
        kind=found.kind,
        namespace=found.metadata.namespace,
        name=found.metadata.name,
        phase=found.status.phase or "Pending",
        gpus=gpus,
        gpu_type=gpu_type,
        pool=pool,
        nodes=nodes,
        reason=reason,
        message=message,
        created_at=found.metadata.creation_timestamp,
    )

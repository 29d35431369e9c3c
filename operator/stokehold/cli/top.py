"""`stokehold top`: how many GPUs each pool has, gives out and uses."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click

from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePool
from stokehold.cli.access import Access, access_options, ask, now, told
from stokehold.cli.tables import OUTPUT, Column, show
from stokehold.cluster.client import KubeApi
from stokehold.cluster.errors import ForbiddenError
from stokehold.cluster.once import list_objects, read_fleet
from stokehold.cluster.resources import GPU_NODE_POOLS
from stokehold.controllers.fleet import agent_state
from stokehold.model.snapshot import Snapshot
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.placement.pools import Pool, count_gpus, resolve_pools

NO_RIGHT = (
    "You may not list nodes and pods, so GPUs were not counted: this is what GPUNodePools say of themselves. "
    "The ClusterRole stokehold-fleet-viewer gives the right."
)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """One pool of GPUs."""

    pool: str
    """The GPUNodePool, or the GPU product where none is declared."""
    gpu_type: str
    """The type of its GPUs."""
    capacity_class: str
    """on-prem, reserved, spot or on-demand."""
    nodes: int | None
    """How many nodes it has."""
    gpus: int | None
    """How many GPUs its nodes offer to pods."""
    used: int | None
    """How many of them pods have requested."""
    free: int | None
    """How many are left."""
    active: int | None
    """GPUs that compute, as the agents on the nodes see it; null where no agent tells."""
    quiet: int | None
    """GPUs that do nothing."""
    unknown: int | None
    """GPUs of which nothing certain is known; never take them for idle."""


@click.command()
@access_options(namespaced=False)
@OUTPUT
def top(access: Access, output: str) -> None:
    """Show the GPUs of each pool: how many there are, are given out, are free, and do compute."""
    rows, complete = ask(access, _read)
    columns = [
        Column[PoolUse]("POOL", lambda row: row.pool),
        Column("GPU", lambda row: row.gpu_type),
        Column("CLASS", lambda row: row.capacity_class),
        *(
            Column[PoolUse](key.upper(), lambda row, key=key: getattr(row, key), right=True)  # type: ignore[misc]
            for key in ("nodes", "gpus", "used", "free", "active", "quiet", "unknown")
        ),
    ]
    show(rows, columns, output, "no node offers GPUs" if complete else "no GPUNodePool is declared")
    if not complete:
        click.echo(NO_RIGHT, err=True)


async def _read(api: KubeApi) -> tuple[list[PoolUse], bool]:
    """The rows, and whether they were counted on the nodes themselves."""
    try:
        return list(uses(await read_fleet(api, now()))), True
    except ForbiddenError:
        with told("list GPUNodePools"):
            pools = await list_objects(api, GPU_NODE_POOLS)
        return list(map(_declared, pools)), False


def uses(snapshot: Snapshot) -> Iterator[PoolUse]:
    """The row of each pool that has GPUs or could have some."""
    for pool in resolve_pools(snapshot):
        if not pool.gpu_type:
            continue
        gpus, activity = count_gpus(pool, snapshot), _activity(pool, snapshot)
        yield PoolUse(
            pool=pool.name,
            gpu_type=pool.gpu_type,
            capacity_class=pool.capacity_class,
            nodes=len(pool.members),
            gpus=gpus.allocatable,
            used=gpus.used,
            free=gpus.free,
            **{state: activity[state] if activity else None for state in ("active", "quiet", "unknown")},
        )


def _activity(pool: Pool, snapshot: Snapshot) -> Counter[str] | None:
    """GPUs by what their agents say; None when no node of the pool has an agent."""
    sightings = [snapshot.sightings[name] for name in pool.members if name in snapshot.sightings]
    if not sightings:
        return None
    counts: Counter[str] = Counter()
    for sighting in sightings:
        heard = agent_state(sighting, snapshot.taken_at, CullingSettings().agent_silent_after) == "heard"
        counts.update(_states(gpu.activity.state if heard and gpu.activity else "" for gpu in sighting.status.gpus))
    return counts


def _states(words: Iterable[str]) -> Iterator[str]:
    """A GPU that is busy on paper alone (Stalled) is not known to be idle either."""
    return ({"Active": "active", "Quiet": "quiet"}.get(word, "unknown") for word in words)


def _declared(stored: dict[str, object]) -> PoolUse:
    pool = GPUNodePool.read({"kind": "GPUNodePool", **stored})
    gpus, nodes = pool.status.gpus, pool.status.nodes
    return PoolUse(
        pool=pool.metadata.name,
        gpu_type=pool.spec.gpu_type,
        capacity_class=pool.spec.capacity_class,
        nodes=nodes.total if nodes else None,
        gpus=gpus.total if gpus else None,
        used=gpus.used if gpus else None,
        free=gpus.free if gpus else None,
        active=None,
        quiet=None,
        unknown=None,
    )

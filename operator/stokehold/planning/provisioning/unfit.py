"""Gangs that do not fit on what is bought for them: `nodeShape` promises too much, or job or pool were changed."""

from collections.abc import Iterator

from stokehold.model.actions import Action, DeleteClaim, WriteStatus
from stokehold.model.demand import Demand
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Node
from stokehold.planning.placement.place import Shortfall, place_gang
from stokehold.planning.placement.pools import Pool, preference
from stokehold.planning.placement.purchases import Purchase
from stokehold.planning.provisioning import reporting
from stokehold.planning.provisioning.imagined import imagined_node, ledger_of, node_of
from stokehold.planning.provisioning.shortage import SHORT
from stokehold.planning.provisioning.world import World

Asked = tuple[Demand, str, str, int]
"""A demand, and what was bought for it: so many nodes of a pool in a zone."""


def take_back_outdated(world: World, pools: tuple[Pool, ...]) -> Iterator[Action]:
    """What the gang could not use even if it came as promised: its job or the pool was changed after it was bought.

    Nobody is to blame, so the breaker stays closed, and it need not have come before it is given back.
    """
    by_name = {pool.name: pool for pool in pools}
    known: dict[Asked, bool] = {}
    for _, purchase in sorted(world.standing.items()):
        pool = by_name.get(purchase.pool)
        if pool is None or purchase.is_failing:
            continue
        asked = purchase.job.demand, purchase.pool, purchase.zone, purchase.size
        if asked not in known:
            known[asked] = _fits_as_promised(asked, pool, world)
        if not known[asked] and not _fits_as_they_are(purchase, pool, world):
            yield from _take_back(purchase, world)


def _fits_as_promised(asked: Asked, pool: Pool, world: World) -> bool:
    demand, name, zone, size = asked
    declared = world.snapshot.node_pools[name]
    return _fits(demand, [imagined_node(f"{name}/{number}", declared, zone) for number in range(size)], pool, world)


def _fits_as_they_are(purchase: Purchase, pool: Pool, world: World) -> bool:
    """Nodes that are there may have labels of their own, such as a rack, that nobody promised."""
    return _fits(purchase.job.demand, [node_of(claim, world) for claim in purchase.claims], pool, world)


def _fits(demand: Demand, nodes: list[Node], pool: Pool, world: World) -> bool:
    if preference(demand, pool) is None:
        return False
    return not isinstance(place_gang(ledger_of(nodes, pool, world.snapshot, (demand,)), demand), Shortfall)


def _take_back(purchase: Purchase, world: World) -> Iterator[Action]:
    for claim in purchase.claims:
        if claim.status.reused_for is not None:
            yield reporting.reused(claim, None, world.now)
        elif not world.tenants(world.nodes.get(claim.name)):
            yield DeleteClaim(claim, "its job, or its pool, was changed so that the job cannot use it")


def take_back_unfit(world: World, pools: tuple[Pool, ...]) -> Iterator[WriteStatus]:
    """All nodes are ready for long enough, the gang still waits, and looking again shows that it cannot fit."""
    by_name = {pool.name: pool for pool in pools}
    for _, purchase in sorted(world.standing.items()):
        pool = by_name.get(purchase.pool)
        if pool is None or purchase.is_failing or not _is_overdue(purchase, world):
            continue
        nodes = [world.nodes[claim.name] for claim in purchase.claims if claim.name in world.nodes]
        demand = purchase.job.demand
        found = place_gang(ledger_of(nodes, pool, world.snapshot, (demand,)), demand)
        if isinstance(found, Shortfall):
            short = found.candidates[0].scarcest if found.candidates else ""
            message = f"the job does not fit on the nodes that came{f', short of {short}' if short else ''}"
            empty = [claim for claim in purchase.claims if not world.tenants(world.nodes.get(claim.name))]
            for claim in sorted(empty, key=lambda claim: claim.status.reused_for is not None)[:1]:
                yield reporting.failed(claim, ClaimFailure.UNFIT, message, world.now)


def _is_overdue(purchase: Purchase, world: World) -> bool:
    queue, ready = purchase.job.status.queue, [claim.status.ready_at for claim in purchase.claims]
    if not purchase.is_ready or queue is None or queue.reason not in SHORT:
        return False
    return all(at is not None and world.now - at >= world.settings.unfit_after for at in ready)

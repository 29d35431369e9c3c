"""Gangs that do not fit on the very nodes that were bought for them: the pool's `nodeShape` promises too much."""

from collections.abc import Iterator

from stokehold.model.actions import WriteStatus
from stokehold.model.reasons import ClaimFailure
from stokehold.planning.placement.place import Shortfall, place_gang
from stokehold.planning.placement.pools import Pool
from stokehold.planning.placement.purchases import Purchase
from stokehold.planning.provisioning import reporting
from stokehold.planning.provisioning.imagined import ledger_of
from stokehold.planning.provisioning.shortage import SHORT
from stokehold.planning.provisioning.world import World


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

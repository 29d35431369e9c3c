"""Nodes that were bought for a gang and whose GPUNodePool is gone: nobody can say what has become of them.

The gang waits for the pool to come back, for what was paid for is there then. In the end it is written off: the claims
are deleted, and nodes of another pool are bought. A claim that remembers its provider gives its machine back at once,
one of an older version keeps its record until the pool is there again. Whoever deletes a claim of such a gang has given
up for it: the others go too, whether another pool has nodes or not, for without that one they are of no use.
"""

from collections.abc import Iterator, Sequence

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.model.actions import Action, DeleteClaim
from stokehold.model.snapshot import Claim
from stokehold.planning.placement.purchases import WRITTEN_OFF_AFTER, Purchase, is_lost
from stokehold.planning.provisioning import reporting
from stokehold.planning.provisioning.offers import Market, Offer
from stokehold.planning.provisioning.world import World


def write_off(world: World, market: Market) -> Iterator[Action]:
    """What gangs have waited for in vain, where another pool has nodes for them; without one waiting costs nothing."""
    for _, purchase in sorted(world.standing.items()):
        if not is_lost(purchase.pool, world.snapshot) or purchase.is_failing or not _is_overdue(purchase, world):
            continue
        if not isinstance(market.best(purchase.job.demand), Offer):
            continue
        for claim in purchase.claims:
            if claim.status.reused_for is not None:
                yield reporting.reused(claim, None, world.now)
            elif not world.tenants(world.nodes.get(claim.name)):
                yield DeleteClaim(claim, f"GPUNodePool {purchase.pool} is gone, its gang buys of another")


def told_of_losses(written_off: Sequence[Claim]) -> str:
    """What to add for whoever pays: machines that were bought for the same gang before, and that nobody can be asked
    to take."""
    claims = [claim for claim in written_off if claim.provider is None]
    if not claims:
        return ""
    return (
        f"; {_nodes(claims)}, which does not exist any more, were bought before and are written off: "
        "their machines may cost until that GPUNodePool is made again"
    )


def told_of_returns(written_off: Sequence[Claim]) -> str:
    """What to add while machines that were bought for the same gang before go: their claims know whom to ask."""
    claims = [claim for claim in written_off if claim.provider is not None and claim.deleting]
    if not claims:
        return ""
    return f"; {_nodes(claims)}, which does not exist any more, were bought before and are being given back"


def _nodes(claims: Sequence[Claim]) -> str:
    pools = ", ".join(sorted({claim.spec.pool_name for claim in claims}))
    return f"{'1 node' if len(claims) == 1 else f'{len(claims)} nodes'} of GPUNodePool {pools}"


def _is_overdue(purchase: Purchase, world: World) -> bool:
    """Whether each of its claims has said for long enough that it is stranded."""
    told = [find_condition(claim.status.conditions, reporting.STRANDED) for claim in purchase.claims]
    since = [one.last_transition_time for one in told if one is not None and one.status == conditions.TRUE]
    known = [at for at in since if at is not None]
    overdue = all(world.snapshot.time_given(at) >= WRITTEN_OFF_AFTER for at in known)
    untouched = all(claim.name not in world.touched for claim in purchase.claims)
    return len(known) == len(purchase.claims) and overdue and untouched

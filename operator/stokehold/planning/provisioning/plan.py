"""Which nodes to buy, and which to give back.

    follow       claims on their way: asked for, launched, joined, ready; and what goes wrong on the way
    take back    purchases of which one node failed, or whose gang does not fit on them, or not any more
    buy          for gangs that are short of nodes: all that one needs beside what is free, in one zone, or nothing
    give back    nodes that nobody needs, that are idle for long enough, or too old; machines that nobody asked for
    report       pools: what they have, and what their providers failed at

The record comes before the call: a claim is written, then the provider is asked under the claim's own uid. Whoever
dies in between, the next plan sees the claim and asks again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stokehold.model.actions import Action, DeleteClaim, WriteStatus
from stokehold.model.snapshot import Claim, Snapshot
from stokehold.planning.placement.pools import Pool, resolve_pools
from stokehold.planning.provisioning.following import follow
from stokehold.planning.provisioning.pool_status import report_pools
from stokehold.planning.provisioning.releasing import dismantle, give_back_unneeded, reap_orphans, roll_back
from stokehold.planning.provisioning.settings import ProvisioningSettings
from stokehold.planning.provisioning.shortage import buy
from stokehold.planning.provisioning.unfit import take_back_outdated, take_back_unfit
from stokehold.planning.provisioning.world import World, look_at


def plan_provisioning(snapshot: Snapshot, settings: ProvisioningSettings) -> Iterator[Action]:
    """Everything that can be done now."""
    if not snapshot.node_pools and not snapshot.claims:
        return
    world = look_at(snapshot, settings)
    pools = resolve_pools(snapshot)
    upkeep = list(_look_after(world, pools))
    yield from upkeep
    bought = buy(replace(world, touched=frozenset(_touched(upkeep))), pools)
    yield from bought.actions
    yield from give_back_unneeded(replace(world, touched=frozenset(_touched(bought.actions))), bought.counted_on)
    yield from report_pools(world, pools)


def _look_after(world: World, pools: tuple[Pool, ...]) -> Iterator[Action]:
    """All that concerns nodes which were asked for already."""
    for _, claim in sorted(world.snapshot.claims.items()):
        yield from dismantle(claim, world) if claim.deleting else follow(claim, world)
    yield from take_back_outdated(world, pools)
    yield from take_back_unfit(world, pools)
    yield from roll_back(world)
    yield from reap_orphans(world)


def _touched(actions: Iterable[Action]) -> Iterator[str]:
    for action in actions:
        if isinstance(action, DeleteClaim):
            yield action.claim.name
        elif isinstance(action, WriteStatus) and isinstance(action.subject, Claim):
            yield action.subject.name

"""Giving nodes back: what failed as a whole, what nobody needs any more, what has expired; and how, step by step.

close the node -> nobody is on it -> the claim is deleted -> the provider takes the machine -> the Node -> the record
"""

from collections.abc import Collection, Iterator

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.names import RELEASE_FINALIZER
from stokehold.api.v1alpha1 import gpu_node_claim as api
from stokehold.model.actions import (
    Action,
    CordonNode,
    DeleteClaim,
    DeleteNode,
    ReleaseClaim,
    TerminateNode,
    TerminateOrphan,
)
from stokehold.model.capacity import Terminated
from stokehold.model.snapshot import Claim, Node
from stokehold.planning.provisioning import breaker, reporting
from stokehold.planning.provisioning.world import World, is_coming


def roll_back(world: World) -> Iterator[Action]:
    """Claims that failed, once the breaker knows of it; with one of a gang's nodes all the others go."""
    doomed: set[str] = set()
    for claim in world.snapshot.claims.values():
        is_known = not breaker.is_unrecorded(claim, world.pool_of(claim))
        if claim.status.phase == api.FAILED and not claim.deleting and is_known:
            doomed.add(claim.name)
            yield DeleteClaim(claim, _failure(claim))
    for purchase in world.standing.values():
        if not purchase.is_failing:
            continue
        first = next((c for c in purchase.claims if c.status.phase == api.FAILED), purchase.claims[0])
        for claim in purchase.claims:
            if claim.name in doomed or claim.deleting or claim.status.phase == api.FAILED:
                continue
            if claim.status.reused_for is not None:
                yield reporting.reused(claim, None, world.now)
            else:
                yield DeleteClaim(claim, f"another node of the same gang failed: {first.name}, {_failure(first)}")


def give_back_unneeded(world: World, counted_on: Collection[str]) -> Iterator[Action]:
    """In flight for nobody, idle for long enough, or too old. Idle nodes are closed first, and looked at again.

    What is in flight stays while a gang that waits is `counted_on` it, by name of the claim.
    """
    for pool, claims in sorted(world.by_pool.items()):
        spare = [claim for claim in claims if world.is_spare(claim)]
        keep = _kept_warm(pool, spare, world)
        for claim in claims:
            if claim.deleting or (claim.name in world.touched and not claim.status_refused):
                continue
            if world.has_expired(claim):
                yield DeleteClaim(claim, f"it has expired after {claim.spec.expire_after}")
            elif claim in spare and claim.name not in keep and not (is_coming(claim) and claim.name in counted_on):
                yield from _let_go(claim, world)
            elif claim.status.phase == api.DRAINING:
                yield from _look_again(claim, world)
            else:
                yield from _open_again(claim, world)


def dismantle(claim: Claim, world: World) -> Iterator[Action]:
    """The next step of a claim that is deleted; what was begun is begun again by whoever leads next."""
    if RELEASE_FINALIZER not in claim.finalizers:
        return
    node, pool = world.nodes.get(claim.name), world.gives_back_to(claim)
    answer = world.snapshot.answers.get(claim.uid)
    # A schema that does not take the record must not keep the claim: the machine is gone, and its provider says so.
    is_known = claim.status.phase == api.RELEASED or (isinstance(answer, Terminated) and claim.status_refused)
    if is_known:
        yield DeleteNode(node, "its machine was given back") if node is not None else ReleaseClaim(claim)
    elif isinstance(answer, Terminated):
        yield reporting.released(claim, answer.at, world.now)
    elif node is not None and _may_still_drain(claim, node, world):
        if not node.unschedulable:
            yield CordonNode(node, True, "its claim was deleted")
    elif pool is None:
        if not world.is_unread(claim.spec.pool_name):
            yield from filter(None, (reporting.stranded(claim, None, world.now),))
    else:
        yield TerminateNode(claim, pool)


def reap_orphans(world: World) -> Iterator[Action]:
    """Machines that no claim stands for, or a second one for one claim: claims come first, so they are nobody's.

    Not while work runs on them: then a record was lost, or cannot be read, and a person must look.
    """
    if not world.owner:
        return
    by_uid = {claim.uid: claim for claim in world.snapshot.claims.values()}
    at_work = {node.provider_id for node in world.snapshot.nodes.values() if world.tenants(node)}
    for name, listing in sorted(world.snapshot.listings.items()):
        pool = world.snapshot.node_pools.get(name)
        if pool is None or pool.spec.provider is None:
            continue
        for instance in listing.instances or ():
            claim, born = by_uid.get(instance.request_id), instance.launched_at
            if born is None or listing.asked_at - born < world.settings.orphan_after or instance.provider_id in at_work:
                continue
            if claim is None and instance.request_id in world.snapshot.unread_claims:
                continue
            if claim is None:
                yield TerminateOrphan(pool, instance, "no claim stands for it")
            elif claim.status.provider_id and claim.status.provider_id != instance.provider_id:
                yield TerminateOrphan(pool, instance, f"{claim.name} has {claim.status.provider_id} already")


def _kept_warm(pool: str, spare: list[Claim], world: World) -> set[str]:
    """As many spare nodes as the pool keeps warm; those first that are ready, then those that are nearly. All while
    nobody can read how many those are."""
    if world.is_unread(pool):
        return {claim.name for claim in spare}
    found = world.snapshot.node_pools.get(pool)
    wanted = found.spec.keep_warm if found is not None else 0
    ranked = sorted(spare, key=lambda c: (c.status.phase != api.READY, c.created_at, c.name))
    return {claim.name for claim in ranked[:wanted]}


def _let_go(claim: Claim, world: World) -> Iterator[Action]:
    pool, since = world.snapshot.node_pools.get(claim.spec.pool_name), claim.status.idle_since
    if claim.status.phase != api.READY:
        yield DeleteClaim(claim, "nobody waits for it any more")
        return
    node = world.nodes.get(claim.name)
    if claim.status_refused and node is not None:
        yield _next_unrecorded_step(claim, node)
        return
    delay = pool.spec.scale_down.delay.to_timedelta() if pool is not None else world.settings.settle
    if since is None or node is None or world.now - since < delay:
        return
    why = f"idle since {since:%H:%M:%S} UTC"
    yield CordonNode(node, True, why)
    yield reporting.draining(claim, why, world.now)


def _next_unrecorded_step(claim: Claim, node: Node) -> Action:
    """The schema takes no record of an empty node, so the node alone tells how far it is, and nobody waits longer."""
    if node.unschedulable and node.closed_by_us:
        return DeleteClaim(claim, "idle, and its status is refused")
    return CordonNode(node, True, "idle, and its status is refused")


def _open_again(claim: Claim, world: World) -> Iterator[Action]:
    """It was closed, and its claim does not know: that write failed, or a leader before us was late."""
    node = world.nodes.get(claim.name)
    if claim.status.phase == api.READY and node is not None and node.closed_by_us:
        yield CordonNode(node, False, "it is not given back")


def _look_again(claim: Claim, world: World) -> Iterator[Action]:
    """Closed for a moment: given back if it is still empty, opened again if somebody was on the way."""
    node = world.nodes.get(claim.name)
    if node is None:
        yield DeleteClaim(claim, "idle, and its node is gone")
        return
    if world.tenants(node):
        if node.unschedulable:
            yield CordonNode(node, False, f"{world.tenants(node)[0]} is on it")
        else:
            yield reporting.ready(claim, node, world.now)
        return
    told = find_condition(claim.status.conditions, conditions.READY)
    closed_at = told.last_transition_time if told is not None else None
    if not node.unschedulable:
        yield CordonNode(node, True, "idle")
    elif closed_at is None or world.now - closed_at >= world.settings.settle:
        yield DeleteClaim(claim, "idle")


def _may_still_drain(claim: Claim, node: Node, world: World) -> bool:
    """Whether pods on the node have time left; a node that nobody is on must still be closed first."""
    if world.tenants(node):
        since = claim.deleting_since
        return since is None or world.now - since < world.settings.drain_within
    return not node.unschedulable


def _failure(claim: Claim) -> str:
    failure = claim.status.last_failure
    return f"{failure.reason}: {failure.message}" if failure is not None else "it was deleted"

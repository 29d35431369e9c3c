"""How far one claim has come: at most one step a plan, each step a status that the next plan builds on."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import assert_never

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.v1alpha1 import gpu_node_claim as api
from stokehold.model.actions import Action, DeleteClaim, LaunchNode, WriteStatus
from stokehold.model.capacity import Instance, NodeRequest, Refusal, Terminated
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Claim, Node, NodePool
from stokehold.planning.placement.pools import pool_taints
from stokehold.planning.provisioning import reporting
from stokehold.planning.provisioning.imagined import labels_of, offered
from stokehold.planning.provisioning.world import World


def follow(claim: Claim, world: World) -> Iterator[Action]:
    """The next step of a claim that is not being given back."""
    pool = world.pool_of(claim)
    if not world.is_unread(claim.spec.pool_name) and (news := reporting.stranded(claim, pool, world.now)):
        yield news
        return
    match claim.status.phase:
        case "" | api.REQUESTED:
            yield from _ask(claim, pool, world)
        case api.LAUNCHED | api.REGISTERED:
            yield from _await_node(claim, world)
        case api.READY:
            yield from _watch_over(claim, world)
        case _:
            pass  # Draining, Failed and Released are the business of `releasing`


def _ask(claim: Claim, pool: NodePool | None, world: World) -> Iterator[Action]:
    """Ask the provider until it has answered; its answer, or a machine that is there already, is written down."""
    now = world.now
    answer = world.snapshot.answers.get(claim.uid) or _listed(claim, world)
    match answer:
        case Instance():
            wanted = claim.spec.zone
            if wanted and answer.zone and answer.zone != wanted:
                message = f"asked for zone {wanted}, machine {answer.provider_id} is in {answer.zone}"
                yield reporting.failed(claim, ClaimFailure.CONFIG, message, now)
            else:
                yield reporting.launched(claim, answer, now)
        case Refusal():
            yield reporting.failed(claim, answer.reason, answer.message, now)
        case Terminated() | None:
            if pool is None:
                return
            if why := _unwanted(claim, world):
                yield DeleteClaim(claim, why)
            elif _is_late(claim, world):
                message = f"the provider has not answered within {claim.spec.ready_within}"
                yield reporting.failed(claim, ClaimFailure.TIMEOUT, message, now)
            elif world.owner:
                if not claim.status.phase:
                    yield reporting.requested(claim, now)
                yield LaunchNode(claim, pool, request_of(claim, pool, world.owner))
        case _:
            assert_never(answer)


def _unwanted(claim: Claim, world: World) -> str:
    """Why nobody should be asked for it; empty otherwise, and once somebody was.

    A leader that was replaced may have written it for what its successor has decided otherwise.
    """
    if claim.status.phase:
        return ""
    if claim.work is not None and not world.is_held(claim):
        return "nobody waits for it any more"
    return "limits.maxNodes leaves no room for it" if claim.name in world.beyond_limit else ""


def _await_node(claim: Claim, world: World) -> Iterator[Action]:
    """Launched: until the node has joined and offers its GPUs, or the time is up."""
    now, node = world.now, world.nodes.get(claim.name)
    if gone := _vanished(claim, world):
        yield reporting.failed(claim, ClaimFailure.GONE, gone, now)
        return
    has = node.allocatable.get(claim.spec.resource_name, 0) if node is not None else 0
    if node is not None and node.ready and has >= claim.spec.gpus_per_node:
        yield reporting.ready(claim, node, now)
        return
    if failure := _gave_up(claim, node, has, world):
        yield failure
    elif node is not None and claim.status.phase == api.LAUNCHED:
        yield reporting.registered(claim, node, now)
    elif node is not None and node.ready and _gpus_missing_since(claim) is None:
        yield reporting.without_gpus(claim, has, now)


def _gave_up(claim: Claim, node: Node | None, has: int, world: World) -> WriteStatus | None:
    missing = _gpus_missing_since(claim)
    lacks = f"node {node.name} is Ready and offers {has} of {claim.spec.gpus_per_node} GPUs" if node else ""
    if node is not None and node.ready and missing and world.now - missing >= world.settings.gpus_within:
        return reporting.failed(claim, ClaimFailure.GPU_MISSING, lacks, world.now)
    if not _is_late(claim, world):
        return None
    if node is not None and node.ready:
        return reporting.failed(claim, ClaimFailure.GPU_MISSING, lacks, world.now)
    message = f"the node was not ready within {claim.spec.ready_within}"
    return reporting.failed(claim, ClaimFailure.TIMEOUT, message, world.now)


def _watch_over(claim: Claim, world: World) -> Iterator[Action]:
    """Ready: whether it is still there, and for what it is paid."""
    now, node = world.now, world.nodes.get(claim.name)
    tenants = world.tenants(node)
    if gone := _vanished(claim, world):
        yield reporting.failed(claim, ClaimFailure.GONE, gone, now)
    elif node is None:
        yield reporting.failed(claim, ClaimFailure.GONE, f"node {claim.status.node_name} was deleted", now)
    elif tenants and (claim.status.idle_since is not None or reporting.told_holder(claim) not in tenants):
        yield reporting.busy(claim, tenants[0], now)
    elif not tenants and claim.status.idle_since is None:
        yield reporting.idle(claim, now)
    elif now - _billed_until(claim) >= world.settings.refresh_every:
        yield reporting.refreshed(claim, now)


def request_of(claim: Claim, pool: NodePool, owner: str) -> NodeRequest:
    """All that the provider needs to know."""
    spec = claim.spec
    return NodeRequest(
        request_id=claim.uid,
        claim=claim.name,
        pool=pool.name,
        owner=owner,
        gpu_type=spec.gpu_type,
        gpus=spec.gpus_per_node,
        gpu_resource=spec.resource_name,
        capacity_class=spec.capacity_class,
        zone=spec.zone or "",
        instance_type=spec.instance_type or "",
        labels=tuple(sorted(labels_of(claim.name, pool, spec.zone or "").items())),
        taints=pool_taints(pool.spec),
        resources=tuple(sorted(offered(pool).items())),
        expires_at=claim.created_at + spec.expire_after.to_timedelta(),
    )


def _listed(claim: Claim, world: World) -> Instance | None:
    """A machine that was asked for by this claim, whose answer was lost."""
    listing = world.snapshot.listings.get(claim.spec.pool_name)
    if listing is None or listing.instances is None:
        return None
    found = sorted((i for i in listing.instances if i.request_id == claim.uid), key=lambda i: i.provider_id)
    return found[0] if found else None


def _vanished(claim: Claim, world: World) -> str:
    """Why the machine is taken for gone; empty while the provider lists it, or has not been asked since it must."""
    listing = world.snapshot.listings.get(claim.spec.pool_name)
    told = find_condition(claim.status.conditions, reporting.LAUNCHED)  # by our clock, not the provider's
    if listing is None or listing.instances is None or told is None or told.last_transition_time is None:
        return ""
    if listing.asked_at - told.last_transition_time < world.settings.vanished_after:
        return ""
    if any(instance.provider_id == claim.status.provider_id for instance in listing.instances):
        return ""
    return f"the provider does not know machine {claim.status.provider_id} any more"


def _is_late(claim: Claim, world: World) -> bool:
    return world.now - claim.created_at >= claim.spec.ready_within.to_timedelta()


def _gpus_missing_since(claim: Claim) -> datetime | None:
    told = find_condition(claim.status.conditions, conditions.READY)
    if told is None or told.reason != ClaimFailure.GPU_MISSING:
        return None
    return told.last_transition_time


def _billed_until(claim: Claim) -> datetime:
    """Up to when the cost in the status reaches."""
    paid, start = claim.status.paid, claim.status.launched_at or claim.created_at
    if paid is None:
        return start
    return start + timedelta(seconds=(paid.booting_seconds or 0) + (paid.idle_seconds or 0) + (paid.busy_seconds or 0))

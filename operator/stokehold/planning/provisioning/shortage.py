"""Which waiting gangs are short of nodes, in their order, and what is bought for them: all of it or nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.durations import Duration
from stokehold.api.v1alpha1 import gpu_node_claim as api
from stokehold.model.actions import Action, CreateClaim, DeleteClaim, Placement, WriteStatus
from stokehold.model.demand import Demand
from stokehold.model.reasons import Burst, Waiting
from stokehold.model.snapshot import Claim, Job, NodePool, Snapshot
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import Shortfall, place_gang
from stokehold.planning.placement.pools import Pool
from stokehold.planning.placement.prices import node_price
from stokehold.planning.placement.priorities import priority_of
from stokehold.planning.placement.purchases import Purchase, attempt_of, is_known, waits
from stokehold.planning.provisioning import breaker, reporting
from stokehold.planning.provisioning.claim_names import claim_names, warm_name
from stokehold.planning.provisioning.imagined import ledger_of, node_of
from stokehold.planning.provisioning.losses import told_of_losses, told_of_returns, write_off
from stokehold.planning.provisioning.offers import Market, Offer, Refused
from stokehold.planning.provisioning.settings import ProvisioningSettings
from stokehold.planning.provisioning.world import World, is_coming

SHORT = (
    Waiting.PROVISIONING,
    Waiting.WAITING_FOR_CAPACITY,
    Waiting.NO_MATCHING_FLAVOR,
    Waiting.TOPOLOGY_PLACEMENT_FAILED,
)
"""What scheduling says of a gang for which only nodes are missing."""
MOST_PURCHASES = 20
"""In one plan; the next one follows at once."""
MOST_CONSIDERED = 200
"""Gangs that are bought for, or told why not, in one plan: whoever stands behind them has others to wait for."""


@dataclass(frozen=True, slots=True)
class Plenty:
    """All that is free or on its way: one ledger of what is there and coming, one more for each new purchase."""

    here: Ledger
    bought: list[Ledger] = field(default_factory=list)
    hopeless: set[Demand] = field(default_factory=set)

    counted_on: set[str] = field(default_factory=set)
    """Nodes on which gangs have been booked, by name; a node that is coming has the name of its claim."""

    def takes(self, demand: Demand) -> bool:
        """Book the gang if it will fit on what is there and what is coming; what did not fit once never will."""
        if demand in self.hopeless:
            return False
        found = place_gang(self.here, demand)
        if isinstance(found, Shortfall):
            self.hopeless.add(demand)
            return False
        self.counted_on.update(found.nodes)
        return True

    def has_left(self, demand: Demand) -> bool:
        """Book the gang if it fits beside another on nodes that are bought in this plan."""
        return any(not isinstance(place_gang(ledger, demand), Shortfall) for ledger in self.bought)


@dataclass(frozen=True, slots=True)
class Bought:
    """What is to be done about the shortage."""

    actions: tuple[Action, ...]
    counted_on: frozenset[str] = frozenset()
    """Claims for whose nodes somebody waits who need not buy any."""


def buy(world: World, pools: tuple[Pool, ...]) -> Bought:
    """Complete what was begun, buy for the gangs that are short, keep warm; and tell the gangs."""
    actions: list[Action] = [*_tell_bought(world)]
    if not any(pool.bought for pool in pools):
        return Bought(tuple(actions))
    short = short_gangs(world.snapshot, world.standing)
    plenty = _plenty(world, pools) if short else Plenty(Ledger(replace(world.snapshot, nodes={}, used={}), (), ()))
    market = Market(world, pools, plenty.here)
    actions += write_off(world, market)
    actions += _complete(world, market)
    actions += _buy_for(short, plenty, market, world)
    actions += _keep_warm(market, world)
    return Bought(tuple(actions), frozenset(plenty.counted_on))


def short_gangs(snapshot: Snapshot, standing: dict[str, Purchase]) -> list[Job]:
    """Gangs that scheduling told that nodes are missing, and for which none are being bought: first who is first."""
    classes = snapshot.priority_classes
    found = [
        job
        for job in snapshot.jobs.values()
        if job.status.queue is not None
        and job.status.queue.reason in SHORT
        and job.demand.gpus
        and job.uid not in standing
        and waits(job, snapshot)
    ]
    return sorted(found, key=lambda job: (-priority_of(job, classes), job.created_at, job.key))


def next_trigger(snapshot: Snapshot, settings: ProvisioningSettings) -> datetime | None:
    """When the next gang will have waited for long enough that nodes are bought for it; None when there is none."""
    pools = (pool.spec for pool in snapshot.node_pools.values() if pool.spec.provider is not None)
    ages = {settings.trigger_of(spec)[1] for spec in pools}
    dues = (
        job.created_at + age
        for job in snapshot.jobs.values()
        if job.status.queue is not None and job.status.queue.reason in SHORT
        for age in ages
    )
    return min((due for due in dues if due > snapshot.taken_at), default=None)


def _buy_for(short: list[Job], plenty: Plenty, market: Market, world: World) -> Iterator[Action]:
    most = max(world.settings.trigger_of(pool.spec)[0] for pool in world.snapshot.node_pools.values())
    uncovered, covered, waiting_gpus = _uncovered(short, plenty, most)
    bought = 0
    for job in uncovered:
        if bought == MOST_PURCHASES:
            break
        if plenty.has_left(job.demand):
            covered.append(job)
            continue
        offer = market.best(job.demand)
        if isinstance(offer, Offer):
            offer = _not_due(job, waiting_gpus, offer.pool, world) or offer
        if isinstance(offer, Offer) and world.is_moving(offer.pool.name):
            continue  # a node that is free for it took a step in this plan: the next one, at once, counts it in
        if isinstance(offer, Refused):
            yield from _tell(job, offer.reason, offer.message, world)
            continue
        bought += 1
        market.take(offer.pool.name, offer.bought, offer.reused)
        plenty.bought.append(offer.ledger)
        work = _beneficiary(job, attempt_of(job), offer.nodes)
        for claim in offer.reused:
            yield reporting.reused(claim, work, world.now)
        for name in _names(job, work.attempt, offer.bought, world):
            spec = _spec(job, work, offer.pool, offer.zone, world)
            yield CreateClaim(name, spec, offer.pool.spec.provider)
    yield from _tell_covered(covered, world)


def _tell_covered(covered: list[Job], world: World) -> Iterator[WriteStatus]:
    """Those who were told something else before: why nothing was bought for them, or that something was."""
    for job in covered:
        told = find_condition(job.status.conditions, conditions.CAPACITY_PROVISIONED)
        if told is not None and told.status != conditions.TRUE:
            yield from _tell(job, Burst.COVERED, "it will fit on nodes that are free or coming, beside others", world)


def _uncovered(short: list[Job], plenty: Plenty, enough_gpus: int) -> tuple[list[Job], list[Job], int]:
    """The first gangs that will not fit, those before them that will, and the GPUs that the former wait for.

    As far as anybody needs to know.
    """
    found: list[Job] = []
    covered: list[Job] = []
    waiting_gpus = 0
    for job in short:
        if plenty.takes(job.demand):
            covered.append(job)
            continue
        found.append(job)
        waiting_gpus += job.demand.count * job.demand.gpus
        if len(found) >= MOST_CONSIDERED and waiting_gpus >= enough_gpus:
            break
    return found[:MOST_CONSIDERED], covered, waiting_gpus


def _not_due(job: Job, waiting_gpus: int, pool: NodePool, world: World) -> Refused | None:
    """Why nothing is bought yet for want of want; None when enough is waited for."""
    gpus, age = world.settings.trigger_of(pool.spec)
    # What has begun goes on at half the threshold, so that a queue around it does not make bursts flicker.
    has_begun = any(purchase.pool == pool.name for purchase in world.standing.values())
    if waiting_gpus >= (gpus // 2 if has_begun else gpus) or world.now - job.created_at >= age:
        return None
    waited = Duration.of_seconds(round(age.total_seconds()))
    message = f"nodes of pool {pool.name} are bought when {gpus} GPUs are waited for, or after {waited}"
    return Refused(Burst.BELOW_TRIGGER, message)


def _complete(world: World, market: Market) -> Iterator[Action]:
    """Claims that somebody did not live to create, or in whose place a spare node stood that others have taken."""
    for _, purchase in sorted(world.standing.items()):
        if not is_known(purchase.pool, world.snapshot):
            continue
        present = {claim.name for claim in purchase.claims}
        lacks = purchase.size - len(present)
        reused = [claim for claim in purchase.claims if claim.status.reused_for is not None]
        if lacks <= 0 or purchase.is_failing:
            yield from _let_go(world, _lost_to_others(purchase, world, market))
        elif market.headroom.get(purchase.pool, 0) < lacks:
            yield from _let_go(world, reused)
            yield from _give_up(purchase, world, market)
        else:
            market.take(purchase.pool, lacks)
            work = _beneficiary(purchase.job, purchase.attempt, purchase.size)
            pool = world.snapshot.node_pools[purchase.pool]
            spec = _spec(purchase.job, work, pool, purchase.zone, world)
            names = _names(purchase.job, purchase.attempt, purchase.size, world)
            for name in islice((name for name in names if name not in present), lacks):
                yield CreateClaim(name, spec, pool.spec.provider)


def _names(job: Job, attempt: int, count: int, world: World) -> Iterator[str]:
    """Those of the first nodes of an attempt; of what is written off the records, and with them the names, remain."""
    taken = {claim.name for claim in world.written_off.get(job.uid, ())}
    return islice((name for name in claim_names(job, attempt) if name not in taken), count)


def _lost_to_others(purchase: Purchase, world: World, market: Market) -> Iterator[Claim]:
    """Nodes that were free for the gang, and that others have filled since so that it fits no more."""
    taken = [c for c in purchase.claims if c.status.reused_for is not None and world.tenants(world.nodes.get(c.name))]
    pool = market.pool(purchase.pool)
    if taken and pool is not None and isinstance(place_on_own(purchase, pool, world), Shortfall):
        yield from taken


def _give_up(purchase: Purchase, world: World, market: Market) -> Iterator[Action]:
    """A part of a purchase whose rest the limit no longer allows is of no use; nodes that others are on stay."""
    leaving = sum(claim.deleting for claim in world.claims_of(purchase.pool))
    lacks = purchase.size - len(purchase.claims)
    if market.headroom.get(purchase.pool, 0) + leaving >= lacks:
        return
    for claim in purchase.claims:
        if claim.status.reused_for is None and not claim.deleting and not world.tenants(world.nodes.get(claim.name)):
            yield DeleteClaim(claim, "limits.maxNodes leaves no room for the rest of its gang's nodes")


def _let_go(world: World, reused: Iterable[Claim]) -> Iterator[WriteStatus]:
    for claim in reused:
        yield reporting.reused(claim, None, world.now)


def _plenty(world: World, pools: tuple[Pool, ...]) -> Plenty:
    """What is free now and what is on its way, less what the gangs that it was bought for will take of it."""
    snapshot, by_name = world.snapshot, {pool.name: pool for pool in pools}
    coming = [c for c in snapshot.claims.values() if is_coming(c) and c.spec.pool_name in by_name]
    demands = {job.demand for job in snapshot.jobs.values()}
    nodes = dict(snapshot.nodes)
    members: dict[str, list[str]] = {}
    for claim in coming:
        node = node_of(claim, world)
        nodes[node.name] = node
        members.setdefault(claim.spec.pool_name, []).append(node.name)
    wider = [replace(pool, members=(*pool.members, *members.get(pool.name, ()))) for pool in pools]
    ledger = Ledger(replace(snapshot, nodes=nodes), wider, demands)
    for purchase in world.standing.values():
        if purchase.pool in by_name and not purchase.is_failing:
            _reserve(ledger, purchase, by_name[purchase.pool], world)
    return Plenty(ledger)


def _reserve(ledger: Ledger, purchase: Purchase, pool: Pool, world: World) -> None:
    found = place_on_own(purchase, pool, world)
    if not isinstance(found, Shortfall):
        for node in found.nodes:
            ledger.reserve(node, purchase.job.demand, pool.gpu_resource)


def place_on_own(purchase: Purchase, pool: Pool, world: World) -> Placement | Shortfall:
    """Where the gang would go on the nodes that are kept for it, beside whoever is on them."""
    demand, nodes = purchase.job.demand, [node_of(claim, world) for claim in purchase.claims]
    return place_gang(ledger_of(nodes, pool, world.snapshot, (demand,), world.snapshot.used), demand)


def _keep_warm(market: Market, world: World) -> Iterator[Action]:
    """Nodes that are there although nobody needs them yet, in the first zone that delivers."""
    for name in sorted(market.headroom):
        pool, claims = world.snapshot.node_pools[name], world.claims_of(name)
        warm = [claim for claim in claims if world.is_spare(claim)]
        lacks = min(pool.spec.keep_warm - len(warm), market.headroom[name])
        zones = pool.spec.zones or ("",)
        zone = next((z for z in zones if breaker.blocking(pool, z, claims, world.now) is None), None)
        if lacks <= 0 or zone is None:
            continue
        market.take(name, lacks)
        taken = {claim.name for claim in claims}
        free = (n for n in (warm_name(name, number) for number in range(1, 20_001)) if n not in taken)
        for warm_claim in islice(free, lacks):
            yield CreateClaim(warm_claim, _node_spec(pool, zone, world), pool.spec.provider)


def _node_spec(pool: NodePool, zone: str, world: World) -> api.GPUNodeClaimSpec:
    spec, settings = pool.spec, world.settings
    return api.GPUNodeClaimSpec(
        pool_name=pool.name,
        gpu_type=spec.gpu_type,
        gpus_per_node=spec.gpus_per_node or 1,
        resource_name=spec.resource_name,
        capacity_class=spec.capacity_class,
        zone=zone or None,
        price_per_hour=node_price(pool),
        ready_within=_duration(settings.ready_within),
        expire_after=_duration(settings.expire_after),
    )


def _duration(span: timedelta) -> Duration:
    return Duration.of_seconds(max(1, round(span.total_seconds())))


def _tell_bought(world: World) -> Iterator[Action]:
    """The gangs for which nodes were bought: that they are coming, and when all are there."""
    for purchase in world.purchases:
        job = purchase.job
        if purchase.is_failing or purchase.attempt != attempt_of(job) or job.proof is not None:
            continue
        zone = f" in zone {purchase.zone}" if purchase.zone else ""
        what = f"{purchase.size} node{'s' if purchase.size > 1 else ''} of pool {purchase.pool}{zone}"
        if purchase.is_ready:
            yield from _tell(job, Burst.PROVISIONED, f"{what} for attempt {purchase.attempt}", world)
        elif job.uid in world.standing:
            deadline = f"{purchase.ready_by:%H:%M:%S} UTC"
            yield from _tell(job, Burst.REQUESTED, f"{what} until {deadline} at the latest", world)


def _tell(job: Job, reason: Burst, message: str, world: World) -> Iterator[WriteStatus]:
    written_off = world.written_off.get(job.uid, ())
    message += told_of_losses(written_off)
    told = reporting.provisioned(job, reason, message, world.now, told_of_returns(written_off))
    if told is not None:
        yield told


def _beneficiary(job: Job, attempt: int, nodes: int) -> api.Beneficiary:
    return api.Beneficiary(namespace=job.namespace, name=job.name, uid=job.uid, attempt=attempt, nodes=nodes)


def _spec(job: Job, work: api.Beneficiary, pool: NodePool, zone: str, world: World) -> api.GPUNodeClaimSpec:
    update = {"for_work": work, "queue_name": job.spec.queue_name}
    return _node_spec(pool, zone, world).model_copy(update=update)

"""Which waiting gangs are short of nodes, in their order, and what is bought for them: all of it or nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice

from stokehold.api.durations import Duration
from stokehold.api.v1alpha1 import gpu_node_claim as api
from stokehold.model.actions import Action, CreateClaim, WriteStatus
from stokehold.model.demand import Demand
from stokehold.model.reasons import Burst, Waiting
from stokehold.model.snapshot import Claim, Job, Node, NodePool, Snapshot
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import Shortfall, place_gang
from stokehold.planning.placement.pools import Pool
from stokehold.planning.placement.prices import node_price
from stokehold.planning.placement.priorities import priority_of
from stokehold.planning.placement.purchases import Purchase, attempt_of, waits
from stokehold.planning.provisioning import breaker, reporting
from stokehold.planning.provisioning.claim_names import claim_name, warm_name
from stokehold.planning.provisioning.imagined import imagined_node, ledger_of
from stokehold.planning.provisioning.offers import Market, Offer, Refused
from stokehold.planning.provisioning.world import World

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

    def takes(self, demand: Demand) -> bool:
        """Book the gang if it will fit on what is there and what is coming; what did not fit once never will."""
        if demand in self.hopeless:
            return False
        if isinstance(place_gang(self.here, demand), Shortfall):
            self.hopeless.add(demand)
        return demand not in self.hopeless

    def has_left(self, demand: Demand) -> bool:
        """Book the gang if it fits beside another on nodes that are bought in this plan."""
        return any(not isinstance(place_gang(ledger, demand), Shortfall) for ledger in self.bought)


def buy(world: World, pools: tuple[Pool, ...]) -> Iterator[Action]:
    """Complete what was begun, buy for the gangs that are short, keep warm; and tell the gangs."""
    market = Market(world, pools)
    yield from _tell_bought(world)
    if market.is_empty:
        return
    yield from _complete(world, market)
    short = short_gangs(world.snapshot, world.standing)
    if short:
        yield from _buy_for(short, _plenty(world, pools), market, world)
    yield from _keep_warm(market, world)


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


def _buy_for(short: list[Job], plenty: Plenty, market: Market, world: World) -> Iterator[Action]:
    most = max(world.settings.trigger_of(pool.spec)[0] for pool in world.snapshot.node_pools.values())
    uncovered, waiting_gpus = _uncovered(short, plenty, most)
    bought = 0
    for job in uncovered:
        if bought == MOST_PURCHASES:
            return
        if plenty.has_left(job.demand):
            continue
        offer = market.best(job.demand)
        if isinstance(offer, Offer):
            offer = _not_due(job, waiting_gpus, offer.pool, world) or offer
        if isinstance(offer, Refused):
            yield from _tell(job, offer.reason, offer.message, world)
            continue
        bought += 1
        market.take(offer.pool.name, offer.bought, offer.reused)
        plenty.bought.append(offer.ledger)
        work = _beneficiary(job, attempt_of(job), offer.nodes)
        for claim in offer.reused:
            yield reporting.reused(claim, work, world.now)
        for index in range(offer.bought):
            yield CreateClaim(claim_name(job, work.attempt, index), _spec(job, work, offer.pool, offer.zone, world))


def _uncovered(short: list[Job], plenty: Plenty, enough_gpus: int) -> tuple[list[Job], int]:
    """The first gangs that will not fit, and the GPUs that they wait for: as far as anybody needs to know."""
    found: list[Job] = []
    waiting_gpus = 0
    for job in short:
        if plenty.takes(job.demand):
            continue
        found.append(job)
        waiting_gpus += job.demand.count * job.demand.gpus
        if len(found) >= MOST_CONSIDERED and waiting_gpus >= enough_gpus:
            break
    return found[:MOST_CONSIDERED], waiting_gpus


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
        present = {claim.name for claim in purchase.claims}
        lacks = purchase.size - len(present)
        reused = [claim for claim in purchase.claims if claim.status.reused_for is not None]
        if lacks <= 0 or purchase.is_failing:
            yield from _let_go(world, (claim for claim in reused if world.tenants(world.nodes.get(claim.name))))
        elif market.headroom.get(purchase.pool, 0) < lacks:
            yield from _let_go(world, reused)
        else:
            market.take(purchase.pool, lacks)
            work = _beneficiary(purchase.job, purchase.attempt, purchase.size)
            spec = _spec(purchase.job, work, world.snapshot.node_pools[purchase.pool], purchase.zone, world)
            names = (claim_name(purchase.job, purchase.attempt, index) for index in range(purchase.size))
            for name in islice((name for name in names if name not in present), lacks):
                yield CreateClaim(name, spec)


def _let_go(world: World, reused: Iterable[Claim]) -> Iterator[WriteStatus]:
    for claim in reused:
        yield reporting.reused(claim, None, world.now)


def _plenty(world: World, pools: tuple[Pool, ...]) -> Plenty:
    """What is free now and what is on its way, less what the gangs that it was bought for will take of it."""
    snapshot, by_name = world.snapshot, {pool.name: pool for pool in pools}
    coming = [c for c in snapshot.claims.values() if _is_coming(c) and c.spec.pool_name in by_name]
    demands = {job.demand for job in snapshot.jobs.values()}
    nodes = dict(snapshot.nodes)
    members: dict[str, list[str]] = {}
    for claim in coming:
        node = _imagined(claim, world)
        nodes[node.name] = node
        members.setdefault(claim.spec.pool_name, []).append(node.name)
    wider = [replace(pool, members=(*pool.members, *members.get(pool.name, ()))) for pool in pools]
    ledger = Ledger(replace(snapshot, nodes=nodes), wider, demands)
    for purchase in world.standing.values():
        if purchase.pool in by_name and not purchase.is_failing:
            _reserve(ledger, purchase, by_name[purchase.pool], world)
    return Plenty(ledger)


def _reserve(ledger: Ledger, purchase: Purchase, pool: Pool, world: World) -> None:
    demand, snapshot = purchase.job.demand, world.snapshot
    nodes = [_known(claim, world) for claim in purchase.claims]
    found = place_gang(ledger_of(nodes, pool, snapshot, (demand,)), demand)
    if not isinstance(found, Shortfall):
        for node in found.nodes:
            ledger.reserve(node, demand, pool.gpu_resource)


def _is_coming(claim: Claim) -> bool:
    return not claim.deleting and claim.status.phase in ("", api.REQUESTED, api.LAUNCHED, api.REGISTERED)


def _imagined(claim: Claim, world: World) -> Node:
    pool = world.snapshot.node_pools[claim.spec.pool_name]
    return imagined_node(claim.name, pool, claim.spec.zone or "")


def _known(claim: Claim, world: World) -> Node:
    """The claim's node as it is, if it can be used, else as it should join."""
    node = world.nodes.get(claim.name)
    return node if node is not None and claim.status.phase == api.READY else _imagined(claim, world)


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
            yield CreateClaim(warm_claim, _node_spec(pool, zone, world))


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
    told = reporting.provisioned(job, reason, message, world.now)
    if told is not None:
        yield told


def _beneficiary(job: Job, attempt: int, nodes: int) -> api.Beneficiary:
    return api.Beneficiary(namespace=job.namespace, name=job.name, uid=job.uid, attempt=attempt, nodes=nodes)


def _spec(job: Job, work: api.Beneficiary, pool: NodePool, zone: str, world: World) -> api.GPUNodeClaimSpec:
    update = {"for_work": work, "queue_name": job.spec.queue_name}
    return _node_spec(pool, zone, world).model_copy(update=update)

"""What could be bought for a gang: hard filters first, then the job's wishes, then the price."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import ceil

from stokehold.model.demand import Demand
from stokehold.model.reasons import Burst
from stokehold.model.snapshot import Claim, Node, NodePool
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import Shortfall, place_gang
from stokehold.planning.placement.pools import Pool
from stokehold.planning.placement.prices import GpuPrice, gpu_price
from stokehold.planning.provisioning import breaker
from stokehold.planning.provisioning.imagined import imagined_node, ledger_of, node_of
from stokehold.planning.provisioning.world import World, is_coming


@dataclass(frozen=True, slots=True)
class Offer:
    """So many nodes of one pool in one zone would do; `ledger` is of them alone, with the gang booked in."""

    pool: NodePool
    zone: str
    nodes: int
    reused: tuple[Claim, ...]
    """Those of them that are there already, or coming, with room for some of the gang."""
    ledger: Ledger

    @property
    def bought(self) -> int:
        """Those that must be asked for."""
        return self.nodes - len(self.reused)


@dataclass(frozen=True, slots=True)
class Room:
    """A node that is there or coming, and how many workers of one shape it still takes."""

    claim: Claim
    node: Node
    slots: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a pool is no option; of several the one that came closest is told."""

    reason: Burst
    message: str


NEW = "/"
"""Begins the names of nodes that are to be asked for: no node can have such a name."""

CLOSENESS = (
    Burst.NO_MATCHING_POOL,
    Burst.DATA_CLASS,
    Burst.TOO_LARGE,
    Burst.LIMIT_REACHED,
    Burst.CURRENCY,
    Burst.PROVIDER_FAILING,
)


class Market:
    """The pools that nodes can be bought for, and how many more each may have."""

    def __init__(self, world: World, pools: tuple[Pool, ...], here: Ledger) -> None:
        """`here` is what is free on the nodes that are there and coming, once all who fit there have their place."""
        self.world = world
        self._here = here
        self._pools = {pool.name: pool for pool in pools if pool.bought}
        self._declared = {name: world.snapshot.node_pools[name] for name in self._pools}
        # Whose claims cannot be read is not known: they count against the limit of every pool.
        unread = len(world.snapshot.unread_claims - {claim.uid for claim in world.snapshot.claims.values()})
        self.headroom = {
            name: max(0, (pool.spec.limits.max_nodes if pool.spec.limits else 0) - len(world.claims_of(name)) - unread)
            for name, pool in self._declared.items()
        }
        self._reused: set[str] = set()
        self._best: dict[Demand, Offer | Refused] = {}
        budgets = (queue.spec.budget for queue in world.snapshot.queues.values())
        self._budgeted = {budget.currency for budget in budgets if budget is not None}
        self._demands = {job.demand for job in world.snapshot.jobs.values()}

    def pool(self, name: str) -> Pool | None:
        """The pool of this name, if nodes can be bought for it."""
        return self._pools.get(name)

    def take(self, pool: str, nodes: int, reused: Iterable[Claim] = ()) -> None:
        """So many more of the pool's nodes are spoken for, and these that are there already."""
        self.headroom[pool] -= nodes
        self._reused |= {claim.name for claim in reused}
        self._best.clear()

    def best(self, demand: Demand) -> Offer | Refused:
        """The first offer in the order of preference that holds the whole gang, else why there is none.

        Equal demands have equal answers until something is taken.
        """
        if demand not in self._best:
            self._best[demand] = self._find(demand)
        return self._best[demand]

    def _find(self, demand: Demand) -> Offer | Refused:
        refusals: list[Refused] = []
        for name in self._ranked(demand, refusals):
            found = self._best_zone(name, demand, refusals)
            if found is not None:
                return found
        if not refusals:
            return Refused(Burst.NO_MATCHING_POOL, "no pool with a provider has GPUs of a type that the job allows")
        return max(refusals, key=lambda refused: CLOSENESS.index(refused.reason))

    def _best_zone(self, name: str, demand: Demand, refusals: list[Refused]) -> Offer | None:
        """The zone in which the fewest nodes must be bought; of equals the first, for it is preferred."""
        best: Offer | None = None
        for zone in self._declared[name].spec.zones or ("",):
            if best is not None and not self.world.open_claims(name, zone):
                continue  # all would have to be bought here
            found = self._offer(name, zone, demand)
            if isinstance(found, Refused):
                refusals.append(found)
            elif best is None or found.bought < best.bought:
                best = found
        return best

    def _ranked(self, demand: Demand, refusals: list[Refused]) -> Iterator[str]:
        """Pools that may host it, by GPU type, then capacity class, then price."""
        equals: dict[tuple[int, int], list[tuple[str, GpuPrice | None]]] = {}
        for name, pool in self._pools.items():
            type_rank = _rank(demand.gpu_types, pool.gpu_type)
            class_rank = _rank(demand.capacity_classes, pool.capacity_class)
            if type_rank is None:
                continue
            if class_rank is None:
                allowed = ", ".join(demand.capacity_classes)
                message = f"pool {name} has capacity {pool.capacity_class}, the job allows {allowed}"
                refusals.append(Refused(Burst.NO_MATCHING_POOL, message))
            elif not pool.admits_data(demand.data_class):
                refusals.append(_data_class(pool, demand))
            else:
                equals.setdefault((type_rank, class_rank), []).append((name, gpu_price(self._declared[name])))
        for _, rivals in sorted(equals.items()):
            yield from self._by_price(rivals, refusals)

    def _by_price(self, rivals: list[tuple[str, GpuPrice | None]], refusals: list[Refused]) -> list[str]:
        """The cheapest first, those without a price last; of several currencies only one, that of budgets or of most.

        Nobody tells us an exchange rate, so that a number in another currency is no reason to buy.
        """
        priced = [(price.amount, name, price.currency) for name, price in rivals if price is not None]
        counts = Counter(currency for *_, currency in priced)
        own = min(counts, key=lambda one: (one not in self._budgeted, -counts[one], one), default="")
        for _, name, currency in sorted(priced):
            if currency != own:
                message = (
                    f"pool {name} has its price in {currency}, others of its kind in {own}, which cannot be compared: "
                    f"give it a price in {own}"
                )
                refusals.append(Refused(Burst.CURRENCY, message))
        cheapest = [name for _, name, currency in sorted(priced) if currency == own]
        return cheapest + sorted(name for name, price in rivals if price is None)

    def _offer(self, name: str, zone: str, demand: Demand) -> Offer | Refused:
        pool, where = self._declared[name], f"pool {name}{f' in zone {zone}' if zone else ''}"
        fitting = self._fit(pool, zone, demand, demand.count) or self._fit(pool, zone, demand, demand.min_count)
        if fitting is None:
            message = f"the job does not fit on nodes of {where}: {demand.gpus} GPUs a worker, nodes have "
            return Refused(Burst.TOO_LARGE, f"{message}{pool.spec.gpus_per_node}; see nodeShape and spec.topology")
        if fitting.bought > self.headroom[name]:
            fitting = self._fit(pool, zone, demand, demand.min_count) or fitting
        if fitting.bought > self.headroom[name]:
            most = pool.spec.limits.max_nodes if pool.spec.limits else 0
            message = f"{fitting.bought} nodes are needed, more than the {most} of pool {name} leave room for"
            return Refused(Burst.LIMIT_REACHED, message)
        if block := breaker.blocking(pool, zone, self.world.claims_of(name), self.world.now):
            until = f"; asked again at {block.blocked_until:%H:%M:%S} UTC" if block.blocked_until else ""
            return Refused(Burst.PROVIDER_FAILING, f"{where} failed ({block.reason}: {block.message}){until}")
        return fitting

    def _fit(self, pool: NodePool, zone: str, demand: Demand, workers: int) -> Offer | None:
        """The fewest new nodes that hold so many workers beside what is free; none, should that be too scattered."""
        wanted = _sized(demand, workers)
        slots = self._slots([imagined_node(NEW, pool, zone)], pool, wanted)[0]
        if not slots:
            return None
        rooms = _fewest(self._rooms(pool, zone, wanted), workers, slots)
        found = self._try(rooms, pool, zone, wanted, slots)
        return found or (self._try([], pool, zone, wanted, slots) if rooms else None)

    def _try(self, rooms: list[Room], pool: NodePool, zone: str, wanted: Demand, slots: int) -> Offer | None:
        """These nodes, and as many new ones as the rest of the gang needs."""
        new = max(0, ceil((wanted.count - sum(room.slots for room in rooms)) / slots))
        nodes = [room.node for room in rooms] + [imagined_node(f"{NEW}{i}", pool, zone) for i in range(new)]
        used = {room.node.name: self._here.taken(room.node.name) for room in rooms}
        ledger = ledger_of(nodes, self._pools[pool.name], self.world.snapshot, {wanted, *self._demands}, used)
        if isinstance(place_gang(ledger, wanted), Shortfall):
            return None
        return Offer(pool, zone, len(nodes), tuple(room.claim for room in rooms), ledger)

    def _rooms(self, pool: NodePool, zone: str, wanted: Demand) -> list[Room]:
        """The nodes that would take a part of the gang, those first that take most of it and are there."""
        claims = [c for c in self.world.open_claims(pool.name, zone) if self._is_free(c)]
        nodes = [node_of(claim, self.world) for claim in claims]
        slots = self._slots(nodes, pool, wanted) if nodes else ()
        rooms = [Room(*one) for one in zip(claims, nodes, slots, strict=True) if one[2]]
        return sorted(rooms, key=lambda room: (-room.slots, is_coming(room.claim), room.claim.name))

    def _is_free(self, claim: Claim) -> bool:
        return claim.name not in self._reused and claim.name not in self.world.touched

    def _slots(self, nodes: Sequence[Node], pool: NodePool, wanted: Demand) -> list[int]:
        """How many workers each of the nodes takes beside what is on it."""
        used = {node.name: self._here.taken(node.name) for node in nodes if node.name in self._here.row}
        ledger = ledger_of(nodes, self._pools[pool.name], self.world.snapshot, (wanted,), used)
        shape = ledger.shape(ledger.pools[pool.name], wanted)
        by_name = {ledger.names[row]: int(shape.slots[at]) for row, at in shape.position.items()}
        return [by_name.get(node.name, 0) for node in nodes]


def _fewest(rooms: list[Room], workers: int, slots: int) -> list[Room]:
    """As many of the rooms as save a new node, and no more: whoever comes with less takes the rest."""
    covered = accumulate((room.slots for room in rooms), initial=0)
    needed = [ceil(max(0, workers - held) / slots) for held in covered]
    return rooms[: needed.index(needed[-1])]


def _sized(demand: Demand, workers: int) -> Demand:
    return replace(demand, count=workers, min_count=workers)


def _data_class(pool: Pool, demand: Demand) -> Refused:
    allowed = ", ".join(pool.data_classes) or "none"
    own = f"data class {demand.data_class}" if demand.data_class else "data without a class (the most restricted)"
    return Refused(Burst.DATA_CLASS, f"{own} may not go to pool {pool.name}, which takes {allowed}")


def _rank(wishes: tuple[str, ...], value: str) -> int | None:
    if not wishes:
        return 0
    return wishes.index(value) if value in wishes else None

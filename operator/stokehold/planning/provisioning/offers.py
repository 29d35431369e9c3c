"""What could be bought for a gang: hard filters first, then the job's wishes, then the price."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from math import ceil

from stokehold.model.demand import Demand
from stokehold.model.reasons import Burst
from stokehold.model.snapshot import Claim, NodePool
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import Shortfall, place_gang
from stokehold.planning.placement.pools import Pool
from stokehold.planning.placement.prices import gpu_price
from stokehold.planning.provisioning import breaker
from stokehold.planning.provisioning.imagined import imagined_node, ledger_of
from stokehold.planning.provisioning.world import World


@dataclass(frozen=True, slots=True)
class Offer:
    """So many nodes of one pool in one zone would do; `ledger` is of them alone, with the gang booked in."""

    pool: NodePool
    zone: str
    nodes: int
    reused: tuple[Claim, ...]
    """Those of them that are there already, empty."""
    ledger: Ledger

    @property
    def bought(self) -> int:
        """Those that must be asked for."""
        return self.nodes - len(self.reused)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a pool is no option; of several the one that came closest is told."""

    reason: Burst
    message: str


CLOSENESS = (
    Burst.NO_MATCHING_POOL,
    Burst.DATA_CLASS,
    Burst.TOO_LARGE,
    Burst.LIMIT_REACHED,
    Burst.PROVIDER_FAILING,
)


class Market:
    """The pools that nodes can be bought for, and how many more each may have."""

    def __init__(self, world: World, pools: tuple[Pool, ...]) -> None:
        self.world = world
        self._pools = {pool.name: pool for pool in pools if pool.bought}
        self._declared = {name: world.snapshot.node_pools[name] for name in self._pools}
        # Whose claims cannot be read is not known: they count against the limit of every pool.
        unread = len(world.snapshot.unread_claims - {claim.uid for claim in world.snapshot.claims.values()})
        self.headroom = {
            name: (pool.spec.limits.max_nodes if pool.spec.limits else 0) - len(world.claims_of(name)) - unread
            for name, pool in self._declared.items()
        }
        self._reused: set[str] = set()
        self._best: dict[Demand, Offer | Refused] = {}
        self._demands = {job.demand for job in world.snapshot.jobs.values()}

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be bought whatever happens."""
        return not self._pools

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
        for name, zone in self._ranked(demand, refusals):
            found = self._offer(name, zone, demand)
            if isinstance(found, Offer):
                return found
            refusals.append(found)
        if not refusals:
            return Refused(Burst.NO_MATCHING_POOL, "no pool with a provider has GPUs of a type that the job allows")
        return max(refusals, key=lambda refused: CLOSENESS.index(refused.reason))

    def _ranked(self, demand: Demand, refusals: list[Refused]) -> Iterator[tuple[str, str]]:
        """Pools that may host it, by GPU type, then capacity class, then price; each with its zones in their order."""
        ranked: list[tuple[int, int, bool, Decimal, str]] = []
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
                price = gpu_price(self._declared[name])
                amount = price.amount if price is not None else Decimal(0)
                ranked.append((type_rank, class_rank, price is None, amount, name))
        for *_, name in sorted(ranked):
            for zone in self._declared[name].spec.zones or ("",):
                yield name, zone

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
        """The fewest nodes that hold so many workers, first those that are there and empty."""
        wanted = _sized(demand, workers)
        one = ledger_of([imagined_node("0", pool, zone)], self._pools[pool.name], self.world.snapshot, (wanted,))
        slots = int(one.shape(one.pools[pool.name], wanted).slots.sum())
        if not slots:
            return None
        count = ceil(workers / slots)
        spare = [claim for claim in self.world.spare_nodes(pool.name, zone) if claim.name not in self._reused]
        reused = tuple(spare[:count])
        nodes = [self.world.nodes[claim.name] for claim in reused]
        nodes += (imagined_node(str(i), pool, zone) for i in range(count - len(reused)))
        ledger = ledger_of(nodes, self._pools[pool.name], self.world.snapshot, {wanted, *self._demands})
        return None if isinstance(place_gang(ledger, wanted), Shortfall) else Offer(pool, zone, count, reused, ledger)


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

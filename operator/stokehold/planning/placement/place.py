"""Where a gang goes: whole or not at all, in one pool, tight, and close together when it asks for that."""

from dataclasses import dataclass

import numpy as np

from stokehold.model.actions import Placement
from stokehold.model.demand import Demand
from stokehold.planning.placement.ledger import Ints, Ledger, Shape
from stokehold.planning.placement.pools import Pool, taints_to_answer


@dataclass(frozen=True, slots=True)
class Candidate:
    """One pool that was looked at in vain: how many workers it had room for, and what was in the way."""

    pool: Pool
    free_slots: int
    empty_slots: int
    usable_nodes: int
    closed_nodes: int
    scarcest: str
    split_by_topology: bool
    unknown_level: bool


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a gang does not fit now: the pools that could have taken it, best first; none means it never will."""

    demand: Demand
    candidates: tuple[Candidate, ...]


def place_gang(ledger: Ledger, demand: Demand) -> Placement | Shortfall:
    """Choose a node for each worker and book them; an elastic gang takes what it can get, down to `min_count`."""
    for pool in ledger.pools_for(demand):
        shape = ledger.shape(pool, demand)
        rows = _choose(ledger, pool, shape, demand)
        if rows is not None:
            ledger.book(shape, rows)
            return Placement(
                pool=pool.name,
                gpu_type=pool.gpu_type,
                capacity=pool.capacity_class,
                gpu_resource=pool.gpu_resource,
                nodes=tuple(ledger.names[row] for row in rows),
                taints=taints_to_answer(pool, (ledger.nodes[row] for row in rows)),
            )
    return shortfall(ledger, demand)


def fits(ledger: Ledger, demand: Demand) -> bool:
    """Whether the gang could be placed now; nothing is booked."""
    pools = ledger.pools_for(demand)
    return any(_choose(ledger, pool, ledger.shape(pool, demand), demand) is not None for pool in pools)


def shortfall(ledger: Ledger, demand: Demand) -> Shortfall:
    """Why a gang that does not fit has no place, as things stand in the ledger now."""
    pools = ledger.pools_for(demand)
    return Shortfall(demand, tuple(_candidate(ledger, pool, ledger.shape(pool, demand), demand) for pool in pools))


def _choose(ledger: Ledger, pool: Pool, shape: Shape, demand: Demand) -> list[int] | None:
    fits = int(shape.slots.sum())
    if fits < demand.min_count:
        return None
    level = demand.required_topology or demand.preferred_topology
    if not level:
        return _tightest(ledger, shape, np.arange(len(shape.rows)), min(demand.count, fits))
    codes = ledger.domains(pool, level, shape)
    if demand.required_topology:
        return None if codes is None else _one_domain(ledger, shape, codes, demand)
    return _few_domains(ledger, shape, codes, min(demand.count, fits))


def _one_domain(ledger: Ledger, shape: Shape, codes: Ints, demand: Demand) -> list[int] | None:
    """All workers inside one domain: the fullest that takes the whole gang, else the one that takes most of it."""
    room = _room(shape, codes)
    best = _best_domain(room, demand.count)
    if best is None or room[best] < demand.min_count:
        return None
    return _tightest(ledger, shape, np.flatnonzero(codes == best), min(demand.count, int(room[best])))


def _few_domains(ledger: Ledger, shape: Shape, codes: Ints | None, count: int) -> list[int]:
    """As few domains as possible, largest first; nodes without the label come last."""
    everything = np.arange(len(shape.rows))
    if codes is None:
        return _tightest(ledger, shape, everything, count)
    rows: list[int] = []
    room = _room(shape, codes)
    while len(rows) < count:
        best = _best_domain(room, count - len(rows))
        if best is None:
            unlabelled = np.flatnonzero(codes < 0)
            return rows + _tightest(ledger, shape, unlabelled, count - len(rows))
        take = min(count - len(rows), int(room[best]))
        rows += _tightest(ledger, shape, np.flatnonzero(codes == best), take)
        room[best] = 0
    return rows


def _room(shape: Shape, codes: Ints) -> Ints:
    known = codes >= 0
    size = int(codes.max(initial=-1)) + 1
    return np.bincount(codes[known], weights=shape.slots[known], minlength=size).astype(np.int64)


def _best_domain(room: Ints, count: int) -> int | None:
    """The domain with the least room that takes `count` workers, else the one with the most room."""
    if not len(room) or not room.max():
        return None
    enough = np.flatnonzero(room >= count)
    if len(enough):
        return int(enough[np.argmin(room[enough])])
    return int(np.argmax(room))


def _tightest(ledger: Ledger, shape: Shape, among: Ints, count: int) -> list[int]:
    """Rows for `count` workers out of the positions `among`: few nodes, and those with the fewest GPUs left over.

    Whole nodes go to the roomiest ones first; the rest goes where it leaves least.
    """
    slots = shape.slots[among]
    free = ledger.free_gpus(shape)[among]
    rows: list[int] = []
    while len(rows) < count:
        need = count - len(rows)
        enough = np.flatnonzero(slots >= need)
        pick = int(enough[np.argmin(free[enough])]) if len(enough) else int(np.argmax(slots))
        take = min(need, int(slots[pick]))
        rows += [int(shape.rows[among[pick]])] * take
        slots[pick] = 0
    return rows


def _candidate(ledger: Ledger, pool: Pool, shape: Shape, demand: Demand) -> Candidate:
    free = int(shape.slots.sum())
    required = demand.required_topology
    return Candidate(
        pool=pool,
        free_slots=free,
        empty_slots=shape.empty_slots,
        usable_nodes=len(shape.rows),
        closed_nodes=ledger.closed(pool),
        scarcest=ledger.scarcest(shape),
        split_by_topology=required in pool.levels and free >= demand.min_count,
        unknown_level=bool(required) and required not in pool.levels,
    )

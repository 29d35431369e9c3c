"""What is free during one plan: a scratch copy that the planner books in and then throws away.

Columnar, for speed: one row a node, one column a resource, 64-bit integers. How many workers of one shape fit
on each node is kept per shape and refreshed only for the rows that were booked since, so that a queue of
thousands of equal jobs costs little more than one of them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stokehold.model.accounting import LARGEST, Resources
from stokehold.model.demand import Demand
from stokehold.model.snapshot import Node, Snapshot
from stokehold.model.taints import tolerates
from stokehold.planning.placement.devices import unsettled_nodes
from stokehold.planning.placement.pools import Pool, pools_for, tolerated_by_pool

Ints = npt.NDArray[np.int64]

MOST_SLOTS = 2**20
"""No node has room for more workers than this, whatever it claims."""


@dataclass(slots=True)
class Shape:
    """The rows of one pool that one kind of worker may use, and how many of them fit on each row now."""

    rows: Ints
    slots: Ints
    request: Ints
    columns: Ints
    gpu_column: int
    position: dict[int, int]
    seen: int
    """How much of the ledger's journal is already in `slots`."""
    empty_slots: int
    """How many workers would fit on the pool's nodes if they were all open and empty, with all devices there."""
    scarcest: tuple[int, str] = (-1, "")
    """What was short last, and how much of the journal that answer knows."""


class Ledger:
    """Free resources by node, as kube-scheduler would see them, less what this plan has already given away."""

    def __init__(
        self,
        snapshot: Snapshot,
        pools: Iterable[Pool],
        demands: Iterable[Demand],
        avoid: Collection[str] = (),
        held: Mapping[str, str] | None = None,
    ) -> None:
        """`avoid` takes nothing new; `held` nodes (by name) are open to one buyer alone."""
        self.pools = {pool.name: pool for pool in pools}
        self.names = sorted(snapshot.nodes)
        self.nodes = [snapshot.nodes[name] for name in self.names]
        self.row = {name: i for i, name in enumerate(self.names)}
        self._columns = _columns(self.pools.values(), demands)
        self._resources: list[str] = list(self._columns)
        self.allocatable = self._table([node.allocatable for node in self.nodes])
        used = self._table([snapshot.used.get(name, {}) for name in self.names])
        self.free = self.allocatable - used
        self._whole = self._table([_when_whole(node) for node in self.nodes])
        closed = {*avoid, *unsettled_nodes(snapshot)}
        self._open = np.array([_is_open(node) and node.name not in closed for node in self.nodes], dtype=bool)
        self._held = {self.row[name]: buyer for name, buyer in (held or {}).items() if name in self.row}
        self._journal: list[int] = []
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._domains: dict[tuple[str, str], Ints] = {}
        self._members = {name: self._rows(pool.members) for name, pool in self.pools.items()}
        self._usable: dict[tuple[object, ...], tuple[Ints, dict[int, int]]] = {}
        self._pools_for: dict[tuple[object, ...], list[Pool]] = {}

    def pools_for(self, demand: Demand) -> list[Pool]:
        """The pools that may host this gang, best first."""
        key = (demand.gpus > 0, demand.gpu_types, demand.capacity_classes, demand.data_class, demand.gpu_resource)
        pools = self._pools_for.get(key)
        if pools is None:
            pools = self._pools_for[key] = pools_for(demand, self.pools.values())
        return pools

    def shape(self, pool: Pool, demand: Demand) -> Shape:
        """The shape of one worker of `demand` in `pool`, brought up to date; gangs of all sizes share it."""
        key = (pool.name, demand.gpus, demand.requests, *_wishes(demand))
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = self._make_shape(pool, demand)
        elif shape.seen < len(self._journal):
            self._refresh(shape)
        return shape

    def domains(self, pool: Pool, alias: str, shape: Shape) -> Ints | None:
        """The topology domain of each of the shape's rows as a code, -1 without the label; None: no such level."""
        label = pool.levels.get(alias)
        if label is None:
            return None
        key = (pool.name, label)
        codes = self._domains.get(key)
        if codes is None:
            values = [node.labels.get(label) for node in self.nodes]
            order = {value: i for i, value in enumerate(sorted({v for v in values if v is not None}))}
            codes = np.array([-1 if v is None else order[v] for v in values], dtype=np.int64)
            self._domains[key] = codes
        return codes[shape.rows]

    def free_gpus(self, shape: Shape) -> Ints:
        """Free GPUs of each row of the shape."""
        free: Ints = self.free[shape.rows, shape.gpu_column]
        return free

    def book(self, shape: Shape, rows: Iterable[int]) -> None:
        """Take one worker of the shape from each of the rows; a row may stand there more than once."""
        for row in rows:
            self.free[row, shape.columns] -= shape.request
            self._journal.append(row)

    def reserve(self, node: str, demand: Demand, gpu_resource: str) -> None:
        """Keep room on a node for a worker that was promised it before this plan; the node may be gone or full."""
        row = self.row.get(node)
        if row is None:
            return
        for name, amount in _wanted(demand, gpu_resource).items():
            if (column := self._columns.get(name)) is not None:
                self.free[row, column] -= min(amount, LARGEST)
        self._journal.append(row)

    def taken(self, node: str) -> Resources:
        """What is used of a node by now, by resource: by its pods, and by what this plan has given away of it."""
        row = self.row[node]
        amounts = (self.allocatable[row] - self.free[row]).tolist()
        return dict(zip(self._resources, amounts, strict=True))

    def closed(self, pool: Pool) -> int:
        """How many of the pool's nodes take nothing new: not ready, cordoned, settling or avoided."""
        return int(np.count_nonzero(~self._open[self._members[pool.name]]))

    def scarcest(self, shape: Shape) -> str:
        """The resource of which the shape's nodes have room for the fewest workers; GPUs win a tie."""
        if not len(shape.rows):
            return ""
        seen, name = shape.scarcest
        if seen != len(self._journal):
            name = self._find_scarcest(shape)
            shape.scarcest = (len(self._journal), name)
        return name

    def _find_scarcest(self, shape: Shape) -> str:
        room = _room(self.free[shape.rows][:, shape.columns], shape.request).sum(axis=0)
        columns: list[int] = shape.columns.tolist()
        ranked = [
            (fits, column != shape.gpu_column, column) for fits, column in zip(room.tolist(), columns, strict=True)
        ]
        return self._resources[min(ranked)[2]]

    def _make_shape(self, pool: Pool, demand: Demand) -> Shape:
        wanted = _wanted(demand, pool.gpu_resource)
        columns = np.array([self._columns[name] for name in wanted], dtype=np.int64)
        request = np.array([min(amount, LARGEST) for amount in wanted.values()], dtype=np.int64)
        rows, position = self._usable_rows(pool, demand)
        whole = self._whole[self._members[pool.name]][:, columns]
        return Shape(
            rows=rows,
            slots=_slots(self.free[rows][:, columns], request),
            request=request,
            columns=columns,
            gpu_column=self._columns[pool.gpu_resource],
            position=position,
            seen=len(self._journal),
            empty_slots=int(_slots(whole, request).sum()),
        )

    def _usable_rows(self, pool: Pool, demand: Demand) -> tuple[Ints, dict[int, int]]:
        """The pool's open nodes whose taints and labels suit the demand, and where each row stands among them.

        Many shapes share one answer.
        """
        key = (pool.name, *_wishes(demand))
        usable = self._usable.get(key)
        if usable is None:
            rows = [row for row in self._members[pool.name].tolist() if self._may_use(row, demand, pool)]
            usable = (np.array(rows, dtype=np.int64), {row: i for i, row in enumerate(rows)})
            self._usable[key] = usable
        return usable

    def _may_use(self, row: int, demand: Demand, pool: Pool) -> bool:
        if not self._open[row] or self._held.get(row, demand.buyer) != demand.buyer:
            return False
        node = self.nodes[row]
        if node.name in demand.avoid:
            return False
        taints = [taint for taint in node.taints if not tolerated_by_pool(pool, taint)]
        return tolerates(demand.tolerations, taints) and demand.accepts(node.labels)

    def _refresh(self, shape: Shape) -> None:
        touched = {shape.position[row] for row in self._journal[shape.seen :] if row in shape.position}
        shape.seen = len(self._journal)
        if touched:
            at = np.fromiter(touched, dtype=np.int64)
            shape.slots[at] = _slots(self.free[shape.rows[at]][:, shape.columns], shape.request)

    def _rows(self, names: Iterable[str]) -> Ints:
        return np.array([self.row[name] for name in names], dtype=np.int64)

    def _table(self, amounts: list[Resources]) -> Ints:
        table = np.zeros((len(amounts), len(self._columns)), dtype=np.int64)
        for i, row in enumerate(amounts):
            for name, amount in row.items():
                column = self._columns.get(name)
                if column is not None:
                    table[i, column] = min(amount, LARGEST)
        return table


def _columns(pools: Iterable[Pool], demands: Iterable[Demand]) -> dict[str, int]:
    names = {pool.gpu_resource for pool in pools}
    for requests in {demand.requests for demand in demands}:
        names.update(name for name, _ in requests)
    return {name: i for i, name in enumerate(sorted(names))}


def _is_open(node: Node) -> bool:
    return node.ready and not node.unschedulable


def _wishes(demand: Demand) -> tuple[object, ...]:
    """What decides which open nodes suit the demand."""
    return demand.tolerations, demand.node_selector, demand.node_affinity, demand.places, demand.buyer, demand.avoid


def _wanted(demand: Demand, gpu_resource: str) -> dict[str, int]:
    wanted = dict(demand.requests)
    if demand.gpus:
        wanted[gpu_resource] = wanted.get(gpu_resource, 0) + demand.gpus
    return wanted


def _when_whole(node: Node) -> Resources:
    """What the node offers while its device plugins are well: they may have gone away, its devices have not."""
    devices = {name: count for name, count in node.capacity.items() if "/" in name}
    return {**node.allocatable, **{name: max(count, node.allocatable.get(name, 0)) for name, count in devices.items()}}


def _room(free: Ints, request: Ints) -> Ints:
    """How often each request fits into each row, by resource; bounded, so that sums over nodes stay exact."""
    room: Ints = np.minimum(np.maximum(free // request, 0), MOST_SLOTS)
    return room


def _slots(free: Ints, request: Ints) -> Ints:
    if not len(free):
        return np.zeros(0, dtype=np.int64)
    slots: Ints = _room(free, request).min(axis=1)
    return slots

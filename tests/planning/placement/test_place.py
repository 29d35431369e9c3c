"""Placement against the slow and obvious count: found whenever there is room, never where there is none."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import GPU, a_job, a_node, a_snapshot
from stokehold.model.actions import Placement
from stokehold.model.demand import Demand
from stokehold.model.snapshot import Snapshot
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import place_gang
from stokehold.planning.placement.pools import resolve_pools

RACK = "topology.kubernetes.io/rack"
REQUESTS = ({}, {"cpu": "3"}, {"cpu": "16", "memory": "100Gi"})

# (GPUs, GPUs taken, CPUs, rack) of each node
nodes = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 9), st.sampled_from([2_000, 8_000, 96_000]), st.sampled_from("abc")),
    min_size=1,
    max_size=7,
)
shapes = st.tuples(
    st.integers(1, 8), st.integers(0, 8), st.sampled_from(REQUESTS), st.sampled_from([None, "required", "preferred"])
)


def a_cluster(drawn: list[tuple[int, int, int, str]]) -> Snapshot:
    made = [
        a_node(f"n{i}", gpus=gpus, amounts={"cpu": cpu}, labels={RACK: rack})
        for i, (gpus, _, cpu, rack) in enumerate(drawn)
    ]
    return a_snapshot(made, used={f"n{i}": {GPU: taken} for i, (_, taken, _, _) in enumerate(drawn)})


def a_demand(workers: int, gpus: int, requests: dict[str, str], topology: str | None) -> Demand:
    wish: dict[str, Any] = {"topology": {topology: "rack"}} if topology else {}
    return a_job(numNodes=workers, gpusPerNode=gpus, resources={"requests": requests}, **wish).demand


def fitting(free: dict[str, dict[str, int]], demand: Demand) -> dict[str, int]:
    """How many workers fit on each node, by trying one after the other."""
    wanted = {**dict(demand.requests), **({GPU: demand.gpus} if demand.gpus else {})}
    return {
        name: min((max(0, has.get(key, 0)) // amount for key, amount in wanted.items() if amount), default=10**9)
        for name, has in free.items()
    }


@settings(max_examples=300)
@given(nodes, st.lists(shapes, min_size=1, max_size=6))
def test_gangs_are_placed_exactly_when_there_is_room(drawn: list[tuple[int, int, int, str]], wishes: list[Any]):
    snapshot = a_cluster(drawn)
    demands = [a_demand(*wish) for wish in wishes]
    ledger = Ledger(snapshot, resolve_pools(snapshot), demands)
    free = {
        name: {key: amount - snapshot.used[name].get(key, 0) for key, amount in node.allocatable.items()}
        for name, node in snapshot.nodes.items()
    }

    for demand in demands:
        fits = fitting(free, demand)
        racks: Counter[str] = Counter()
        for name, count in fits.items():
            racks[snapshot.nodes[name].labels[RACK]] += count
        room = max(racks.values()) if demand.required_topology else sum(fits.values())

        found = place_gang(ledger, demand)

        assert isinstance(found, Placement) == (room >= demand.count)
        if isinstance(found, Placement):
            booked = Counter(found.nodes)
            assert booked.total() == demand.count
            assert all(count <= fits[name] for name, count in booked.items())
            for name, count in booked.items():
                for key, amount in {**dict(demand.requests), GPU: demand.gpus}.items():
                    free[name][key] -= amount * count


@settings(max_examples=100)
@given(nodes, st.lists(shapes, min_size=1, max_size=6))
def test_what_a_ledger_remembers_is_what_a_new_one_would_count(drawn: list[Any], wishes: list[Any]):
    snapshot = a_cluster(drawn)
    demands = [a_demand(*wish) for wish in wishes]
    pools = resolve_pools(snapshot)
    ledger = Ledger(snapshot, pools, demands)
    for demand in demands:
        for pool in ledger.pools_for(demand):
            ledger.shape(pool, demand)  # now it is remembered
    used: dict[str, Counter[str]] = {name: Counter(amounts) for name, amounts in snapshot.used.items()}

    for demand in demands:
        found = place_gang(ledger, demand)
        for name in found.nodes if isinstance(found, Placement) else ():
            used[name].update({**dict(demand.requests), GPU: demand.gpus})

    fresh = Ledger(a_snapshot(snapshot.nodes.values(), used=used), pools, demands)
    for demand in demands:
        for pool in ledger.pools_for(demand):
            assert ledger.shape(pool, demand).slots.tolist() == fresh.shape(pool, demand).slots.tolist()


@settings(max_examples=100)
@given(nodes, st.integers(1, 8), st.integers(1, 8))
def test_preferred_topology_uses_no_more_racks_than_a_required_one_would(drawn: list[Any], workers: int, gpus: int):
    required, preferred = (a_demand(workers, gpus, {}, how) for how in ("required", "preferred"))
    snapshot = a_cluster(drawn)
    pools = resolve_pools(snapshot)

    strict = place_gang(Ledger(snapshot, pools, [required]), required)
    kind = place_gang(Ledger(snapshot, pools, [preferred]), preferred)

    if isinstance(strict, Placement):
        assert isinstance(kind, Placement)
        assert len({snapshot.nodes[name].labels[RACK] for name in kind.nodes}) == 1

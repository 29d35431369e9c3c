"""What holds for every plan: whole gangs, no node overbooked, nothing by chance, and rest after the work is done."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import A100, GPU, H100, NOW, a_node, a_pod, a_pool
from kit.world import World, overbooked
from stokehold.api.names import CLAIM_LABEL
from stokehold.api.v1alpha1.gpu_node_claim import GPUNodeClaimSpec, GPUNodeClaimStatus
from stokehold.model.actions import Action, AdmitJob, FinishJob
from stokehold.model.snapshot import Claim, Namespace, Snapshot
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

SETTINGS = SchedulingSettings()
RACK = "topology.kubernetes.io/rack"
MOST_PLANS_TO_REST = 5


def mostly(usual: Any, *odd: Any) -> st.SearchStrategy[Any]:
    """Odd values now and then: with too many of them at once nothing would ever start."""
    return st.sampled_from([usual] * 6 + list(odd))


nodes = st.fixed_dictionaries(
    {
        "gpus": mostly(8, 0, 3, 4),
        "product": mostly(H100, A100, A100, ""),
        "cpu": mostly(96_000, 4_000, 16_000),
        "pods": mostly(110, 0, 1, 2),
        "rack": st.sampled_from(["r1", "r2", None]),
        "taken": mostly(0, 1, 4, 7, 10),
        "unschedulable": mostly(False, True),
        "pool": st.sampled_from(["own", "reserved", "spot", "cloud"]),
    }
)
POOLS = {
    "own": {"gpuType": "h100", "nodeSelector": {"pool": "own"}},
    "reserved": {
        "gpuType": "a100-80gb",
        "nodeSelector": {"pool": "reserved"},
        "capacityClass": "reserved",
        "dataClasses": ["internal", "restricted"],
    },
    "spot": {
        "gpuType": "h100",
        "gpusPerNode": 8,
        "provider": {"simulated": {}},
        "limits": {"maxNodes": 8},
        "capacityClass": "spot",
        "dataClasses": ["public"],
    },
    "cloud": {
        "gpuType": "a100-80gb",
        "gpusPerNode": 8,
        "provider": {"webhook": {"url": "https://nodes.example.com"}},
        "limits": {"maxNodes": 8},
        "capacityClass": "on-demand",
        "dataClasses": ["public", "internal"],
    },
}
"""Own nodes take any data, nodes of a provider what they are declared for."""

specs = st.fixed_dictionaries(
    {
        "numNodes": st.integers(1, 4),
        "gpusPerNode": st.sampled_from([8, 4, 4, 2, 1, 0, 9]),
        "gpuTypes": mostly((), ("h100",), ("a100-80gb", "h100")),
        "resources": mostly({}, {"requests": {"cpu": "3", "memory": "200Gi"}}, {"requests": {"cpu": "16"}}),
        "topology": mostly(None, {"preferred": "rack"}, {"required": "rack"}, {"required": "moon"}),
        "minNodes": mostly(None, 1),
        "suspend": mostly(None, True),
        "priorityClassName": mostly(None, "missing"),
        "dataClass": st.sampled_from(["public", "public", "internal", "restricted", None]),
        "capacity": mostly(None, ["on-prem", "reserved"], ["spot", "on-demand"]),
    }
).map(lambda spec: {key: value for key, value in spec.items() if value is not None})
worlds = st.tuples(
    st.lists(nodes, min_size=1, max_size=6),
    st.lists(st.tuples(specs, st.integers(1, 600)), max_size=10),
    st.booleans(),
)
Drawn = tuple[list[dict[str, Any]], list[tuple[dict[str, Any], int]], bool]
"""Nodes, jobs with their ages, and whether pools are declared."""


def a_world(drawn: Drawn) -> World:
    world = World(NOW)
    world.add_namespace(Namespace("team-a", {}))
    for name, spec in POOLS.items() if drawn[2] else ():
        world.add_node_pool(a_pool(name, **spec))
    for i, node in enumerate(drawn[0]):
        labels = {RACK: node["rack"]} if node["rack"] else {}
        if drawn[2]:
            labels["pool"] = node["pool"]
            if "provider" in POOLS[node["pool"]]:
                labels[CLAIM_LABEL] = f"n{i}"
                world.add_claim(a_claim(f"n{i}", node["pool"]))
        amounts = {"cpu": node["cpu"], "pods": node["pods"]}
        kept = {key: node[key] for key in ("gpus", "product", "unschedulable")}
        world.add_node(a_node(f"n{i}", labels=labels, amounts=amounts, **kept))
        if node["taken"]:
            world.add_pod(a_pod(f"foreign-{i}", node=f"n{i}", requests={GPU: node["taken"], "pods": 1}))
    for i, (spec, age) in enumerate(drawn[1]):
        world.add_job("team-a", f"j{i}", spec, NOW - timedelta(seconds=age))
    return world


def a_claim(node: str, pool: str) -> Claim:
    """A bought node that is ready, and kept for nobody."""
    spec = {"poolName": pool, "gpuType": POOLS[pool]["gpuType"], "gpusPerNode": 8, "capacityClass": "spot"}
    return Claim(
        name=node,
        uid=f"uid-{node}",
        resource_version="1",
        generation=1,
        created_at=NOW,
        spec=GPUNodeClaimSpec.model_validate(spec),
        status=GPUNodeClaimStatus(phase="Ready", node_name=node),
    )


def may_go_to(action: AdmitJob) -> bool:
    """Whether the job's data, its wishes and the pool agree. A job without a data class is the most restricted."""
    spec, pool = action.job.spec, POOLS[action.placement.pool]
    kind = pool.get("capacityClass", "on-prem")
    data = "dataClasses" not in pool or spec.data_class in pool["dataClasses"]
    return data and kind in (spec.capacity or (kind,)) and pool["gpuType"] in (spec.gpu_types or (pool["gpuType"],))


def plan(snapshot: Snapshot) -> list[Action]:
    return list(plan_scheduling(snapshot, SETTINGS))


@settings(max_examples=200)
@given(worlds, st.lists(st.integers(0, 3), max_size=10), st.lists(specs, max_size=4))
def test_no_node_is_overbooked_in_any_resource(drawn: Drawn, sizes: list[int], late: list[dict[str, Any]]):
    world = a_world(drawn)
    actions = plan(world.snapshot())
    assert overbooked(world.snapshot(), actions) == []

    world.carry_out_in_part(actions, sizes)
    for i, spec in enumerate(late):
        world.add_job("team-a", f"late-{i}", spec, NOW - timedelta(seconds=1000))

    assert overbooked(world.snapshot(), plan(world.snapshot())) == []


@settings(max_examples=200)
@given(worlds)
def test_gangs_start_whole_where_they_may(drawn: Drawn):
    snapshot = a_world(drawn).snapshot()

    admitted = [action for action in plan(snapshot) if isinstance(action, AdmitJob)]

    assert max(Counter(action.job.key for action in admitted).values(), default=1) == 1
    for action in admitted:
        spec, chosen = action.job.spec, action.placement.nodes
        assert (spec.min_nodes or spec.num_nodes) <= len(chosen) <= spec.num_nodes
        assert action.missing == tuple(range(len(chosen)))
        assert not spec.suspend
        assert not any(snapshot.nodes[node].unschedulable for node in chosen)
        if drawn[2]:
            assert {snapshot.nodes[node].labels["pool"] for node in chosen} == {action.placement.pool}
            assert may_go_to(action)
        if spec.topology and spec.topology.required:
            assert len({snapshot.nodes[node].labels[RACK] for node in chosen}) == 1


@settings(max_examples=100)
@given(worlds, st.randoms(use_true_random=False))
def test_plan_follows_from_the_snapshot_and_not_from_the_order_in_it(drawn: Drawn, dice: Any):
    snapshot = a_world(drawn).snapshot()

    def shuffled(mapping: Any) -> dict[Any, Any]:
        entries = list(mapping.items())
        dice.shuffle(entries)
        return dict(entries)

    other = replace(
        snapshot, nodes=shuffled(snapshot.nodes), used=shuffled(snapshot.used), jobs=shuffled(snapshot.jobs)
    )

    assert plan(snapshot) == plan(snapshot)
    assert sorted(map(repr, plan(other))) == sorted(map(repr, plan(snapshot)))


@settings(max_examples=200)
@given(worlds)
def test_plan_that_was_carried_out_leaves_nothing_to_do(drawn: Drawn):
    world = a_world(drawn)

    world.carry_out(plan(world.snapshot()))

    assert plan(world.snapshot()) == []


@settings(max_examples=200)
@given(worlds, st.lists(st.integers(0, 3), max_size=10))
def test_plan_that_was_carried_out_in_part_is_completed(drawn: Drawn, sizes: list[int]):
    """Who else starts may differ from what the whole plan would have done: the cluster is packed in another order."""
    world = a_world(drawn)
    world.carry_out_in_part(plan(world.snapshot()), sizes)
    begun = placements(world)

    come_to_rest(world)

    done = placements(world)
    assert all(set(nodes) <= set(done.get(job, ())) for job, nodes in begun.items())
    assert no_gang_is_split(world)


@settings(max_examples=100)
@given(worlds, st.sampled_from(["proof", "status", "both"]))
def test_finished_job_never_runs_again(drawn: Drawn, kept: str):
    world = a_world(drawn)
    come_to_rest(world)
    world.bind_and_start()
    for pod in list(world.pods.values()):
        if pod.worker:
            world.end_pod(pod, "Succeeded")
    finished = {a.job.key for a in plan(world.snapshot()) if isinstance(a, FinishJob)}
    come_to_rest(world)
    assert {key for key in finished if world.jobs[key].status.phase != "Succeeded"} == set()

    for key in finished:
        job = world.jobs[key]
        if kept == "proof":
            world.change_job(key, status=type(job.status)())
        if kept == "status":
            world.change_job(key, proof=None)
    for pod in list(world.pods.values()):
        if pod.worker and pod.is_over:
            world.remove_pod(pod.key)
    world.now += timedelta(hours=1)
    again = come_to_rest(world)

    assert {a.job.key for a in again if isinstance(a, AdmitJob)} & finished == set()
    assert {key for key in finished if world.jobs[key].proof is None} == set()
    assert {key for key in finished if world.jobs[key].status.phase != "Succeeded"} == set()


def come_to_rest(world: World, plan_now: Callable[[Snapshot], list[Action]] = plan) -> list[Action]:
    """Plan and carry out until there is nothing to do; all actions."""
    actions: list[Action] = []
    for _ in range(MOST_PLANS_TO_REST):
        found = plan_now(world.snapshot())
        if not found:
            return actions
        actions += found
        world.carry_out(found)
    raise AssertionError(f"still at work: {found}")


def placements(world: World) -> dict[str, list[str]]:
    placed: dict[str, list[str]] = defaultdict(list)
    for pod in world.pods.values():
        if pod.worker:
            placed[pod.worker.job].append(pod.node)
    return dict(placed)


def no_gang_is_split(world: World) -> bool:
    sizes = Counter((pod.worker.job, pod.worker.gang_size) for pod in world.pods.values() if pod.worker)
    return all(count == size for (_, size), count in sizes.items())

"""What holds of any queue, any pools and any failures."""

from collections import defaultdict
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import GPU, a_job, a_node, a_pool, a_snapshot
from kit.provisioning import KUBE_SYSTEM, SETTINGS, SHORT, World, a_cloud, a_waiting_job, a_world, created
from stokehold.model.actions import Action, CreateClaim, WriteStatus
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Claim, Snapshot
from stokehold.planning.placement.purchases import standing_purchases
from stokehold.planning.provisioning.plan import plan_provisioning
from stokehold.planning.provisioning.world import look_at

GANGS = st.builds(
    dict,
    numNodes=st.integers(1, 5),
    gpusPerNode=st.sampled_from([1, 2, 4, 8, 16]),
    gpuTypes=st.sampled_from([["h100"], ["a100"], ["h100", "a100"], []]),
    dataClass=st.sampled_from(["public", "internal", "restricted", None]),
    capacity=st.sampled_from([["spot"], ["on-demand"], ["spot", "on-demand"], []]),
)
CLOUDS = st.builds(
    lambda **spec: {**spec, "keepWarm": min(spec["keepWarm"], spec["limits"]["maxNodes"])},
    provider=st.sampled_from([{"simulated": {}}, {"webhook": {"url": "https://nodes.example.com"}}]),
    gpuType=st.sampled_from(["h100", "a100"]),
    capacityClass=st.sampled_from(["spot", "on-demand"]),
    limits=st.builds(dict, maxNodes=st.integers(0, 8)),
    zones=st.sampled_from([[], ["z1"], ["z1", "z2"]]),
    dataClasses=st.sampled_from([[], ["public"], ["public", "internal"], ["internal", "restricted"]]),
    gpusPerNode=st.sampled_from([4, 8]),
    keepWarm=st.integers(0, 2),
)


OWN = st.lists(st.tuples(st.sampled_from(["h100", "a100"]), st.integers(0, 8)), max_size=3)
"""Own nodes: their pool, and how many of their 8 GPUs others have."""
Own = list[tuple[str, int]]


def _random_world(
    gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int, own: Own | None = None
) -> World:
    jobs = [
        a_job(f"j{i}", status=SHORT, age=60 + i, **{k: v for k, v in gang.items() if v}) for i, gang in enumerate(gangs)
    ]
    pools = [a_cloud(f"p{i}", **cloud) for i, cloud in enumerate(clouds)]
    pools += [a_pool(f"own-{kind}", gpuType=kind) for kind in sorted({kind for kind, _ in own or ()})]
    nodes = [a_node(f"own-{i}", labels={"pool": f"own-{kind}"}) for i, (kind, _) in enumerate(own or ())]
    used = {f"own-{i}": {GPU: taken} for i, (_, taken) in enumerate(own or ())}
    world = World(a_snapshot(nodes, jobs, used, node_pools=pools))
    order = list(ClaimFailure)[:4]
    world.verdict = lambda call: order[fate % 4] if (hash_of(call.claim.name) + fate) % 5 == 0 else None
    return world


def occupy(world: World, fate: int) -> None:
    """Others take a part of some nodes that are kept for nobody."""
    seen, used, tenants = look_at(world.snapshot, SETTINGS), {}, {}
    for claim in world.claims:
        node = seen.nodes.get(claim.name)
        if node is not None and not seen.is_held(claim) and hash_of(claim.name) % 3 != fate % 3:
            used[node.name] = {GPU: 1 + (hash_of(claim.name) + fate) % node.allocatable[GPU]}
            tenants[node.name] = ("team-b/other",)
    world.snapshot = replace(world.snapshot, used={**world.snapshot.used, **used}, tenants=tenants)


def hash_of(text: str) -> int:
    return sum(ord(letter) * (i + 1) for i, letter in enumerate(text))


def _purchases(claims: list[CreateClaim]) -> dict[tuple[str, int], list[CreateClaim]]:
    found: dict[tuple[str, int], list[CreateClaim]] = defaultdict(list)
    for claim in claims:
        if claim.spec.for_work:
            found[claim.spec.for_work.uid, claim.spec.for_work.attempt].append(claim)
    return found


def _taken_over(actions: list[Action]) -> dict[str, list[Claim]]:
    """Spare nodes that the plan keeps for a job, by its uid."""
    found: dict[str, list[Claim]] = defaultdict(list)
    for action in actions:
        if not isinstance(action, WriteStatus) or not isinstance(action.subject, Claim):
            continue
        work, before = action.status.get("reusedFor"), action.subject.status.reused_for
        if work and (before is None or before.uid != work["uid"]):
            found[work["uid"]].append(action.subject)
    return found


def _check_rules(actions: list[Action], snapshot: Snapshot) -> None:
    by_uid = {job.uid: job for job in snapshot.jobs.values()}
    reused = _taken_over(actions)
    for (uid, _), bought in _purchases(created(actions)).items():
        job, spec = by_uid[uid], bought[0].spec
        pool = snapshot.node_pools[spec.pool_name]
        assert pool.spec.provider is not None
        assert job.spec.data_class in pool.spec.data_classes
        assert not job.spec.gpu_types or pool.spec.gpu_type in job.spec.gpu_types
        assert not job.spec.capacity or pool.spec.capacity_class in job.spec.capacity
        nodes = [claim.spec for claim in (*bought, *reused[uid])]
        assert {claim.spec.for_work.nodes for claim in bought if claim.spec.for_work} == {len(nodes)}
        assert len({(node.pool_name, node.zone) for node in nodes}) == 1
        gpus, each = pool.spec.gpus_per_node or 0, job.spec.gpus_per_node
        slots = len(bought) * (gpus // each)
        for claim in reused[uid]:
            slots += (gpus - snapshot.used.get(claim.name, {}).get(GPU, 0)) // each
        assert slots >= job.spec.num_nodes
        assert slots - gpus // each < job.spec.num_nodes, "a node more than it needs"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(GANGS, max_size=6), st.lists(CLOUDS, min_size=1, max_size=3), st.integers(0, 100), OWN)
def test_histories_keep_limits_buy_whole_gangs_and_respect_data_classes(
    gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int, own: Own
):
    world = _random_world(gangs, clouds, fate, own)
    late = world.snapshot.jobs
    world.snapshot = replace(world.snapshot, jobs=dict(list(late.items())[::2]))
    for turn in range(14):
        if turn == 8:  # when warm nodes are there
            occupy(world, fate)
            world.snapshot = replace(world.snapshot, jobs={**late, **world.snapshot.jobs})
        before = world.snapshot
        actions = world.plan()
        assert actions == list(plan_provisioning(before, SETTINGS)), "same snapshot, same plan"
        _check_rules(actions, before)
        for action in actions:
            world.carry_out(action)
        if turn % 4 == 3:
            world.boot()
            world.wait(40)
    for name, most in world.most_claims.items():
        limits = world.snapshot.node_pools[name].spec.limits
        assert limits is not None
        assert most <= limits.max_nodes
    uids = {claim.uid for claim in world.claims}
    assert all(machine.request_id in uids for machine in world.machines.values()), "a machine without its record"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(GANGS, max_size=6), st.lists(CLOUDS, min_size=1, max_size=3), st.integers(0, 100), OWN)
def test_plan_that_was_carried_out_leaves_nothing_to_do(
    gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int, own: Own
):
    world = _random_world(gangs, clouds, fate, own)
    late = world.snapshot.jobs
    world.snapshot = replace(world.snapshot, jobs=dict(list(late.items())[::2]))
    world.settle()
    world.boot()
    world.settle()
    occupy(world, fate)
    world.snapshot = replace(world.snapshot, jobs={**late, **world.snapshot.jobs})
    world.settle()

    assert world.plan() == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(GANGS, max_size=6), st.lists(CLOUDS, min_size=1, max_size=3), st.integers(0, 100), st.integers(0, 6))
def test_claims_that_another_leader_wrote_and_that_arrive_late_cost_nothing_beyond_the_limits(
    gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int, turn: int
):
    """It saw one gang more, which is gone by now, and zones and limits as they were."""
    wider = [cloud | {"limits": {"maxNodes": 8}, "zones": ["z2"]} for cloud in clouds]
    late = created(_random_world([*gangs, {"numNodes": 2, "gpusPerNode": 8, "dataClass": "public"}], wider, 0).plan())
    world = _random_world(gangs, clouds, fate)
    for at in range(14):
        if at == turn:
            for action in late:
                world.carry_out(action)
        world.step()
        for name, pool in world.snapshot.node_pools.items():
            limit = pool.spec.limits.max_nodes if pool.spec.limits else 0
            assert len(machines_of(world, name)) <= limit
    world.settle()
    world.boot()
    world.settle()

    for purchase in standing_purchases(world.snapshot).values():
        assert purchase.is_ready, "a gang whose nodes are all there must not wait for strangers"
        assert len({(claim.spec.pool_name, claim.spec.zone) for claim in purchase.claims}) == 1


def machines_of(world: World, pool: str) -> list[str]:
    by_uid = {claim.uid: claim.spec.pool_name for claim in world.claims}
    return [name for name, machine in world.machines.items() if by_uid.get(machine.request_id) == pool]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(GANGS, max_size=6), st.lists(CLOUDS, min_size=1, max_size=3), st.integers(0, 100), st.randoms())
def test_order_of_the_snapshot_does_not_matter(
    gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int, random: object
):
    world = _random_world(gangs, clouds, fate)
    shuffled = list(world.snapshot.jobs.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert set(created(world.plan())) == set(
        created(plan_provisioning(replace(world.snapshot, jobs=dict(shuffled)), SETTINGS))
    )


def test_nothing_is_bought_before_the_cluster_is_known():
    world = a_world(a_waiting_job())
    world.step()
    world.snapshot = replace(world.snapshot, namespaces={})

    world.step()

    assert world.machines == {}
    world.snapshot = replace(world.snapshot, namespaces={"kube-system": KUBE_SYSTEM})
    world.settle()
    assert len(world.machines) == 4

"""What holds of any queue, any pools and any failures."""

from collections import defaultdict
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import a_job, a_snapshot
from kit.provisioning import KUBE_SYSTEM, SETTINGS, SHORT, World, a_cloud, a_waiting_job, a_world, created
from stokehold.model.actions import CreateClaim
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Snapshot
from stokehold.planning.provisioning.plan import plan_provisioning

GANGS = st.builds(
    dict,
    numNodes=st.integers(1, 5),
    gpusPerNode=st.sampled_from([1, 2, 4, 8, 16]),
    gpuTypes=st.sampled_from([["h100"], ["a100"], ["h100", "a100"], []]),
    dataClass=st.sampled_from(["public", "internal", "restricted", None]),
    capacity=st.sampled_from([["spot"], ["on-demand"], ["spot", "on-demand"], []]),
)
CLOUDS = st.builds(
    dict,
    gpuType=st.sampled_from(["h100", "a100"]),
    capacityClass=st.sampled_from(["spot", "on-demand"]),
    limits=st.builds(dict, maxNodes=st.integers(0, 8)),
    zones=st.sampled_from([[], ["z1"], ["z1", "z2"]]),
    dataClasses=st.sampled_from([[], ["public"], ["public", "internal"]]),
    gpusPerNode=st.sampled_from([4, 8]),
)


def _random_world(gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int) -> World:
    jobs = [
        a_job(f"j{i}", status=SHORT, age=60 + i, **{k: v for k, v in gang.items() if v}) for i, gang in enumerate(gangs)
    ]
    pools = [a_cloud(f"p{i}", **cloud) for i, cloud in enumerate(clouds)]
    world = World(a_snapshot(jobs=jobs, node_pools=pools))
    order = list(ClaimFailure)[:4]
    world.verdict = lambda call: order[fate % 4] if (hash_of(call.claim.name) + fate) % 5 == 0 else None
    return world


def hash_of(text: str) -> int:
    return sum(ord(letter) * (i + 1) for i, letter in enumerate(text))


def _purchases(claims: list[CreateClaim]) -> dict[tuple[str, int], list[CreateClaim]]:
    found: dict[tuple[str, int], list[CreateClaim]] = defaultdict(list)
    for claim in claims:
        if claim.spec.for_work:
            found[claim.spec.for_work.uid, claim.spec.for_work.attempt].append(claim)
    return found


def _check_rules(claims: list[CreateClaim], snapshot: Snapshot) -> None:
    by_uid = {job.uid: job for job in snapshot.jobs.values()}
    for (uid, _), bought in _purchases(claims).items():
        job, spec = by_uid[uid], bought[0].spec
        pool = snapshot.node_pools[spec.pool_name]
        assert job.spec.data_class in pool.spec.data_classes
        assert not job.spec.gpu_types or pool.spec.gpu_type in job.spec.gpu_types
        assert not job.spec.capacity or pool.spec.capacity_class in job.spec.capacity
        assert {claim.spec.for_work.nodes for claim in bought if claim.spec.for_work} == {len(bought)}
        assert len({(claim.spec.pool_name, claim.spec.zone) for claim in bought}) == 1
        slots = (pool.spec.gpus_per_node or 0) // job.spec.gpus_per_node
        assert len(bought) * slots >= job.spec.num_nodes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(GANGS, max_size=6), st.lists(CLOUDS, min_size=1, max_size=3), st.integers(0, 100))
def test_histories_keep_limits_buy_whole_gangs_and_respect_data_classes(
    gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int
):
    world = _random_world(gangs, clouds, fate)
    for turn in range(14):
        before = world.snapshot
        actions = world.plan()
        assert actions == list(plan_provisioning(before, SETTINGS)), "same snapshot, same plan"
        _check_rules(created(actions), before)
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
@given(st.lists(GANGS, max_size=6), st.lists(CLOUDS, min_size=1, max_size=3), st.integers(0, 100))
def test_plan_that_was_carried_out_leaves_nothing_to_do(
    gangs: list[dict[str, object]], clouds: list[dict[str, object]], fate: int
):
    world = _random_world(gangs, clouds, fate)
    world.settle()
    world.boot()
    world.settle()

    assert world.plan() == []


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

"""The provisioning planner on values: whole gangs or nothing, never past a limit, never where data may not go."""

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import H100, NOW, a_gang, a_job, a_node, a_pool, a_snapshot
from planning.provisioning_world import KUBE_SYSTEM, SETTINGS, World, created
from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.model.actions import AdmitJob, CreateClaim, DeleteClaim, TerminateOrphan
from stokehold.model.capacity import Instance
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Job, NodePool, Snapshot
from stokehold.planning.placement.pools import resolve_pools
from stokehold.planning.provisioning.plan import plan_provisioning
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

SHORT = {"phase": "Pending", "queue": {"reason": "WaitingForCapacity", "message": "full"}}


def a_cloud(name: str = "cloud", **spec: object) -> NodePool:
    defaults: dict[str, object] = {
        "provider": {"simulated": {}},
        "gpuType": "h100",
        "gpusPerNode": 8,
        "capacityClass": "on-demand",
        "dataClasses": ["public", "internal"],
        "limits": {"maxNodes": 8},
        "price": {"perGpuHour": "4", "currency": "USD"},
        "nodeShape": {"cpu": 96, "memory": "512Gi"},
    }
    return a_pool(name, **{**defaults, **spec})


def a_waiting_job(name: str = "gang", **spec: object) -> Job:
    defaults: dict[str, object] = {"numNodes": 4, "gpusPerNode": 8, "gpuTypes": ["h100"], "dataClass": "internal"}
    return a_job(name, status=SHORT, **{**defaults, **spec})


def a_world(*jobs: Job, pools: list[NodePool] | None = None, **fields: object) -> World:
    return World(a_snapshot(jobs=jobs, node_pools=pools or [a_cloud()], **fields))  # type: ignore[arg-type]


def told(job: Job) -> tuple[str, str]:
    found = find_condition(job.status.conditions, conditions.CAPACITY_PROVISIONED)
    return (found.reason, found.message) if found else ("", "")


def test_gang_that_waits_gets_all_its_nodes_at_once_in_one_zone():
    world = a_world(a_waiting_job(), pools=[a_cloud(zones=["z1", "z2"])])

    claims = created(world.step())

    assert len({claim.name for claim in claims}) == 4
    assert {claim.spec.zone for claim in claims} == {"z1"}
    assert {claim.spec.for_work.nodes for claim in claims if claim.spec.for_work} == {4}


def test_what_is_on_its_way_is_not_bought_again():
    world = a_world(a_waiting_job())
    world.step()

    assert created(world.step()) == []
    assert told(world.job("gang"))[0] == "Requested"


def test_gang_starts_only_when_all_its_nodes_are_ready_and_nobody_else_gets_them():
    world = a_world(a_waiting_job(), a_waiting_job("thief", numNodes=1, age=5))
    world.settle()
    world.boot()
    half = replace(world.snapshot, nodes=dict(list(world.snapshot.nodes.items())[:3]))
    world.snapshot = half
    world.step()

    assert [a for a in plan_scheduling(world.snapshot, SchedulingSettings()) if isinstance(a, AdmitJob)] == []

    world.boot()
    world.settle()
    admitted = [a for a in plan_scheduling(world.snapshot, SchedulingSettings()) if isinstance(a, AdmitJob)]
    by_name = {a.job.name: a.placement for a in admitted}
    assert set(by_name["gang"].nodes) == {
        c.name for c in world.claims if c.spec.for_work and c.spec.for_work.name == "gang"
    }
    assert by_name["gang"].taints


def test_elastic_gang_does_not_start_on_half_of_what_was_bought_for_it():
    world = a_world(a_waiting_job(minNodes=2))
    world.settle()
    world.boot()
    nodes = world.snapshot.nodes
    world.snapshot = replace(world.snapshot, nodes=dict(list(nodes.items())[:3]))
    world.settle()

    assert [a for a in plan_scheduling(world.snapshot, SchedulingSettings()) if isinstance(a, AdmitJob)] == []
    world.boot()
    world.settle()
    (admitted,) = (a for a in plan_scheduling(world.snapshot, SchedulingSettings()) if isinstance(a, AdmitJob))
    assert len(admitted.placement.nodes) == 4


@pytest.mark.parametrize("data_class", ["restricted", None])
def test_data_that_may_not_leave_never_bursts_and_the_job_is_told(data_class: str | None):
    world = a_world(a_waiting_job(dataClass=data_class))

    world.settle()

    assert world.claims == []
    reason, message = told(world.job("gang"))
    assert reason == "DataClassNotAllowed"
    assert "cloud" in message


def test_node_with_a_cloud_label_never_joins_a_pool_of_own_nodes():
    bought = a_node("b", labels={"pool": "h100", "stokehold.dev/claim": "c"})
    own = a_node("o", labels={"pool": "h100"})
    pools = resolve_pools(a_snapshot([bought, own], node_pools=[a_pool("h100")]))

    assert {pool.name: pool.members for pool in pools} == {"h100": ("o",), "": ()}


def test_failed_node_takes_the_whole_purchase_back_and_the_breaker_opens():
    world = a_world(a_waiting_job(), pools=[a_cloud(zones=["z1", "z2"])])
    world.verdict = lambda call: ClaimFailure.CAPACITY if call.claim.name.endswith("-2") else None

    for _ in range(8):
        world.step()

    zones = {claim.spec.zone for claim in world.claims if not claim.deleting}
    assert zones <= {"z2"}
    offering = world.snapshot.node_pools["cloud"].status.offerings[0]
    assert (offering.zone, offering.reason, offering.failures) == ("z1", "Capacity", 1)
    assert offering.blocked_until == world.now + SETTINGS.capacity_backoff


def test_after_all_zones_failed_nothing_is_bought_until_the_breaker_closes_and_then_for_longer():
    world = a_world(a_waiting_job())
    world.verdict = lambda _: ClaimFailure.CAPACITY
    world.settle()

    assert world.claims == []
    assert told(world.job("gang"))[0] == "ProviderFailing"
    world.wait(SETTINGS.capacity_backoff.total_seconds() + 1)
    world.settle()
    offering = world.snapshot.node_pools["cloud"].status.offerings[0]
    assert offering.failures == 2
    assert offering.blocked_until == world.now + 2 * SETTINGS.capacity_backoff


def test_node_without_gpus_is_given_up():
    world = a_world(a_waiting_job())
    world.settle()
    world.boot(gpus=0)
    world.settle()
    world.wait(SETTINGS.gpus_within.total_seconds() + 1)
    world.settle()

    assert world.claims == []
    assert world.machines == {}
    assert world.snapshot.node_pools["cloud"].status.offerings[0].reason == "GpuMissing"


def test_node_that_never_joins_is_given_up():
    world = a_world(a_waiting_job())
    world.settle()
    world.wait(SETTINGS.ready_within.total_seconds())
    world.settle()

    assert world.claims == []
    assert world.snapshot.node_pools["cloud"].status.offerings[0].reason == "Timeout"


def test_nodes_that_are_smaller_than_promised_are_taken_back_once():
    world = a_world(a_waiting_job(resources={"requests": {"cpu": "200"}}), pools=[a_cloud(nodeShape={"cpu": 256})])
    world.settle()
    world.boot()  # with 96 CPUs
    world.settle()
    world.wait(SETTINGS.unfit_after.total_seconds() + 1)
    world.settle()

    assert world.claims == []
    assert world.snapshot.node_pools["cloud"].status.offerings[0].reason == "Unfit"


def test_machine_that_vanished_at_the_provider_closes_its_claim():
    world = a_world(a_waiting_job())
    world.settle()
    world.boot()
    world.settle()
    world.machines.clear()
    world.wait(60)

    world.settle()

    assert not any(claim.status.provider_id in ("m-claim-1", "m-claim-2") for claim in world.claims)


def test_machine_without_a_claim_is_given_back_and_not_at_once():
    world = a_world()
    world.machines["stray"] = Instance("stray", "nobody", launched_at=NOW)
    world.wait(1)

    assert not any(isinstance(action, TerminateOrphan) for action in world.step())
    world.wait(SETTINGS.orphan_after.total_seconds())
    world.settle()
    assert world.machines == {}


def test_machine_with_work_on_it_is_never_taken_for_an_orphan():
    node = a_node("n1", provider_id="stray")
    world = a_world()
    world.snapshot = replace(world.snapshot, nodes={"n1": node}, tenants={"n1": ("team-a/pod",)})
    world.machines["stray"] = Instance("stray", "nobody", launched_at=NOW)
    world.wait(3600)

    assert not any(isinstance(action, TerminateOrphan) for action in world.step())


def test_second_machine_of_a_claim_is_given_back_and_the_first_stays():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.machines["dup"] = Instance("dup", "claim-1", launched_at=NOW)
    world.wait(SETTINGS.orphan_after.total_seconds() + 1)

    world.settle()

    assert set(world.machines) == {"m-claim-1"}


def test_answer_that_was_lost_with_the_operator_is_found_again():
    world = a_world(a_waiting_job(numNodes=1))
    world.step()
    world.step()
    machines = dict(world.machines)
    world.snapshot = replace(world.snapshot, answers={})  # killed between the provider's answer and our write

    world.settle()

    assert world.machines == machines
    assert [claim.status.provider_id for claim in world.claims] == list(machines)


def test_half_written_purchase_is_completed_with_the_same_names():
    world = a_world(a_waiting_job())
    claims = created(world.plan())
    for claim in claims[:2]:
        world.carry_out(claim)

    world.settle()

    assert {claim.name for claim in world.claims} == {claim.name for claim in claims}


def test_idle_node_is_closed_looked_at_again_and_given_back():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.boot()
    world.settle()
    world.snapshot = replace(world.snapshot, jobs={})
    world.settle()
    assert len(world.claims) == 1, "its scaleDown.delay has not passed"

    world.wait(301)
    world.step()
    assert [node.unschedulable for node in world.snapshot.nodes.values()] == [True]
    assert not any(claim.deleting for claim in world.claims)
    world.wait(SETTINGS.settle.total_seconds() + 1)
    world.settle()

    assert world.claims == []
    assert world.machines == {}
    assert world.snapshot.nodes == {}


def test_pod_that_was_on_its_way_keeps_the_node():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.boot()
    world.settle()
    world.snapshot = replace(world.snapshot, jobs={})
    world.wait(301)
    world.step()
    (node,) = world.snapshot.nodes
    world.snapshot = replace(world.snapshot, tenants={node: ("team-b/stranger",)})
    world.wait(60)

    world.settle()

    assert [claim.status.phase for claim in world.claims] == ["Ready"]
    assert not world.snapshot.nodes[node].unschedulable


def test_claim_whose_pool_is_gone_says_so_and_goes_on_when_it_is_back():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    pools = world.snapshot.node_pools
    world.snapshot = replace(world.snapshot, node_pools={}, jobs={})
    (claim,) = world.claims
    world.carry_out(DeleteClaim(claim, "somebody deleted it"))

    world.settle()

    (claim,) = world.claims
    assert find_condition(claim.status.conditions, "Stranded") is not None
    assert len(world.machines) == 1
    world.snapshot = replace(world.snapshot, node_pools=pools)
    world.settle()
    assert world.claims == []
    assert world.machines == {}


def test_claim_in_a_phase_of_another_version_can_still_be_given_back():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    (claim,) = world.claims
    status = claim.status.model_copy(update={"phase": "Hibernating"})
    world.snapshot = replace(world.snapshot, claims={claim.name: replace(claim, status=status)}, jobs={})
    world.carry_out(DeleteClaim(world.claims[0], "somebody deleted it"))

    world.settle()

    assert world.claims == []
    assert world.machines == {}


def test_claim_expires_even_under_load_and_its_pods_have_a_while():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.boot()
    world.settle()
    (node,) = world.snapshot.nodes
    world.snapshot = replace(world.snapshot, jobs={}, tenants={node: ("team-a/gang-1-0",)})
    world.wait(SETTINGS.expire_after.total_seconds())
    world.settle()
    assert world.claims[0].deleting
    assert world.snapshot.nodes[node].unschedulable
    assert len(world.machines) == 1

    world.wait(SETTINGS.drain_within.total_seconds())
    world.settle()

    assert world.machines == {}


def test_claim_is_billed_by_the_second_for_booting_idle_and_busy():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.wait(100)
    world.boot()
    world.settle()
    world.wait(50)
    (node,) = world.snapshot.nodes
    world.snapshot = replace(world.snapshot, tenants={node: ("team-a/gang-1-0",)})
    world.settle()
    world.wait(200)
    world.snapshot = replace(world.snapshot, tenants={})
    world.settle()

    (claim,) = world.claims
    paid = claim.status.paid
    assert paid is not None
    assert (paid.booting_seconds, paid.idle_seconds, paid.busy_seconds) == (100, 50, 200)
    assert str(claim.status.cost) == "3.1111"  # 350 s of 8 GPUs at 4 USD


def test_small_and_young_waits_below_the_trigger_then_buys():
    world = a_world(a_waiting_job(numNodes=1, gpusPerNode=1, age=2))

    world.settle()
    assert told(world.job("gang"))[0] == "BelowTrigger"
    world.wait(30)

    assert len(created(world.step())) == 1


def test_many_small_jobs_share_the_nodes_that_are_bought():
    world = a_world(*(a_waiting_job(f"j{i}", numNodes=1, gpusPerNode=1) for i in range(16)))

    assert len(created(world.step())) == 2


def test_gang_larger_than_the_limit_buys_nothing_and_is_told():
    world = a_world(a_waiting_job(), pools=[a_cloud(limits={"maxNodes": 3})])

    world.settle()

    assert world.claims == []
    assert told(world.job("gang"))[0] == "LimitReached"


def test_elastic_gang_takes_the_fewer_nodes_that_the_limit_leaves():
    world = a_world(a_waiting_job(minNodes=2), pools=[a_cloud(limits={"maxNodes": 3})])

    assert len(created(world.step())) == 2
    world.settle()
    world.boot()
    world.settle()
    (admitted,) = (a for a in plan_scheduling(world.snapshot, SchedulingSettings()) if isinstance(a, AdmitJob))
    assert len(admitted.placement.nodes) == 2


def test_gang_that_no_bought_node_can_host_is_told_so():
    world = a_world(a_waiting_job(gpusPerNode=16), a_waiting_job("split", topology={"required": "rack"}))

    world.settle()

    assert world.claims == []
    assert told(world.job("gang"))[0] == told(world.job("split"))[0] == "TooLarge"


def test_warm_nodes_are_bought_before_anybody_waits_and_within_the_limit():
    world = a_world(pools=[a_cloud(keepWarm=2, limits={"maxNodes": 2}, zones=["z1"])])

    world.settle()

    assert [claim.name for claim in world.claims] == ["cloud-warm-1", "cloud-warm-2"]
    assert created(world.plan()) == []


def test_own_free_nodes_come_first():
    own = a_node("n1", labels={"pool": "own"}, product=H100)
    pool = a_pool("own", gpuType="h100")
    world = World(a_snapshot([own], [a_waiting_job(numNodes=1)], node_pools=[pool, a_cloud()]))

    assert created(world.step()) == []


def test_the_cheaper_pool_of_equals_is_bought_from():
    dear = a_cloud("dear", price={"perGpuHour": "9", "currency": "USD"})
    cheap = a_cloud("zcheap", price={"perNodeHour": "16", "currency": "USD"})
    world = a_world(a_waiting_job(), pools=[dear, cheap])

    assert {claim.spec.pool_name for claim in created(world.step())} == {"zcheap"}


def test_nodes_of_a_gang_that_is_only_half_created_are_kept():
    job = a_waiting_job(numNodes=2)
    world = a_world(job)
    world.settle()
    world.boot()
    world.settle()
    names = tuple(sorted(world.snapshot.nodes))
    lead = a_gang(job, nodes=names)[:1]
    world.snapshot = replace(world.snapshot, jobs={job.key: replace(world.job("gang"), pods=lead)})
    world.snapshot = replace(world.snapshot, tenants={names[0]: ("team-a/gang-1-0",)})

    world.wait(4000)
    world.settle()

    assert [(claim.status.phase, claim.deleting) for claim in world.claims] == [("Ready", False), ("Ready", False)]


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

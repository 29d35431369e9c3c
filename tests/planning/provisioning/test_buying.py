"""What is bought: whole gangs or nothing, never past a limit, never where data may not go."""

from dataclasses import replace

import pytest

from builders import GPU, H100, a_node, a_pool, a_queue, a_snapshot
from kit.provisioning import World, a_cloud, a_waiting_job, a_world, created, told
from stokehold.model.actions import AdmitJob, CreateClaim
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Job
from stokehold.planning.placement.pools import resolve_pools
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings


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


def test_small_and_young_waits_below_the_trigger_then_buys():
    world = a_world(a_waiting_job(numNodes=1, gpusPerNode=1, age=2))

    world.settle()
    assert told(world.job("gang"))[0] == "BelowTrigger"
    world.wait(30)

    assert len(created(world.step())) == 1


def test_the_pools_own_trigger_counts_and_half_of_it_once_nodes_are_coming():
    def bought(gpus: int) -> int:
        jobs = [a_waiting_job(f"j{i}", numNodes=1, gpusPerNode=1, age=2) for i in range(gpus)]
        world = a_world(*jobs, pools=[a_cloud(trigger={"gpus": 4, "age": "10m"}, gpusPerNode=4)])
        return len(created(world.step()))

    assert bought(gpus=3) == 0
    assert bought(gpus=4) == 1
    world = a_world(
        *(a_waiting_job(f"j{i}", numNodes=1, gpusPerNode=4, age=2) for i in range(2)),
        pools=[a_cloud(trigger={"gpus": 8, "age": "10m"}, gpusPerNode=4)],
    )
    assert len(created(world.step())) == 2
    late = a_waiting_job("late", numNodes=1, gpusPerNode=4, age=2)
    world.snapshot = replace(world.snapshot, jobs={**world.snapshot.jobs, late.key: late})
    assert len(created(world.step())) == 1, "4 are half of 8, and nodes are coming"


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


def test_number_in_another_currency_is_no_price_and_the_pool_is_named():
    dollars = [a_cloud(f"us-{i}", price={"perGpuHour": "9", "currency": "USD"}) for i in range(2)]
    euros = a_cloud("a-eu", price={"perGpuHour": "4", "currency": "EUR"})
    world = a_world(a_waiting_job(), pools=[euros, *dollars])
    assert {claim.spec.pool_name for claim in created(world.plan())} == {"us-0"}

    closed = [replace(pool, spec=pool.spec.model_copy(update={"data_classes": ()})) for pool in dollars]
    alone = a_world(a_waiting_job(), pools=[euros, *closed])
    assert {claim.spec.pool_name for claim in created(alone.plan())} == {"a-eu"}, "nothing to compare it with"

    none_left = [a_cloud(pool.name, limits={"maxNodes": 0}, dataClasses=["public"]) for pool in dollars]
    twins = a_world(a_waiting_job(dataClass="public"), pools=[euros, *none_left])
    twins.settle()
    reason, message = told(twins.job("gang"))
    assert reason == "CurrencyMismatch"
    assert "pool a-eu" in message
    assert "price in USD" in message


def test_currency_of_the_budgets_is_the_one_that_counts():
    pools = [a_cloud(f"us-{i}", price={"perGpuHour": "1", "currency": "USD"}) for i in range(2)]
    euros = a_cloud("eu", price={"perGpuHour": "4", "currency": "EUR"})
    budget = {"amount": "100", "currency": "EUR", "period": "Month"}
    world = World(a_snapshot(jobs=[a_waiting_job()], node_pools=[euros, *pools], queues=[a_queue(budget=budget)]))

    assert {claim.spec.pool_name for claim in created(world.plan())} == {"eu"}


def a_warm_world(*jobs: Job, most: int = 4, **spec: object) -> World:
    """A pool whose one warm node is ready before anybody comes."""
    world = a_world(pools=[a_cloud(keepWarm=1, limits={"maxNodes": most}, zones=["z1"], **spec)])
    world.settle()
    world.boot()
    world.settle()
    world.snapshot = replace(world.snapshot, jobs={job.key: job for job in jobs})
    return world


def test_spare_node_is_taken_over_and_only_the_others_are_bought():
    world = a_warm_world(a_waiting_job())

    assert len(created(world.step())) == 3
    world.settle()
    world.boot()
    world.settle()

    assert {claim.work.name for claim in world.claims if claim.work} == {"gang"}
    (admitted,) = (a for a in plan_scheduling(world.snapshot, SchedulingSettings()) if isinstance(a, AdmitJob))
    assert set(admitted.placement.nodes) == {"cloud-warm-1", *(c.name for c in world.claims)}
    assert world.most_claims["cloud"] == 4, "a node that is kept warm must not keep a gang below the limit for ever"


def test_one_spare_node_is_taken_over_by_one_gang():
    gangs = [a_waiting_job(f"g{i}", numNodes=2) for i in range(2)]
    world = a_warm_world(*gangs)

    assert len(created(world.step())) == 3
    world.settle()

    assert sorted(c.work.name for c in world.claims if c.work) == ["g0", "g0", "g1", "g1"]


def test_spare_node_that_others_took_first_is_bought_after_all():
    world = a_warm_world(a_waiting_job(), most=8)
    world.step()
    world.snapshot = replace(
        world.snapshot, tenants={"cloud-warm-1": ("team-b/stranger",)}, used={"cloud-warm-1": {GPU: 1}}
    )

    world.settle()

    ours = {claim.name for claim in world.claims if claim.work and claim.work.name == "gang"}
    assert len(ours) == 4
    assert "cloud-warm-1" not in ours


def test_spare_node_survives_the_failure_of_those_that_were_bought_beside_it():
    world = a_warm_world(a_waiting_job())
    world.verdict = lambda _: ClaimFailure.CAPACITY

    for _ in range(8):
        world.step()

    (warm,) = (claim for claim in world.claims if claim.name == "cloud-warm-1")
    assert not warm.deleting
    assert warm.status.phase == "Ready"
    assert warm.work is None


def test_purchase_that_its_operator_did_not_live_to_complete_asks_for_what_lacks():
    world = a_warm_world(a_waiting_job())
    for action in [a for a in world.plan() if not isinstance(a, CreateClaim)]:
        world.carry_out(action)

    assert len(created(world.step())) == 3
    assert {claim.work.nodes for claim in world.claims if claim.work} == {4}

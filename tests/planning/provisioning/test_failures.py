"""What becomes of nodes that do not come, vanish, or belong to nobody."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import NOW, a_node
from kit.provisioning import SETTINGS, World, a_cloud, a_waiting_job, a_world, created, told
from stokehold.api.v1alpha1.training_job import TrainingJobSpec
from stokehold.model.actions import TerminateOrphan, WriteStatus
from stokehold.model.capacity import Instance
from stokehold.model.demand import demand_of
from stokehold.model.reasons import ClaimFailure
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings


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


@pytest.mark.parametrize("first", ["on-demand", "spot"])
def test_reason_names_the_pool_that_failed_if_the_job_would_have_liked_it_no_less(first: str):
    """The on-demand pool has failed; nodes of the spot pool are on their way."""
    pools = [a_cloud("dear"), a_cloud("other", capacityClass="spot")]
    wishes = ["on-demand", "spot"] if first == "on-demand" else ["spot", "on-demand"]
    earlier = a_world(a_waiting_job(capacity=["on-demand"]), pools=pools)
    earlier.verdict = lambda _: ClaimFailure.CAPACITY
    earlier.settle()
    gang = a_waiting_job(capacity=wishes)
    world = a_world(gang, pools=list(earlier.snapshot.node_pools.values()))
    world.settle()

    (told,) = (a for a in plan_scheduling(world.snapshot, SchedulingSettings()) if isinstance(a, WriteStatus))

    message = told.status["queue"]["message"]
    assert message.startswith("4 nodes of pool other are being bought for it")
    assert ("pool dear failed before (Capacity: scripted)" in message) == (first == "on-demand")


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


@pytest.mark.parametrize("booted", [False, True])
@pytest.mark.parametrize(
    "change",
    [{"gpuTypes": ["a100"]}, {"capacity": ["spot"]}, {"numNodes": 6}, {"resources": {"requests": {"cpu": 97}}}],
)
def test_nodes_that_an_edited_job_cannot_use_are_given_back_at_once_and_nobody_is_blamed(
    change: dict[str, Any], booted: bool
):
    world = a_world(a_waiting_job())
    world.settle()
    if booted:
        world.boot()
        world.settle()

    edit(world, "gang", **change)
    world.settle()

    assert len(world.claims) == len(world.machines) == change.get("numNodes", 0)
    assert world.snapshot.node_pools["cloud"].status.offerings == ()


def test_nodes_on_their_way_are_given_back_when_their_pool_may_not_hold_the_data_any_more():
    world = a_world(a_waiting_job())
    world.settle()
    (pool,) = world.snapshot.node_pools.values()
    closed = replace(pool, spec=pool.spec.model_copy(update={"data_classes": ("public",)}), generation=2)
    world.snapshot = replace(world.snapshot, node_pools={pool.name: closed})
    world.settle()

    assert world.claims == []
    assert world.snapshot.node_pools["cloud"].status.offerings == ()
    assert told(world.job("gang"))[0] == "DataClassNotAllowed"


def test_job_that_became_smaller_keeps_what_was_bought_for_it():
    world = a_world(a_waiting_job())
    world.settle()
    names = [claim.name for claim in world.claims]

    edit(world, "gang", numNodes=3)
    world.settle()

    assert [claim.name for claim in world.claims] == names
    assert not any(claim.deleting for claim in world.claims)


def edit(world: World, name: str, **change: Any) -> None:
    """The user changes the spec of a job."""
    job = world.job(name)
    spec = TrainingJobSpec.model_validate({**job.spec.model_dump(by_alias=True, exclude_unset=True), **change})
    edited = replace(job, spec=spec, demand=demand_of(spec), generation=job.generation + 1)
    world.snapshot = replace(world.snapshot, jobs={**world.snapshot.jobs, job.key: edited})


@pytest.mark.parametrize("hours", [-1_000_000, 2])
def test_clock_of_a_provider_changes_no_bill(hours: int):
    world = a_world(a_waiting_job(numNodes=1))
    for _ in range(2):
        world.step()
    (claim,) = world.claims
    strange = replace(world.machines[f"m-{claim.uid}"], launched_at=NOW + timedelta(hours=hours))
    world.snapshot = replace(world.snapshot, answers={claim.uid: strange})

    world.settle()

    status = world.claims[0].status
    assert status.launched_at == NOW
    assert status.cost == 0


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


def test_claims_that_cannot_be_read_keep_their_machines_and_count_against_the_limit():
    world = a_world(a_waiting_job(), pools=[a_cloud(limits={"maxNodes": 6})])
    world.settle()
    claims = world.snapshot.claims
    unread = frozenset(claim.uid for claim in claims.values())
    late = a_waiting_job("late", numNodes=3)
    world.snapshot = replace(world.snapshot, claims={}, unread_claims=unread, jobs={late.key: late})

    world.wait(SETTINGS.orphan_after.total_seconds() + 1)
    actions = world.plan()

    assert not any(isinstance(action, TerminateOrphan) for action in actions)
    assert created(actions) == []
    world.snapshot = replace(world.snapshot, unread_claims=frozenset())
    assert sum(isinstance(action, TerminateOrphan) for action in world.plan()) == 4

"""Claims of a leader that was replaced, which arrive when its successor has decided otherwise: never asked for."""

from dataclasses import replace

from builders import NOW
from kit.provisioning import World, a_cloud, a_waiting_job, a_world, created
from stokehold.model.actions import CreateClaim, LaunchNode
from stokehold.model.snapshot import Job
from stokehold.planning.placement.purchases import standing_purchases


def arrive(world: World, late: list[CreateClaim]) -> None:
    """Those whose names are taken are refused, as by the API server."""
    for action in late:
        world.carry_out(action)


def launched(world: World) -> list[str]:
    return [action.claim.name for action in world.step() if isinstance(action, LaunchNode)]


def asked_for(world: World) -> int:
    """Steps until nothing is left to do; how many machines were asked for on the way."""
    return sum(len(launched(world)) for _ in range(12))


def test_same_names_are_refused_whatever_else_they_say():
    other = created(a_world(a_waiting_job(), pools=[a_cloud(zones=["z2"])]).plan())
    world = a_world(a_waiting_job(), pools=[a_cloud(zones=["z1"])])
    world.settle()

    arrive(world, other)
    world.settle()

    assert len(world.claims) == len(world.machines) == 4
    assert {claim.spec.zone for claim in world.claims} == {"z1"}


def test_claims_for_a_gang_that_was_deleted_are_given_back_unasked():
    world = a_world(a_waiting_job())
    late = created(world.plan())
    world.snapshot = replace(world.snapshot, jobs={})

    arrive(world, late)

    assert len(world.claims) == 4
    assert asked_for(world) == 0
    assert world.claims == []


def test_claims_for_an_attempt_that_is_over_are_given_back_unasked():
    job = a_waiting_job()
    world = a_world(job)
    late = created(world.plan())
    again: Job = replace(job, status=job.status.model_copy(update={"attempt": 2}))
    world.snapshot = replace(world.snapshot, jobs={job.key: again})
    world.settle()

    arrive(world, late)
    world.settle()

    assert {claim.work.attempt for claim in world.claims if claim.work} == {2}
    assert len(world.machines) == 4


def test_claims_of_a_larger_purchase_do_not_join_a_smaller_one():
    """The first leader asked for four nodes in one zone, the second for two in another, of names that both chose."""
    gang = a_waiting_job(minNodes=2)
    late = created(a_world(gang, pools=[a_cloud(zones=["z1"])]).plan())
    world = a_world(gang, pools=[a_cloud(zones=["z2"], limits={"maxNodes": 2})])
    world.step()

    arrive(world, late)
    world.snapshot = replace(world.snapshot, node_pools={"cloud": a_cloud(zones=["z2"])})

    assert asked_for(world) == 2
    world.boot()
    world.settle()
    assert standing_purchases(world.snapshot)[gang.uid].is_ready
    assert {claim.spec.zone for claim in world.claims} == {"z2"}


def test_claims_beside_nodes_that_were_taken_over_do_not_make_the_purchase_too_large():
    gang = a_waiting_job()
    late = created(a_world(gang).plan())
    world = a_world(pools=[a_cloud(keepWarm=2)])
    world.settle()
    world.boot()
    world.settle()
    world.snapshot = replace(world.snapshot, jobs={gang.key: gang}, node_pools={"cloud": a_cloud()})
    assert len(created(world.step())) == 2

    arrive(world, late)
    world.settle()
    world.boot()
    world.settle()

    assert standing_purchases(world.snapshot)[gang.uid].is_ready
    assert len(world.claims) == len(world.machines) == 4


def test_claims_of_two_leaders_together_keep_the_limit():
    first, second = a_waiting_job("first"), a_waiting_job("second", age=30)
    late = created(a_world(second, pools=[a_cloud(limits={"maxNodes": 4})]).plan())
    world = a_world(first, second, pools=[a_cloud(limits={"maxNodes": 4})])
    world.settle()
    world.snapshot = replace(world.snapshot, taken_at=NOW.replace(minute=1))

    arrive(world, late)

    assert len(world.claims) == 8
    assert asked_for(world) == 0
    assert {claim.work.name for claim in world.claims if claim.work} == {"first"}
    assert len(world.machines) == 4

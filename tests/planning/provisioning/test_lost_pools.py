"""Gangs whose nodes were bought of a GPUNodePool that is deleted before they run."""

from collections import Counter
from dataclasses import replace

import pytest

from kit.provisioning import World, a_cloud, a_waiting_job, a_world, created, told
from stokehold.api.conditions import find_condition
from stokehold.model.actions import DeleteClaim, Note, WriteStatus
from stokehold.model.reasons import Event
from stokehold.model.snapshot import NodePool
from stokehold.planning.placement.purchases import WRITTEN_OFF_AFTER, standing_purchases
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

CHEAP, DEAR = a_cloud("cheap"), a_cloud("dear", price={"perGpuHour": "9", "currency": "USD"})
LONG = WRITTEN_OFF_AFTER.total_seconds()


def with_pools(world: World, *pools: NodePool) -> None:
    """What is left of the pools, or is there again."""
    world.snapshot = replace(world.snapshot, node_pools={pool.name: pool for pool in pools})
    world.settle()


def bought(*, booted: bool = False, left: tuple[NodePool, ...] = (DEAR,), remembers: bool = False) -> World:
    """Four nodes were bought of the cheap pool, which is gone now; by an older version, unless claims remember it."""
    world = a_world(a_waiting_job(), pools=[CHEAP, DEAR])
    world.settle()
    if booted:
        world.boot()
        world.settle()
    if not remembers:
        claims = {claim.name: replace(claim, provider=None) for claim in world.claims}
        world.snapshot = replace(world.snapshot, claims=claims)
    with_pools(world, *left)
    return world


def requested(world: World) -> list[Note]:
    """What the gang is told of nodes that are bought, until nothing more is to be done."""
    actions = [action for _ in range(60) for action in world.step()]
    notes = (note for action in actions if isinstance(action, WriteStatus) for note in action.notes)
    return [note for note in notes if note.reason == Event.CAPACITY_REQUESTED]


def pools_of(world: World, *, leaving: bool = False) -> Counter[str]:
    """How many claims each pool has."""
    return Counter(claim.spec.pool_name for claim in world.claims if claim.deleting == leaving)


@pytest.mark.parametrize("booted", [False, True])
def test_gang_buys_of_another_pool_when_its_own_stays_away_and_says_what_may_cost_twice(booted: bool):
    world = bought(booted=booted)
    world.wait(LONG - 1)
    world.settle()
    assert (pools_of(world), pools_of(world, leaving=True)) == ({"cheap": 4}, {})

    world.wait(1)
    world.settle()

    assert (pools_of(world), pools_of(world, leaving=True)) == ({"dear": 4}, {"cheap": 4})
    reason, message = told(world.job("gang"))
    assert (reason, message.partition(";")[0][:20]) == ("Requested", "4 nodes of pool dear")
    assert "4 nodes of GPUNodePool cheap, which does not exist any more, were bought before" in message
    world.boot()
    world.settle()
    assert standing_purchases(world.snapshot)["uid-gang"].is_ready
    assert len(world.machines) == 8, "nobody can be asked to take the first four away"


def test_claims_that_remember_their_provider_cost_nothing_twice():
    world = bought(remembers=True)
    world.wait(LONG)
    notes = requested(world)
    world.boot()
    world.settle()

    assert (
        "4 nodes of GPUNodePool cheap, which does not exist any more, were bought before and are being given back"
        in (notes[0].message)
    )
    assert not any("cost" in note.message for note in notes)
    assert len({note.key for note in notes}) == 1, "no second Event is told when the last of them has gone"
    assert "cheap" not in told(world.job("gang"))[1]
    assert (pools_of(world), pools_of(world, leaving=True)) == ({"dear": 4}, {})
    assert standing_purchases(world.snapshot)["uid-gang"].is_ready
    assert len(world.machines) == 4


@pytest.mark.parametrize("back", ["before", "between", "after"])
def test_pool_that_is_back_takes_its_machines_back_and_nothing_is_bought_a_third_time(back: str):
    world = bought()
    world.wait(LONG)
    if back == "before":
        with_pools(world, CHEAP, DEAR)
    elif back == "between":
        for action in world.plan():
            if isinstance(action, DeleteClaim):
                world.carry_out(action)
    world.settle()
    with_pools(world, CHEAP, DEAR)
    world.boot()
    world.settle()

    assert standing_purchases(world.snapshot)["uid-gang"].is_ready
    assert pools_of(world) == ({"cheap": 4} if back == "before" else {"dear": 4})
    assert pools_of(world, leaving=True) == {}
    assert len(world.machines) == 4
    assert "written off" not in told(world.job("gang"))[1]


def test_gang_waits_for_its_pool_where_no_other_has_nodes_for_it():
    world = bought(booted=True, left=(a_cloud("public", dataClasses=["public"]),))
    world.wait(LONG * 10)
    world.settle()

    assert (pools_of(world), pools_of(world, leaving=True)) == ({"cheap": 4}, {})
    (waits,) = plan_scheduling(world.snapshot, SchedulingSettings())
    assert isinstance(waits, WriteStatus)
    assert "GPUNodePool cheap, which does not exist any more" in waits.status["queue"]["message"]
    with_pools(world, CHEAP)
    world.boot()
    world.settle()
    assert standing_purchases(world.snapshot)["uid-gang"].is_ready
    assert len(world.machines) == 4


def unread(world: World, name: str) -> None:
    """The pool is there, and has a field that this version does not know: nobody has read it since the start."""
    left = {pool: known for pool, known in world.snapshot.node_pools.items() if pool != name}
    world.snapshot = replace(world.snapshot, node_pools=left, unread_pools=frozenset({name}))
    world.settle()


@pytest.mark.parametrize("booted", [False, True])
@pytest.mark.parametrize("remembers", [False, True])
def test_pool_that_cannot_be_read_is_not_gone_its_gang_waits_and_buys_nowhere_else(booted: bool, remembers: bool):
    world = bought(booted=booted, left=(CHEAP, DEAR), remembers=remembers)
    unread(world, "cheap")
    world.wait(LONG * 2)
    world.settle()

    assert (pools_of(world), pools_of(world, leaving=True)) == ({"cheap": 4}, {})
    assert all(find_condition(claim.status.conditions, "Stranded") is None for claim in world.claims)
    (waits,) = plan_scheduling(world.snapshot, SchedulingSettings())
    assert isinstance(waits, WriteStatus)
    assert "GPUNodePool cheap, which this version of the operator cannot read" in waits.status["queue"]["message"]
    with_pools(world, CHEAP, DEAR)
    world.boot()
    world.settle()
    assert standing_purchases(world.snapshot)["uid-gang"].is_ready
    assert len(world.machines) == 4


def test_half_of_a_purchase_stays_while_its_pool_cannot_be_read_and_is_completed_after():
    world = a_world(a_waiting_job(), pools=[CHEAP, DEAR])
    for claim in created(world.plan())[:2]:  # its operator died after two of four
        world.carry_out(claim)
    unread(world, "cheap")
    assert (pools_of(world), pools_of(world, leaving=True)) == ({"cheap": 2}, {})

    world.snapshot = replace(world.snapshot, unread_pools=frozenset())
    with_pools(world, CHEAP, DEAR)
    assert pools_of(world) == {"cheap": 4}


@pytest.mark.parametrize("keep_warm", [0, 2])
def test_idle_nodes_of_a_pool_that_cannot_be_read_stay_for_nobody_knows_for_how_long_they_should(keep_warm: int):
    cloud = a_cloud(keepWarm=keep_warm)
    world = a_world(a_waiting_job(numNodes=2), pools=[cloud])
    world.settle()
    world.boot()
    world.settle()
    world.snapshot = replace(world.snapshot, jobs={})
    unread(world, "cloud")
    world.wait(3600)
    world.settle()

    assert [(claim.deleting, claim.status.phase) for claim in world.claims] == [(False, "Ready")] * (2 + keep_warm)
    assert not any(node.unschedulable for node in world.snapshot.nodes.values())
    world.snapshot = replace(world.snapshot, unread_pools=frozenset())
    with_pools(world, cloud)
    for _ in range(3):
        world.wait(3600)
        world.settle()
    assert len(world.claims) == keep_warm


def test_claim_that_somebody_deletes_waits_for_a_pool_that_can_be_read_unless_it_remembers_its_provider():
    world = bought(left=(CHEAP, DEAR))
    unread(world, "cheap")
    old, *_, new = world.claims
    world.snapshot = replace(
        world.snapshot,
        jobs={},
        claims={old.name: old, new.name: replace(new, provider=CHEAP.spec.provider)},
    )
    for claim in world.claims:
        world.carry_out(DeleteClaim(claim, "somebody deleted it"))
    world.settle()

    (left,) = world.claims
    assert (left.name, left.deleting) == (old.name, True)
    assert find_condition(left.status.conditions, "Stranded") is None


def test_whoever_deletes_the_claims_need_not_wait():
    world = bought()
    for claim in world.claims:
        world.carry_out(DeleteClaim(claim, "somebody deleted it"))
    world.settle()

    assert (pools_of(world), pools_of(world, leaving=True)) == ({"dear": 4}, {"cheap": 4})


@pytest.mark.parametrize("booted", [False, True])
def test_with_one_claim_that_somebody_deletes_the_others_go_though_no_other_pool_has_nodes(booted: bool):
    world = bought(booted=booted, left=(a_cloud("public", dataClasses=["public"]),))
    world.carry_out(DeleteClaim(world.claims[0], "somebody deleted it"))
    for _ in range(3):
        world.settle()
        world.wait(10)

    assert (pools_of(world), pools_of(world, leaving=True)) == ({}, {"cheap": 4})


def test_second_purchase_that_was_half_written_is_completed():
    world = bought()
    world.wait(LONG)
    world.step()
    claims = created(world.plan())
    for claim in claims[1:3]:
        world.carry_out(claim)

    world.settle()

    assert pools_of(world) == {"dear": 4}
    assert {claim.name for claim in world.claims if not claim.deleting} == {claim.name for claim in claims}


@pytest.mark.parametrize("remembers", [False, True])
def test_node_of_a_lost_pool_with_somebody_on_it_stays(remembers: bool):
    world = bought(booted=True, remembers=remembers)
    held, *_ = (claim.name for claim in world.claims)
    world.snapshot = replace(world.snapshot, tenants={held: ("team-b/stranger",)})
    world.wait(LONG)
    world.settle()

    assert not world.snapshot.claims[held].deleting
    left = {} if remembers else {"cheap": 3}
    assert (pools_of(world), pools_of(world, leaving=True)) == ({"dear": 4, "cheap": 1}, left)

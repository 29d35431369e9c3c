"""When bought nodes go: empty ones alone, after another look, and each second is billed."""

from dataclasses import replace

import pytest

from builders import NOW, a_gang
from kit.provisioning import SETTINGS, World, a_waiting_job, a_world
from stokehold.api.conditions import find_condition
from stokehold.api.names import RELEASE_FINALIZER
from stokehold.cluster.own_kinds import read_claim
from stokehold.cluster.wire import Metadata, OwnKind
from stokehold.model.actions import AdmitJob, CordonNode, DeleteClaim, WriteStatus
from stokehold.model.snapshot import Claim
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings


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


def test_node_that_was_closed_too_late_is_opened_again_unless_a_person_closed_it():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.boot()
    world.settle()
    (name,) = world.snapshot.nodes
    idle = world.snapshot.nodes[name]
    world.snapshot = replace(world.snapshot, tenants={name: ("team-b/worker",)})

    world.carry_out(CordonNode(idle, True, "idle"))  # planned by a leader before us, when it was empty
    world.settle()
    assert not world.snapshot.nodes[name].unschedulable

    world.snapshot = replace(world.snapshot, nodes={name: replace(idle, unschedulable=True)})
    world.settle()
    assert world.snapshot.nodes[name].unschedulable


def test_claim_that_nobody_can_read_gives_its_machine_back_when_it_is_deleted():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    (known,) = world.claims
    meta = Metadata(known.name, known.uid, "2", finalizers=[RELEASE_FINALIZER], creation_timestamp=NOW)
    spec = {"poolName": "cloud", "gpusPerNode": "of another version"}
    with pytest.raises(ValueError, match="gpusPerNode"):
        read_claim(OwnKind(meta, spec))
    meta.deletion_timestamp = NOW
    read = read_claim(OwnKind(meta, spec))
    world.snapshot = replace(world.snapshot, claims={read.name: read}, jobs={})

    world.settle()

    assert world.claims == []
    assert world.machines == {}


def test_claim_whose_pool_is_gone_is_given_back_by_what_it_remembers_of_it():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    assert len(world.machines) == 1

    world.snapshot = replace(world.snapshot, node_pools={}, jobs={})
    (claim,) = world.claims
    world.carry_out(DeleteClaim(claim, "somebody deleted it"))
    world.settle()

    assert world.claims == []
    assert world.machines == {}


def test_claim_of_an_older_version_whose_pool_is_gone_says_so_and_goes_on_when_it_is_back():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    pools = world.snapshot.node_pools
    (claim,) = world.claims
    claim = replace(claim, provider=None)
    world.snapshot = replace(world.snapshot, node_pools={}, jobs={}, claims={claim.name: claim})
    world.carry_out(DeleteClaim(claim, "somebody deleted it"))

    world.settle()

    (claim,) = world.claims
    assert find_condition(claim.status.conditions, "Stranded") is not None
    assert len(world.machines) == 1
    world.snapshot = replace(world.snapshot, node_pools=pools)
    world.settle()
    assert world.claims == []
    assert world.machines == {}


def test_gang_whose_nodes_lost_their_pool_is_told_and_starts_when_it_is_back():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    pools = world.snapshot.node_pools
    world.snapshot = replace(world.snapshot, node_pools={})
    world.settle()

    assert stranded(world) == "True"
    (told,) = plan_scheduling(world.snapshot, SchedulingSettings())
    assert isinstance(told, WriteStatus)
    assert "GPUNodePool cloud, which does not exist any more" in told.status["queue"]["message"]

    world.snapshot = replace(world.snapshot, node_pools=pools)
    world.settle()
    world.boot()
    world.settle()

    assert stranded(world) == "False"
    assert [type(action) for action in plan_scheduling(world.snapshot, SchedulingSettings())] == [AdmitJob]


def stranded(world: World) -> str:
    """What the only claim's condition says."""
    (claim,) = world.claims
    found = find_condition(claim.status.conditions, "Stranded")
    return found.status if found is not None else ""


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


def test_claim_whose_record_the_schema_does_not_take_goes_once_its_machine_is_gone():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.boot()
    world.settle()
    (claim,) = world.claims
    world.snapshot = replace(world.snapshot, jobs={})
    world.carry_out(DeleteClaim(claim, "by its owner"))

    for _ in range(10):
        for action in world.plan():
            if isinstance(action, WriteStatus) and isinstance(action.subject, Claim):
                assert world.machines == {}, "nothing is let go before the provider has taken its machine"
                refused = {name: replace(one, status_refused=True) for name, one in world.snapshot.claims.items()}
                world.snapshot = replace(world.snapshot, claims=refused)
            else:
                world.carry_out(action)

    assert world.claims == []
    assert world.snapshot.nodes == {}


def test_idle_node_of_a_claim_whose_record_the_schema_does_not_take_is_closed_and_given_back():
    world = a_world(a_waiting_job(numNodes=1))
    world.settle()
    world.boot()
    world.settle()
    (node,) = world.snapshot.nodes
    world.snapshot = replace(world.snapshot, jobs={}, tenants={node: ("team-b/worker",)})
    _refuse_records(world)
    assert len(world.machines) == 1, "somebody is on it"

    world.snapshot = replace(world.snapshot, tenants={})
    _refuse_records(world)

    assert world.claims == []
    assert world.machines == {}


def _refuse_records(world: World) -> None:
    """Some plans, of which the API server takes all but the statuses of claims."""
    for _ in range(10):
        for action in world.plan():
            if isinstance(action, WriteStatus) and isinstance(action.subject, Claim):
                refused = {name: replace(one, status_refused=True) for name, one in world.snapshot.claims.items()}
                world.snapshot = replace(world.snapshot, claims=refused)
            else:
                world.carry_out(action)

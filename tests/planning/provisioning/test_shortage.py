"""How many nodes are bought: only those that are missing beside what is free and what is on its way."""

from dataclasses import replace

import pytest

from builders import GPU, a_gang
from kit.provisioning import SETTINGS, World, a_cloud, a_waiting_job, a_world, created, told
from stokehold.model.actions import AdmitJob
from stokehold.model.demand import Match, within
from stokehold.model.snapshot import Job
from stokehold.planning.provisioning.shortage import next_trigger
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings


def join(world: World, *jobs: Job) -> None:
    world.snapshot = replace(world.snapshot, jobs={**world.snapshot.jobs, **{job.key: job for job in jobs}})


def run(world: World, name: str, node: str) -> None:
    """The job's only worker is on the node."""
    job = world.job(name)
    pods = a_gang(job, nodes=(node,))
    running = replace(job, pods=pods, status=job.status.model_copy(update={"phase": "Running", "queue": None}))
    taken = world.snapshot.used.get(node, {}).get(GPU, 0) + job.demand.gpus
    world.snapshot = replace(
        world.snapshot,
        used={**world.snapshot.used, node: {GPU: taken}},
        tenants={**world.snapshot.tenants, node: (f"team-a/{pods[0].name}",)},
    )
    join(world, running)


def admitted(world: World) -> dict[str, tuple[str, ...]]:
    plan = plan_scheduling(world.snapshot, SchedulingSettings())
    return {action.job.name: action.placement.nodes for action in plan if isinstance(action, AdmitJob)}


def with_a_node(gpus: int, *, nodes: int = 1) -> World:
    """One bought node for each of some jobs of this size, which run on them."""
    world = a_world(pools=[a_cloud(zones=["z1"])])
    for i in range(nodes):
        join(world, a_waiting_job(f"there-{i}", numNodes=1, gpusPerNode=gpus, age=40))
        world.settle()
    world.boot()
    world.settle()
    for i, node in enumerate(sorted(world.snapshot.nodes)):
        run(world, f"there-{i}", node)
    world.settle()
    return world


@pytest.mark.parametrize(("jobs", "gpus", "nodes"), [(8, 1, 1), (9, 1, 2), (2, 4, 1), (3, 4, 2), (4, 2, 1), (3, 5, 3)])
def test_small_jobs_share_the_nodes_that_are_bought_for_them(jobs: int, gpus: int, nodes: int):
    world = a_world(*(a_waiting_job(f"j{i}", numNodes=1, gpusPerNode=gpus) for i in range(jobs)))

    world.settle()
    assert len(world.claims) == nodes
    world.boot()
    world.settle()

    assert len(world.claims) == nodes, "nor when they are there"


def test_what_a_purchase_leaves_over_is_used_by_those_who_come_while_it_boots():
    world = a_world(a_waiting_job("first", numNodes=1, gpusPerNode=6, age=40))
    world.settle()

    join(world, a_waiting_job("second", numNodes=2, gpusPerNode=1, age=40))
    world.settle()
    assert len(world.claims) == 1
    join(world, a_waiting_job("third", numNodes=1, gpusPerNode=1, age=40))
    world.settle()

    assert len(world.claims) == 2


def test_job_that_others_nodes_will_hold_is_told_so_when_it_was_told_otherwise():
    world = a_world(a_waiting_job("small", numNodes=1, gpusPerNode=1, age=2))
    world.settle()
    assert told(world.job("small"))[0] == "BelowTrigger"
    join(world, a_waiting_job("first", numNodes=1, gpusPerNode=6, age=40))

    world.settle()

    assert len(world.claims) == 1
    assert told(world.job("small"))[0] == "Covered"


def test_empty_node_counts_so_only_the_others_are_bought_and_the_gang_gets_all_of_them():
    world = with_a_node(8)
    world.snapshot = replace(world.snapshot, used={}, tenants={}, jobs={})
    join(world, a_waiting_job())

    world.settle()
    assert len(world.claims) == world.most_claims["cloud"] == 4
    world.boot()
    world.settle()

    assert len(set(admitted(world)["gang"])) == 4


def test_zone_where_nodes_are_free_comes_before_the_first():
    world = with_a_node(8)
    world.snapshot = replace(
        world.snapshot, used={}, tenants={}, jobs={}, node_pools={"cloud": a_cloud(zones=["z0", "z1"])}
    )
    join(world, a_waiting_job())

    world.settle()

    assert [claim.spec.zone for claim in world.claims] == ["z1"] * 4


def test_room_beside_others_counts_when_it_saves_a_node_and_is_kept_for_the_gang():
    world = with_a_node(4)
    (there,) = world.snapshot.nodes
    join(world, a_waiting_job(numNodes=3, gpusPerNode=4))

    assert len(created(world.step())) == 1
    join(world, a_waiting_job("thief", numNodes=1, gpusPerNode=4, age=1))
    assert admitted(world) == {}, "the half-free node is kept"
    world.settle()
    world.boot()
    world.settle()

    assert sorted(admitted(world)["gang"]).count(there) == 1
    assert len(admitted(world)["gang"]) == 3


def test_room_beside_others_that_saves_no_node_stays_open():
    world = with_a_node(4)
    join(world, a_waiting_job(numNodes=2, gpusPerNode=4))

    assert len(created(world.step())) == 1
    assert [claim for claim in world.claims if claim.status.reused_for] == []


def test_room_that_one_gang_is_to_have_is_not_counted_for_another():
    world = with_a_node(4)
    join(world, *(a_waiting_job(f"g{i}", numNodes=3, gpusPerNode=4) for i in range(2)))

    assert len(created(world.step())) == 1 + 2


def test_room_that_others_filled_meanwhile_is_bought_after_all_and_they_stay():
    world = with_a_node(4)
    (there,) = world.snapshot.nodes
    join(world, a_waiting_job(numNodes=3, gpusPerNode=4))
    world.step()
    world.snapshot = replace(world.snapshot, used={there: {GPU: 8}})

    world.settle()

    ours = [claim for claim in world.claims if claim.work and claim.work.name == "gang"]
    assert len(ours) == 2
    assert there not in {claim.name for claim in ours}
    assert not world.snapshot.nodes[there].unschedulable


def test_nodes_in_flight_whose_gang_has_gone_are_taken_over_by_the_next():
    world = a_world(a_waiting_job("gone", numNodes=3))
    world.settle()
    machines = set(world.machines)
    world.snapshot = replace(world.snapshot, jobs={})
    join(world, a_waiting_job())

    world.settle()

    assert len(world.claims) == 4
    assert machines < set(world.machines)
    world.boot()
    world.settle()
    assert len(set(admitted(world)["gang"])) == 4


def test_nodes_in_flight_stay_for_those_who_counted_on_them_when_their_gang_has_gone():
    jobs = [a_waiting_job(f"j{i}", numNodes=1, gpusPerNode=1, age=90 - i) for i in range(8)]
    world = a_world(*jobs)
    world.settle()
    machines = set(world.machines)
    world.snapshot = replace(world.snapshot, jobs={job.key: job for job in jobs[1:]})

    world.settle()
    assert set(world.machines) == machines
    world.snapshot = replace(world.snapshot, jobs={})
    world.settle()

    assert world.machines == {}, "nobody is left"


def test_limit_lowered_below_what_is_held_tears_nothing_down_and_buys_nothing():
    world = with_a_node(8, nodes=3)
    pool = replace(a_cloud(limits={"maxNodes": 1}, zones=["z1"], keepWarm=1), generation=2)
    world.snapshot = replace(world.snapshot, node_pools={"cloud": pool})
    join(world, a_waiting_job())

    world.settle()
    world.wait(1000)
    world.settle()

    assert [(c.status.phase, c.deleting) for c in world.claims] == [("Ready", False)] * 3
    assert not any(node.unschedulable for node in world.snapshot.nodes.values())
    assert told(world.job("gang"))[0] == "LimitReached"


def test_part_of_a_purchase_whose_rest_the_lowered_limit_forbids_goes_back():
    world = a_world(a_waiting_job())
    for claim in created(world.plan())[:2]:  # its operator died after two of four
        world.carry_out(claim)
    world.snapshot = replace(world.snapshot, node_pools={"cloud": a_cloud(limits={"maxNodes": 3})})

    world.settle()

    assert world.claims == []
    assert told(world.job("gang"))[0] == "LimitReached"


def test_next_plan_is_due_when_a_gang_that_is_short_has_waited_for_long_enough():
    young, old = a_waiting_job("young", age=2), a_waiting_job("old", age=60)
    snapshot = a_world(young, old).snapshot

    assert next_trigger(snapshot, SETTINGS) == young.created_at + SETTINGS.trigger_age
    assert next_trigger(replace(snapshot, jobs={old.key: old}), SETTINGS) is None


@pytest.mark.parametrize(
    "key", ["topology.kubernetes.io/zone", "topology.ebs.csi.aws.com/zone", "topology.gke.io/zone"]
)
@pytest.mark.parametrize(("zones", "bought"), [(["z1", "z2"], ["z2"]), (["z1", "z3"], []), ([], [])])
def test_nodes_are_bought_in_the_zone_of_the_jobs_volume_or_not_at_all(zones: list[str], bought: list[str], key: str):
    """Also where the volume names it by the label that its driver puts on nodes once they have joined."""
    job = a_waiting_job("held", numNodes=1, gpusPerNode=1, age=40)
    in_z2 = ((Match(key, "In", ("z2",)),),)
    held = replace(job, reach=(("ckpt", in_z2),), demand=within(job.demand, in_z2))
    world = a_world(held, pools=[a_cloud(zones=zones)])

    world.settle()

    assert [claim.spec.zone for claim in world.claims] == bought
    world.boot()
    world.settle()
    phases = [(claim.status.phase, claim.deleting) for claim in world.claims]
    assert phases == [("Ready", False)] * len(bought), "it is not taken back before its driver has put its label on it"

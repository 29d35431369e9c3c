"""Pods that ask for more than their spec says: a LimitRange adds it when they are created, and nobody tells before."""

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import GPU, NOW, a_node, a_pod_set, a_replica, a_serving_pool, a_snapshot
from kit.workspaces import a_workspace, its_pod
from kit.world import World
from stokehold.model.actions import Action, AdmitJob, PlaceReplica, WriteStatus
from stokehold.model.demand import shape_of
from stokehold.model.pods import Member
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.culling.standing import why_stuck
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

SETTINGS = SchedulingSettings()
ROOM_FOR_THREE = {"cpu": 30_000}


@pytest.fixture
def world() -> World:
    """One node of 8 GPUs and 96 CPUs, and a LimitRange of 30 CPUs."""
    made = World(NOW)
    made.add_node(a_node("n1"))
    made.default_requests = dict(ROOM_FOR_THREE)
    return made


def submit(world: World, *names: str, namespace: str = "team") -> None:
    for name in names:
        world.add_job(namespace, name, {})


def plan(world: World, seconds: float = 0) -> list[Action]:
    """What is decided so much later, carried out."""
    world.now += timedelta(seconds=seconds)
    actions = list(plan_scheduling(world.snapshot(), SETTINGS))
    world.carry_out(actions)
    world.bind_and_start()
    return actions


def admitted(actions: list[Action]) -> list[str]:
    return [action.job.name for action in actions if isinstance(action, AdmitJob)]


def messages(actions: list[Action]) -> list[str]:
    return [action.status["queue"]["message"] for action in actions if isinstance(action, WriteStatus)]


def test_jobs_that_do_not_fit_after_all_are_taken_back_at_once_and_wait_for_what_they_really_ask(world: World):
    submit(world, "a", "b", "c", "d", "e")
    assert admitted(plan(world)) == ["a", "b", "c", "d", "e"]

    closed = [action for action in plan(world, 1) if isinstance(action, WriteStatus) and action.closes_attempt]
    plan(world, 1)
    submit(world, "f")
    waiting = plan(world, 60)

    assert sorted(action.subject.name for action in closed) == ["d", "e"]
    assert "asks for 30 CPU, more than its spec says" in closed[0].notes[0].message
    assert not admitted(waiting)
    assert len(messages(waiting)) == 3
    assert all("short of cpu" in said and "a LimitRange of the namespace" in said for said in messages(waiting))

    world.end_pod(world.pods[("team", "a-1-0")], "Succeeded")

    assert admitted(plan(world, 1)) == ["d"]
    assert not admitted(plan(world, 60))


def test_what_was_added_is_forgotten_so_that_an_end_of_it_is_noticed(world: World):
    submit(world, "a", "b", "c", "d")
    for seconds in (0, 1, 60):
        plan(world, seconds)
    world.default_requests = {}

    assert not admitted(plan(world, 60))
    assert admitted(plan(world, 1800)) == ["d"]


def test_newest_pod_is_believed(world: World):
    submit(world, "a", "b", "c", "d", "e")
    for seconds in (0, 1, 60):
        plan(world, seconds)
    world.default_requests = {}
    world.end_pod(world.pods[("team", "a-1-0")], "Succeeded")

    assert admitted(plan(world, 1)) == ["d"]
    assert admitted(plan(world, 1)) == ["e"]


def test_other_namespaces_and_shapes_are_left_alone(world: World):
    submit(world, "a", "b", "c", "d")
    for seconds in (0, 1, 60):
        plan(world, seconds)

    submit(world, "elsewhere", namespace="other")
    world.add_job("team", "larger", {"resources": {"requests": {"memory": "1Gi"}}})
    counted = {key[1]: job.added for key, job in world.snapshot().jobs.items()}

    assert counted["d"] == (("cpu", 30_000),)
    assert counted["elsewhere"] == counted["larger"] == ()


def test_worker_of_an_older_spec_tells_nothing(world: World):
    submit(world, "a")
    world.default_requests = dict(ROOM_FOR_THREE)
    world.carry_out(plan_scheduling(world.snapshot(), SETTINGS))
    world.edit_job(("team", "a"), suspend=True)

    assert world.snapshot().jobs[("team", "a")].added == ()


def test_replica_is_placed_by_what_its_pod_asks_for():
    pool = a_serving_pool(pod_set=a_pod_set(1, ready_replicas=0))
    waits = a_replica(phase="Pending", node="", bound=False, gated=True, ready=False, started_at=None)
    large = replace(waits, requests={GPU: 1, "pods": 1, "cpu": 30_000})
    nodes = [a_node("full"), a_node("free")]
    used = {"full": {"cpu": 70_000, GPU: 1}}

    def place(pod):
        snapshot = a_snapshot(nodes, serving_pools={pool.key: replace(pool, pods=(pod,))}, used=used)
        return [
            action.placement.nodes for action in plan_scheduling(snapshot, SETTINGS) if type(action) is PlaceReplica
        ]

    assert place(waits) == [("full",)]
    assert place(large) == [("free",)]


def test_workspace_whose_pod_has_outgrown_its_node_waits_for_one_with_more_room(world: World):
    workspace = a_workspace(created_at=NOW)
    grown = its_pod(workspace, bound=False, ready=False, phase="Pending", unschedulable="0/1 nodes are available")
    grown = replace(
        grown, member=Member("DevWorkspace", "ada"), owner_uid="set", requests={GPU: 1, "pods": 1, "cpu": 100_000}
    )
    assert workspace.pod_set is not None
    world.cluster.stateful_sets.on_upsert(workspace.key, None, workspace.pod_set)
    world.cluster.workspaces.on_upsert(workspace.key, None, replace(workspace, pods=(), pod_set=None))
    world.cluster.pods.on_upsert(grown.key, None, grown)

    snapshot = world.snapshot()
    stuck = why_stuck(snapshot.workspaces[workspace.key], snapshot, CullingSettings())
    world.cluster.pods.on_delete(grown.key, grown)
    world.cluster.stateful_sets.on_delete(workspace.key, workspace.pod_set)

    assert stuck is not None
    assert "asks for 100 CPU, more than its spec says" in stuck
    assert "one workspace asks for 1 GPU and 100 CPU" in messages(plan(world, 2))[0]


def test_shape_is_what_others_look_at_who_add_requests(world: World):
    def shape(**spec: object) -> str:
        return shape_of(world.add_job("team", "x", spec).spec)

    assert shape(args=["--lr", "1"]) == shape(env=[{"name": "A", "value": "b"}]) == shape()
    assert (
        len(
            {
                shape(),
                shape(podTemplate={"spec": {"runtimeClassName": "kata"}}),
                shape(resources={"limits": {"cpu": 1}}),
            }
        )
        == 3
    )

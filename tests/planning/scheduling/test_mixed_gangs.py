"""A gang whose workers were made by different plans is taken back whole, and starts again of one piece."""

from dataclasses import replace
from datetime import timedelta

import pytest

from builders import GPU, NOW, a_node
from kit.world import World
from stokehold.model.actions import Action, WriteStatus
from stokehold.model.snapshot import Namespace
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

KEY = ("team", "gang")


@pytest.fixture
def world() -> World:
    made = World(NOW)
    made.add_namespace(Namespace("team", {}))
    for name in ("n1", "n2", "n3"):
        made.add_node(a_node(name))
    made.add_job(*KEY, {"numNodes": 2, "gpusPerNode": 8})
    return made


def plan(world: World) -> list[Action]:
    return list(plan_scheduling(world.snapshot(), SchedulingSettings()))


def closed_attempts(world: World) -> list[str]:
    return [action.closes_attempt for action in plan(world) if isinstance(action, WriteStatus)]


def start_again(world: World) -> list[tuple[str, int, str]]:
    """Node, GPUs and attempt of each worker that is alive in the end."""
    for _ in range(6):
        world.carry_out(plan(world))
        world.finish_deletions()
        world.bind_and_start()
        world.now += timedelta(seconds=10)
    alive = [pod for pod in world.pods.values() if not pod.is_over]
    return [(pod.node, pod.requests[GPU], pod.name) for pod in alive]


def test_lead_alone_when_the_spec_is_edited(world: World):
    world.carry_out_in_part(plan(world), [1])
    world.edit_job(KEY, gpus_per_node=4)

    assert closed_attempts(world) == ["IncompleteGang"]
    assert [(gpus, name) for _, gpus, name in start_again(world)] == [(4, "gang-2-0"), (4, "gang-2-1")]


def test_late_worker_of_an_older_spec(world: World):
    old = plan(world)
    world.edit_job(KEY, gpus_per_node=4)
    world.carry_out_in_part(plan(world), [1])
    world.carry_out(old)

    assert closed_attempts(world) == ["IncompleteGang"]
    assert [(gpus, name) for _, gpus, name in start_again(world)] == [(4, "gang-2-0"), (4, "gang-2-1")]


def test_late_worker_on_another_node_than_its_gang_was_given(world: World):
    old = plan(world)
    world.add_node(replace(world.cluster.nodes.values["n2"], unschedulable=True))
    world.carry_out_in_part(plan(world), [1])
    world.carry_out(old)

    assert closed_attempts(world) == ["IncompleteGang"]
    assert sorted(node for node, _, _ in start_again(world)) == ["n1", "n3"]


def test_running_gang_is_left_alone_when_its_spec_is_edited(world: World):
    world.carry_out(plan(world))
    world.bind_and_start()
    world.carry_out(plan(world))
    before = dict(world.pods)
    world.edit_job(KEY, gpus_per_node=4)

    assert closed_attempts(world) == []
    start_again(world)
    assert {pod.uid for pod in world.pods.values()} == {pod.uid for pod in before.values()}

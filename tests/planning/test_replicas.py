"""Replicas of serving pools in the one queue: placed, told why they wait, and freed of a node that is taken."""

from dataclasses import replace

from builders import (
    GPU,
    NOW,
    a_job,
    a_node,
    a_pod_set,
    a_pool,
    a_queue,
    a_replica,
    a_serving_pool,
    a_snapshot,
    seconds_ago,
)
from stokehold.model.actions import Action, AdmitJob, DeletePod, PlaceReplica, WriteStatus
from stokehold.model.demand import Match, replica_demand, within
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Namespace, PriorityClass, ServingPool, Snapshot, VolumeClaim
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

SETTINGS = SchedulingSettings()


def plan(snapshot: Snapshot) -> list[Action]:
    return list(plan_scheduling(snapshot, SETTINGS))


def gated(index: int = 0, **fields: object) -> Pod:
    return a_replica(index, gated=True, ready=False, node="", bound=False, phase="Pending", **fields)


def world(pool: ServingPool, **fields: object) -> Snapshot:
    return a_snapshot([a_node(gpus=2)], serving_pools={pool.key: pool}, **fields)


def test_replicas_are_placed_as_far_as_there_is_room_and_the_others_are_told():
    pool = a_serving_pool(pods=[gated(index) for index in range(3)])

    actions = plan(world(pool))

    assert [action.pod.name for action in actions if isinstance(action, PlaceReplica)] == ["chat-0", "chat-1"]
    (told,) = [action for action in actions if isinstance(action, WriteStatus)]
    assert told.status["queue"]["reason"] == "WaitingForCapacity"
    assert told.status["conditions"][0]["type"] == "CapacityAvailable"


def test_serving_goes_before_training_by_the_charts_classes_however_long_that_has_waited():
    pool = a_serving_pool(pods=[gated(created_at=seconds_ago(1))])
    classes = [PriorityClass("serve", 10000, preempts=False), PriorityClass("train-normal", 1000, preempts=False)]

    actions = plan(world(pool, jobs=[a_job(gpusPerNode=2, age=9000)], priority_classes=classes))

    assert any(isinstance(action, PlaceReplica) for action in actions)
    assert not any(isinstance(action, AdmitJob) for action in actions)


def test_replicas_wait_for_the_volumes_that_they_name_and_for_gpus_where_those_are():
    pool = replace(a_serving_pool(pods=[gated()]), volumes=(("models", None),))

    (missing,) = plan(world(pool))
    zone = ((Match("zone", "In", ("z1",)),),)
    there = replace(pool, volumes=(("models", VolumeClaim("Bound")),), reach=(("models", zone),))
    (elsewhere,) = plan(world(replace(there, demand=within(pool.demand, zone))))

    assert isinstance(missing, WriteStatus)
    assert missing.status["queue"]["reason"] == "VolumeUnavailable"
    assert isinstance(elsewhere, WriteStatus)
    assert "volume claim models can be reached from nodes with zone In (z1)" in elsewhere.status["queue"]["message"]


def test_replica_in_a_namespace_that_no_queue_serves_waits_and_says_so():
    pool = a_serving_pool(pods=[gated()])
    foreign = a_queue("other", namespaces={"matchLabels": {"team": "b"}})

    actions = plan(world(pool, queues=[foreign], namespaces=[Namespace("team-a", {})]))

    (told,) = actions
    assert told.status["queue"]["reason"] == "Misconfigured"
    assert "no GPUQueue serves namespace team-a" in told.status["queue"]["message"]


def test_replica_goes_only_to_gpus_of_the_name_that_its_pod_asks_for():
    node = a_node(labels={"pool": "mi300x"}, amounts={"amd.com/gpu": 8, GPU: 0})
    pools = [a_pool("mi300x", resourceName="amd.com/gpu")]
    wants = a_serving_pool(gpuTypes=["mi300x"], pods=[gated()])

    for name, placed in (("amd.com/gpu", True), (GPU, False)):
        demand = replica_demand(wants.spec)
        pool = replace(wants, demand=replace(demand, gpu_resource=name))
        actions = plan(a_snapshot([node], serving_pools={pool.key: pool}, node_pools=pools))
        assert any(isinstance(action, PlaceReplica) for action in actions) is placed


def test_replica_that_could_not_be_bound_in_time_is_deleted_and_one_that_waits_for_room_is_not():
    unbound = {"bound": False, "ready": False, "phase": "Pending"}
    pods = [
        a_replica(0, placed_at=seconds_ago(60), **unbound),
        a_replica(1, placed_at=seconds_ago(59), **unbound),
        a_replica(2, placed_at=seconds_ago(9000)),
        gated(3, created_at=seconds_ago(9000)),
    ]
    pool = a_serving_pool(pods=pods)

    actions = plan(world(pool, used={"n1": {GPU: 2}}))

    assert [action.pod.name for action in actions if isinstance(action, DeletePod)] == ["chat-0"]


def test_placed_replica_holds_its_room_until_it_is_bound():
    pool = a_serving_pool(pods=[a_replica(0, bound=False, ready=False, placed_at=NOW, requests={GPU: 2}), gated(1)])

    actions = plan(world(pool, used={"n1": {GPU: 2}}))

    assert not any(isinstance(action, PlaceReplica) for action in actions)


def test_room_is_kept_for_a_replica_that_its_deployment_has_not_created_yet():
    classes = [PriorityClass("serve", 10000, preempts=False), PriorityClass("train-normal", 1000, preempts=False)]
    job = a_job(gpusPerNode=1, age=9000)

    for fields, admitted in (({}, False), ({"problem": "exceeded quota"}, True)):
        pool = a_serving_pool(pods=[a_replica(0)], pod_set=a_pod_set(2, **fields))
        actions = plan(world(pool, jobs=[job], priority_classes=classes, used={"n1": {GPU: 1}}))
        assert any(isinstance(action, AdmitJob) for action in actions) is admitted
        assert not any(isinstance(action, PlaceReplica) for action in actions)


def test_room_is_kept_for_no_more_replicas_than_the_pool_may_have_whatever_its_deployment_says():
    scaled = a_pod_set(replicas=2**31 - 1, gpu_resource=GPU)
    pool = a_serving_pool(replicas={"min": 1, "max": 1}, pods=[], pod_set=scaled)

    actions = plan(world(pool, jobs=[a_job(gpusPerNode=1)]))

    assert any(isinstance(action, AdmitJob) for action in actions)


def test_nothing_is_kept_for_a_pool_that_has_all_its_replicas():
    pool = a_serving_pool(pods=[a_replica(0)], pod_set=a_pod_set(1))

    actions = plan(world(pool, jobs=[a_job()], used={"n1": {GPU: 1}}))

    assert any(isinstance(action, AdmitJob) for action in actions)


def refused(index: int, age: float, node: str = "n1") -> Pod:
    times = {"created_at": seconds_ago(age), "placed_at": seconds_ago(age)}
    return a_replica(index, phase="Failed", reason="UnexpectedAdmissionError", ready=False, node=node, **times)


def test_node_that_refuses_replicas_is_left_alone_for_a_while():
    nodes, used = [a_node("n1"), a_node("n2")], {"n1": {GPU: 1}}  # n1 is the tighter fit

    for ages, chosen in (((60, 50), "n2"), ((60,), "n1"), ((600, 500), "n1")):
        pods = [refused(index, age) for index, age in enumerate(ages)]
        pool = a_serving_pool(pods=[*pods, gated(9)])
        actions = plan(a_snapshot(nodes, serving_pools={pool.key: pool}, used=used))
        assert [a.placement.nodes for a in actions if isinstance(a, PlaceReplica)] == [(chosen,)]


def test_only_the_last_failed_replicas_and_those_that_tell_of_their_node_stay():
    pods = [refused(index, age=1000 - index) for index in range(7)] + [refused(index, 50) for index in range(7, 9)]
    pool = a_serving_pool(pods=pods)

    actions = plan(world(pool))

    assert {action.pod.name for action in actions if isinstance(action, DeletePod)} == {f"chat-{i}" for i in range(4)}

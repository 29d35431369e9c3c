"""The Deployment has one writer, and the status says what stands in the way."""

from dataclasses import replace
from datetime import timedelta

from builders import (
    GPU,
    NOW,
    a_load,
    a_pod_set,
    a_pool,
    a_replica,
    a_serving_pool,
    a_source,
    seconds_ago,
)
from kit.autoscaling import BY_ENGINE, carried_out, condition, desired, plan, running, settled, shifted, world
from stokehold.api.v1alpha1.inference_pool import InferencePoolStatus
from stokehold.model.actions import Note, WriteDeployment
from stokehold.model.demand import with_gpu_resource
from stokehold.model.snapshot import PriorityClass


def test_replicas_that_somebody_else_wrote_are_written_back():
    pool = running(3, scaling=BY_ENGINE)
    scaled = replace(pool, pod_set=replace(pool.pod_set, replicas=1))

    actions = plan(world(scaled, a_load([a_source(running=8, waiting=0)] * 3)))

    (write,) = [action for action in actions if isinstance(action, WriteDeployment)]
    assert (write.replicas, write.reshapes) == (3, False)


def test_others_who_write_every_three_seconds_are_undone_three_times_and_then_left_alone_and_named():
    pool = running(3, scaling=BY_ENGINE)
    load = a_load([a_source(running=8, waiting=0)] * 3)
    theirs = {"replicas": 5, "written_replicas": 3, "replicas_writer": "gitops"}
    undone: list[int] = []
    told: list[Note] = []
    writes: list[int] = []
    for second in range(0, 120, 3):
        at = NOW + timedelta(seconds=second)
        fought = replace(pool, pod_set=replace(pool.pod_set, **theirs))
        snapshot = world(fought, shifted(load, at), at)
        actions = plan(snapshot)
        undone.append(sum(isinstance(action, WriteDeployment) for action in actions))
        told += [note for action in actions for note in getattr(action, "notes", ())]
        writes.append(len(actions))
        (pool,) = carried_out(snapshot, actions).serving_pools.values()

    status, reason, message = condition(pool, "ScalingActive")
    assert undone == [1, 1, 1, *[0] * 37]  # so their number stands: no pod comes or goes for the rest of the time
    assert writes[4:] == [0] * 36
    assert (status, reason) == ("False", "OtherWriter")
    assert "gitops keeps writing spec.replicas to 5" in message
    assert [(note.reason, note.warning) for note in told] == [("OtherWriter", True)]
    assert pool.status.desired_replicas == 3

    later = NOW + timedelta(minutes=31)
    tried_again = plan(world(pool, shifted(load, later), later))
    assert sum(isinstance(action, WriteDeployment) for action in tried_again) == 1
    soon = NOW + timedelta(minutes=2)
    asked = world(replace(pool, generation=pool.generation + 1), shifted(load, soon), soon)
    assert sum(isinstance(action, WriteDeployment) for action in plan(asked)) == 1
    (pool,) = carried_out(asked, plan(asked)).serving_pools.values()
    assert condition(pool, "ScalingActive")[0] == "True"


def test_pod_spec_that_somebody_else_changed_is_restored_and_the_reversal_remembered():
    pool = running(2, scaling=BY_ENGINE)
    changed = replace(pool, pod_set=replace(pool.pod_set, written_replicas=2, template_writer="kubectl-set"))

    (write, *_) = plan(world(changed))

    assert (write.reshapes, write.undone_at) == (True, (NOW,))


def test_reversals_of_long_ago_are_no_fight():
    undone = (seconds_ago(9000), seconds_ago(4000), seconds_ago(3))
    pool = running(2, scaling=BY_ENGINE)
    scaled = replace(pool, pod_set=replace(pool.pod_set, replicas=1, written_replicas=2, undone_at=undone))

    assert any(isinstance(action, WriteDeployment) for action in plan(world(scaled)))


def test_lost_status_keeps_what_runs():
    pool = running(3, scaling=BY_ENGINE)

    assert desired(world(replace(pool, status=InferencePoolStatus()))) == 3


def test_change_of_the_spec_reaches_the_template_and_a_change_of_bounds_does_not():
    pool = running(2, scaling=BY_ENGINE)
    wider = replace(
        pool, spec=pool.spec.model_copy(update={"replicas": a_serving_pool(replicas={"max": 9}).spec.replicas})
    )
    newer = replace(pool, spec=pool.spec.model_copy(update={"image": "y"}))

    assert not [action for action in plan(world(wider)) if isinstance(action, WriteDeployment)]
    (write,) = [action for action in plan(world(newer)) if isinstance(action, WriteDeployment)]
    assert (write.replicas, write.reshapes) == (2, True)


def test_service_or_budget_that_somebody_deleted_comes_back():
    for lost in ({"has_service": False}, {"has_budget": False}):
        (write, *_) = plan(world(replace(running(2, scaling=BY_ENGINE), **lost)))
        assert write.reshapes


TAKEN = "Service chat exists already and was made by somebody else"


def test_children_that_were_refused_are_told_once_and_tried_again_while_the_number_follows_the_load():
    had = replace(running(2, scaling=BY_ENGINE), has_service=False)
    busy = a_load([a_source(running=16, waiting=0)] * 2)
    refused = replace(had, create_error=TAKEN, create_failed_at=NOW, name_taken=True)

    (write, tell) = plan(world(refused, busy))
    after, _ = settled(world(refused, busy))

    assert (write.replicas, write.reshapes) == (4, False)
    assert [note.reason for note in tell.notes] == ["LoadRose", "NameTaken"]
    assert (after.status.queue.reason, after.status.queue.message) == ("NameTaken", TAKEN)
    assert plan(world(after, busy)) == []  # the same words are no news
    later = plan(world(after, shifted(busy, NOW + timedelta(seconds=10)), NOW + timedelta(seconds=10)))
    assert [action.reshapes for action in later if isinstance(action, WriteDeployment)] == [True]
    well, _ = settled(world(replace(after, create_error="", name_taken=False, has_service=True)))
    assert well.status.queue is None


def test_new_pool_whose_name_is_taken_waits_and_says_so():
    refused = replace(a_serving_pool(), create_error=TAKEN, create_failed_at=NOW, name_taken=True)

    after, actions = settled(world(refused))

    assert not [action for action in actions if isinstance(action, WriteDeployment)]
    assert (after.status.phase, after.status.queue.reason) == ("Pending", "NameTaken")
    assert TAKEN in condition(after, "Ready")[2]


def test_canary_is_told_to_be_missing_and_rolls_nothing_out():
    pool = running(2, scaling=BY_ENGINE, rollout={"strategy": "Canary"}, image="new")
    changed = replace(pool, pod_set=replace(pool.pod_set, template="old"))

    after, actions = settled(world(changed))

    assert not [action for action in actions if isinstance(action, WriteDeployment)]
    assert "Canary is not built yet" in condition(after, "Valid")[2]


def test_unknown_priority_class_is_told_and_one_that_preempts_is_not_given_to_pods():
    unknown, actions = settled(world(a_serving_pool(priorityClassName="vip")))
    assert not [action for action in actions if isinstance(action, WriteDeployment)]
    assert "PriorityClass vip does not exist" in condition(unknown, "Ready")[2]

    for preempts, expected in ((True, ""), (False, "vip")):
        classes = [PriorityClass("vip", 9, preempts=preempts)]
        (write, _) = plan(world(a_serving_pool(priorityClassName="vip"), priority_classes=classes))
        assert write.shape.pod_priority_class == expected


def test_gpus_are_asked_for_by_the_name_of_the_node_pool_and_keep_it():
    amd = a_pool("mi300x", resourceName="amd.com/gpu")
    pool = a_serving_pool(gpuTypes=["mi300x"])

    (write, _) = plan(world(pool, node_pools=[amd]))
    (later, _) = plan(world(replace(pool, pod_set=a_pod_set(1, gpu_resource="amd.com/gpu"))))

    assert write.shape.gpu_resource == "amd.com/gpu"
    assert later.shape.gpu_resource == "amd.com/gpu"


def test_waiting_replicas_keep_the_reason_that_scheduling_gave_and_placed_ones_clear_it():
    told = {"queue": {"reason": "WaitingForCapacity", "message": "no room"}}
    pool = running(1, scaling=BY_ENGINE, status=told)
    waits = replace(pool, pods=(*pool.pods, a_replica(1, gated=True, ready=False, node="")))

    assert settled(world(waits))[0].status.queue.reason == "WaitingForCapacity"
    after = settled(world(pool))[0]
    assert after.status.queue is None
    assert condition(after, "CapacityAvailable")[0] == "True"


def test_pool_that_goes_is_left_alone():
    assert plan(world(replace(a_serving_pool(), deleting=True))) == []


def test_replica_whose_gate_somebody_removed_is_flagged_once_and_one_that_the_queue_placed_is_not():
    pool = running(2, scaling=BY_ENGINE)
    placed = tuple(replace(pod, placed_at=NOW) for pod in pool.pods)
    pool = replace(pool, demand=with_gpu_resource(pool.demand, GPU))

    well, quiet = settled(world(replace(pool, pods=placed)))
    flagged, actions = settled(world(replace(pool, pods=(placed[0], pool.pods[1]))))

    assert condition(well, "CapacityAvailable")[1] == "Placed"
    assert not [note for action in quiet for note in action.notes if note.reason == "GateRemoved"]
    assert condition(flagged, "CapacityAvailable")[1] == "GateRemoved"
    (note,) = [note for action in actions for note in action.notes if note.reason == "GateRemoved"]
    assert note.message.startswith("pod chat-1 runs on n1 without having been placed there")
    assert plan(world(flagged)) == []


def test_new_leader_writes_what_is_there_once_so_that_late_writes_of_the_old_one_no_longer_fit():
    pool = running(3, scaling=BY_ENGINE)
    snapshot = world(pool, a_load([a_source(running=8, waiting=0)] * 3))
    assert not [action for action in plan(snapshot) if isinstance(action, WriteDeployment)]

    (write,) = [a for a in plan(replace(snapshot, term=2)) if isinstance(a, WriteDeployment)]

    assert (write.replicas, write.reshapes, write.victims) == (3, False, ())
    stamped = replace(pool, pod_set=replace(pool.pod_set, term=2))
    again = replace(snapshot, term=2, serving_pools={pool.key: stamped})
    assert not [action for action in plan(again) if isinstance(action, WriteDeployment)]

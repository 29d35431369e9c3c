"""The autoscaling planner on values: up at once, down late, held when nothing is known, and one writer."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    NOW,
    a_load,
    a_node,
    a_pod_set,
    a_pool,
    a_replica,
    a_serving_pool,
    a_snapshot,
    a_source,
    seconds_ago,
)
from stokehold.api.v1alpha1.inference_pool import InferencePoolStatus
from stokehold.model.actions import Action, WriteDeployment, WriteStatus
from stokehold.model.load import PoolLoad, Source
from stokehold.model.snapshot import PriorityClass, ServingPool, Snapshot
from stokehold.planning.autoscaling.measuring import concurrency
from stokehold.planning.autoscaling.plan import plan_autoscaling
from stokehold.planning.autoscaling.settings import AutoscalingSettings
from stokehold.planning.autoscaling.shaping import shape_of

SETTINGS = AutoscalingSettings()
QUERY = "sum(requests)"
BY_QUERY = {"metrics": [{"type": "Prometheus", "target": "10", "query": QUERY}], "scaleDownDelay": "5m"}
BY_ENGINE = {"metrics": [{"type": "Concurrency", "target": "8"}], "scaleDownDelay": "5m"}


def running(has: int, *, status: dict | None = None, ready: int | None = None, **spec: object) -> ServingPool:
    """A pool whose Deployment has so many replicas, as its status wants."""
    ready = has if ready is None else ready
    pods = [a_replica(index, ready=index < ready) for index in range(has)]
    told = {"desiredReplicas": has, **(status or {})}
    pool = a_serving_pool(status=told, pods=pods, pod_set=a_pod_set(has, ready_replicas=ready), **spec)
    shape = shape_of(pool, a_snapshot(), ())
    return replace(pool, pod_set=replace(pool.pod_set, template=shape.digest))


def world(pool: ServingPool, load: PoolLoad | None = None, at: datetime = NOW, **fields: object) -> Snapshot:
    loads = {pool.key: load} if load is not None else {}
    return a_snapshot([a_node()], serving_pools={pool.key: pool}, loads=loads, taken_at=at, **fields)


def plan(snapshot: Snapshot) -> list[Action]:
    return list(plan_autoscaling(snapshot, SETTINGS))


def carried_out(snapshot: Snapshot, actions: list[Action]) -> Snapshot:
    """The cluster as it is when the API server has taken all of it, and no controller has moved yet."""
    (pool,) = snapshot.serving_pools.values()
    for action in actions:
        match action:
            case WriteStatus():
                pool = replace(pool, status=InferencePoolStatus.model_validate(action.status))
            case WriteDeployment():
                had = pool.pod_set or a_pod_set(0)
                digest = action.shape.digest if action.reshapes else had.template
                written = replace(
                    had,
                    replicas=action.replicas,
                    written_replicas=action.replicas,
                    undone_at=action.undone_at,
                    template=digest,
                    template_writer="" if action.reshapes else had.template_writer,
                    replicas_writer="",
                    gpu_resource=action.shape.gpu_resource,
                )
                pool = replace(pool, pod_set=written)
                if action.reshapes:
                    pool = replace(pool, has_service=True, has_budget=True)
    return replace(snapshot, serving_pools={pool.key: pool})


def settled(snapshot: Snapshot) -> tuple[ServingPool, list[Action]]:
    """The pool after the plan was carried out, and the plan."""
    actions = plan(snapshot)
    (pool,) = carried_out(snapshot, actions).serving_pools.values()
    return pool, actions


def desired(snapshot: Snapshot) -> int:
    wanted = settled(snapshot)[0].status.desired_replicas
    assert wanted is not None
    return wanted


def condition(pool: ServingPool, kind: str) -> tuple[str, str, str]:
    found = next(c for c in pool.status.conditions if c.type == kind)
    return found.status, found.reason, found.message


def test_new_pool_gets_its_fewest_replicas_and_all_children():
    pool, actions = settled(world(a_serving_pool(replicas={"min": 2, "max": 4})))

    (write,) = [action for action in actions if isinstance(action, WriteDeployment)]
    assert (write.replicas, write.reshapes) == (2, True)
    assert pool.status.decisions[-1].reason == "Created"
    assert pool.status.selector == "stokehold.dev/inference-pool=chat"


def test_load_of_four_replicas_is_met_at_once():
    pool, actions = settled(world(running(1, scaling=BY_ENGINE), a_load([a_source(running=8, waiting=24)])))

    assert pool.status.desired_replicas == 4
    assert [a.replicas for a in actions if isinstance(a, WriteDeployment)] == [4]
    assert (pool.status.decisions[-1].reason, pool.status.decisions[-1].replicas) == ("LoadRose", 4)
    assert "32" in pool.status.decisions[-1].message


def test_replicas_that_still_load_their_model_count_as_supply():
    load = a_load([a_source(running=8, waiting=24)])

    assert desired(world(running(4, ready=1, scaling=BY_ENGINE), load)) == 4


def test_backlog_is_spread_over_the_time_to_drain():
    values = a_source(running=8, waiting=30, arrivals=4, service_seconds=5).reading.values

    assert concurrency(values, drain_seconds=30) == 20 + 5
    assert concurrency(values, drain_seconds=1) == 20 + 30


def test_without_service_times_each_waiting_request_needs_a_place():
    assert concurrency(a_source(running=3, waiting=4).reading.values, drain_seconds=30) == 7


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ({"type": "Queue", "target": "5"}, {"waiting": 21}, 5),
        ({"type": "KVCache", "target": "0.25"}, {"kv_cache": 0.8}, 4),
        ({"type": "RequestRate", "target": "2"}, {"arrivals": 5.9}, 3),
        ({"type": "Concurrency", "target": "0.5"}, {"running": 1, "waiting": 1}, 4),
    ],
)
def test_each_metric_divides_what_the_pool_has_by_its_target(metric: dict, values: dict, expected: int):
    assert desired(world(running(1, scaling={"metrics": [metric]}), a_load([a_source(**values)]))) == expected


def test_metric_that_asks_for_most_decides():
    metrics = [{"type": "Queue", "target": "5"}, {"type": "Concurrency", "target": "100"}]

    assert desired(world(running(1, scaling={"metrics": metrics}), a_load([a_source(running=1, waiting=14)]))) == 3


def test_more_than_max_is_capped_and_told():
    pool, _ = settled(world(running(1, scaling=BY_ENGINE), a_load([a_source(running=8, waiting=800)])))

    assert pool.status.desired_replicas == 8
    assert pool.status.decisions[-1].reason == "CappedByMax"


def test_less_load_first_starts_the_delay_and_then_gives_back_to_the_most_that_was_needed():
    busy = [a_source(running=4, waiting=0) for _ in range(4)]
    first, actions = settled(world(running(4, scaling=BY_ENGINE), a_load(busy)))
    assert first.status.desired_replicas == 4
    assert not any(isinstance(action, WriteDeployment) for action in actions)
    assert (first.status.scale_down.since, first.status.scale_down.replicas) == (NOW, 2)

    peak = NOW + timedelta(minutes=2)
    fresh = [replace(a_source(running=6, waiting=0)) for _ in range(4)]
    second, _ = settled(world(first, _shifted(a_load(fresh), peak), peak))
    assert (second.status.scale_down.since, second.status.scale_down.replicas) == (NOW, 3)

    later = NOW + timedelta(minutes=5)
    idle = _shifted(a_load([a_source(running=0, waiting=0) for _ in range(4)]), later)
    third, actions = settled(world(second, idle, later))

    assert third.status.desired_replicas == 3
    assert third.status.decisions[-1].reason == "LoadFell"
    assert (third.status.scale_down.since, third.status.scale_down.replicas) == (later, 1)
    assert [action.replicas for action in actions if isinstance(action, WriteDeployment)] == [3]


def test_load_that_comes_back_ends_the_delay():
    pool = running(2, scaling=BY_ENGINE, status={"scaleDown": {"since": seconds_ago(250), "replicas": 1}})

    after, _ = settled(world(pool, a_load([a_source(running=8, waiting=0)] * 2)))

    assert after.status.desired_replicas == 2
    assert after.status.scale_down is None


def test_a_new_process_watches_for_the_whole_delay_before_it_gives_back():
    pool = running(2, scaling=BY_ENGINE, status={"scaleDown": {"since": seconds_ago(9000), "replicas": 1}})
    idle = [a_source(running=0, waiting=0)] * 2

    assert desired(world(pool, a_load(idle, since=60))) == 2
    assert desired(world(pool, a_load(idle, since=301))) == 1


def test_least_busy_replicas_go_first():
    pool = running(3, scaling=BY_ENGINE, status={"scaleDown": {"since": seconds_ago(300), "replicas": 2}})
    load = a_load([a_source(running=4, waiting=0), a_source(running=1, waiting=0), a_source(running=5, waiting=0)])

    actions = plan(world(pool, load))

    (write,) = [action for action in actions if isinstance(action, WriteDeployment)]
    assert [pod.name for pod in write.victims] == ["chat-1"]


def test_metrics_that_vanish_hold_the_number_and_name_what_was_tried():
    pool = running(3, scaling=BY_ENGINE, status={"scaleDown": {"since": seconds_ago(290), "replicas": 1}})
    gone = [a_source(problem="connection refused")] * 3

    after, actions = settled(world(pool, a_load(gone)))

    status, reason, message = condition(after, "MetricsFresh")
    assert (status, reason) == ("False", "Missing")
    assert "vllm:num_requests_running, vllm:num_requests_waiting" in message
    assert "connection refused" in message
    assert "10.0.0.1:8000" in message
    assert after.status.desired_replicas == 3
    assert after.status.scale_down is None
    assert not any(isinstance(action, WriteDeployment) for action in actions)


def test_stale_metrics_are_as_good_as_none():
    pool = running(3, scaling=BY_ENGINE, status={"scaleDown": {"since": seconds_ago(600), "replicas": 1}})

    after, _ = settled(world(pool, a_load([a_source(age=46, running=0, waiting=0)] * 3)))

    assert condition(after, "MetricsFresh")[0] == "False"
    assert after.status.desired_replicas == 3


def test_metrics_that_stay_away_raise_the_pool_to_what_it_needed_lately():
    told = {
        "conditions": [{"type": "MetricsFresh", "status": "False", "lastTransitionTime": seconds_ago(301)}],
        "decisions": [
            {"time": seconds_ago(9000), "replicas": 8, "reason": "LoadRose"},
            {"time": seconds_ago(1800), "replicas": 5, "reason": "LoadRose"},
            {"time": seconds_ago(900), "replicas": 2, "reason": "LoadFell"},
        ],
    }

    after, _ = settled(world(running(2, scaling=BY_ENGINE, status=told), a_load([a_source(problem="x")] * 2)))

    assert after.status.desired_replicas == 5
    assert after.status.decisions[-1].reason == "MetricsMissing"


def test_silent_replica_counts_as_busy():
    load = a_load([a_source(running=8, waiting=8), a_source(running=2, waiting=0), a_source(problem="timeout")])

    after, _ = settled(world(running(3, scaling=BY_ENGINE), load))

    assert after.status.desired_replicas == 4  # 18 requests are 3 replicas, and the silent one
    assert condition(after, "MetricsFresh")[1] == "PartlyMissing"


def test_silent_replica_keeps_the_pool_from_shrinking():
    pool = running(3, scaling=BY_ENGINE, status={"scaleDown": {"since": seconds_ago(900), "replicas": 1}})

    after, _ = settled(world(pool, a_load([a_source(running=0, waiting=0)] * 2 + [a_source(problem="timeout")])))

    assert after.status.desired_replicas == 3


def test_unread_metric_lets_the_pool_rise_and_not_fall():
    scaling = {"metrics": [BY_ENGINE["metrics"][0], BY_QUERY["metrics"][0]], "scaleDownDelay": "0s"}
    failed = {QUERY: a_source(problem="the result is empty")}

    up = desired(world(running(2, scaling=scaling), a_load([a_source(running=30, waiting=0)] * 2, failed)))
    down, _ = settled(world(running(2, scaling=scaling), a_load([a_source(running=0, waiting=0)] * 2, failed)))

    assert up == 8
    assert down.status.desired_replicas == 2
    assert "the result is empty" in condition(down, "MetricsFresh")[2]


def test_sleeping_needs_min_zero_a_query_and_the_whole_delay_without_load():
    ripe = {"scaleDown": {"since": seconds_ago(300), "replicas": 0}}
    zero = {"min": 0, "max": 4}
    by_query = a_load([], {QUERY: a_source(total=0)})
    by_engine = a_load([a_source(running=0, waiting=0)])

    asleep, _ = settled(world(running(1, scaling=BY_QUERY, replicas=zero, status=ripe), by_query))
    assert (asleep.status.desired_replicas, asleep.status.decisions[-1].reason) == (0, "NoLoad")
    assert desired(world(running(1, scaling=BY_QUERY, replicas=zero), by_query)) == 1
    assert desired(world(running(1, scaling=BY_ENGINE, replicas=zero, status=ripe), by_engine)) == 1
    assert desired(world(running(1, scaling=BY_QUERY, status=ripe), by_query)) == 1


def test_sleeping_pool_is_woken_by_its_query_and_after_long_silence():
    asleep = running(0, scaling=BY_QUERY, replicas={"min": 0, "max": 4})
    lost = {"conditions": [{"type": "MetricsFresh", "status": "False", "lastTransitionTime": seconds_ago(301)}]}
    silent = running(0, scaling=BY_QUERY, replicas={"min": 0, "max": 4}, status=lost)

    assert desired(world(asleep, a_load([], {QUERY: a_source(total=0)}))) == 0
    assert desired(world(asleep, a_load([], {QUERY: a_source(total=11)}))) == 2
    assert desired(world(asleep, a_load([], {QUERY: a_source(problem="503")}))) == 0
    assert desired(world(silent, a_load([], {QUERY: a_source(problem="503")}))) == 1


def test_schedule_is_a_floor_in_its_own_time_zone():
    floor = {"timeZone": "Europe/Berlin", "start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "minReplicas": 6}
    pool = running(1, scaling={**BY_ENGINE, "schedule": [floor]})
    wanted = {
        moment: desired(world(pool, at=datetime.fromisoformat(moment).replace(tzinfo=UTC)))
        for moment in ("2026-01-09T06:59", "2026-01-09T07:00", "2026-01-09T16:59", "2026-01-09T17:00")
    }
    summer = desired(world(pool, at=datetime(2026, 7, 10, 6, 0, tzinfo=UTC)))
    saturday = desired(world(pool, at=datetime(2026, 1, 10, 9, 0, tzinfo=UTC)))

    assert list(wanted.values()) == [1, 6, 6, 1]
    assert (summer, saturday) == (6, 1)


def test_schedule_that_nobody_can_read_is_told_and_never_begins():
    floor = {"timeZone": "Mars/Olympus", "start": "0 8 * * *", "end": "0 25 * * *", "minReplicas": 6}

    pool, _ = settled(world(running(1, scaling={**BY_ENGINE, "schedule": [floor]})))

    assert pool.status.desired_replicas == 1
    status, reason, message = condition(pool, "Valid")
    assert (status, reason) == ("False", "NotSupportedYet")
    assert "Mars/Olympus" in message
    assert "'0 25 * * *'" in message


@pytest.mark.parametrize(("asked", "expected"), [(3, 3), (0, 2), (50, 5)])
def test_external_mode_follows_the_scale_subresource_within_bounds_and_nothing_else(asked: int, expected: int):
    floor = {"start": "0 0 * * *", "end": "1 0 1 1 *", "minReplicas": 5}
    scaling = {**BY_ENGINE, "mode": "External", "schedule": [floor]}
    pool = running(2, scaling=scaling, replicas={"min": 2, "max": 5, "desired": asked})

    after, _ = settled(world(pool, a_load([a_source(running=100, waiting=100)] * 2)))

    assert after.status.desired_replicas == expected
    assert condition(after, "MetricsFresh")[:2] == ("Unknown", "External")


def test_own_mode_does_not_look_at_the_scale_subresource():
    assert desired(world(running(1, scaling=BY_ENGINE, replicas={"min": 1, "max": 8, "desired": 7}))) == 1


def test_replicas_that_somebody_else_wrote_are_written_back():
    pool = running(3, scaling=BY_ENGINE)
    scaled = replace(pool, pod_set=replace(pool.pod_set, replicas=1))

    actions = plan(world(scaled, a_load([a_source(running=8, waiting=0)] * 3)))

    (write,) = [action for action in actions if isinstance(action, WriteDeployment)]
    assert (write.replicas, write.reshapes) == (3, False)


def test_others_are_undone_three_times_in_a_minute_and_then_left_alone_and_named():
    pool = running(3, scaling=BY_ENGINE)
    load = a_load([a_source(running=8, waiting=0)] * 3)
    theirs = {"replicas": 5, "written_replicas": 3, "replicas_writer": "gitops"}
    undone: list[int] = []
    for second in range(0, 12, 3):
        at = NOW + timedelta(seconds=second)
        fought = replace(pool, pod_set=replace(pool.pod_set, **theirs))
        snapshot = world(fought, _shifted(load, at), at)
        actions = plan(snapshot)
        undone.append(sum(isinstance(action, WriteDeployment) for action in actions))
        (pool,) = carried_out(snapshot, actions).serving_pools.values()

    status, reason, message = condition(pool, "ScalingActive")
    assert undone == [1, 1, 1, 0]
    assert (status, reason) == ("False", "OtherWriter")
    assert "gitops keeps writing spec.replicas to 5" in message
    (note,) = [note for action in actions for note in action.notes]
    assert (note.reason, note.warning) == ("OtherWriter", True)
    assert pool.status.desired_replicas == 3

    later = NOW + timedelta(minutes=31)
    tried_again = plan(world(pool, _shifted(load, later), later))
    assert sum(isinstance(action, WriteDeployment) for action in tried_again) == 1


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


def _shifted(load: PoolLoad, at: datetime) -> PoolLoad:
    """The same answers, given just before `at`."""
    replicas = {
        uid: replace(source, reading=replace(source.reading, at=at)) if source.reading else source
        for uid, source in load.replicas.items()
    }
    return replace(load, replicas=replicas)


amounts = st.floats(0, 1e6, allow_nan=False)
sources = st.one_of(
    st.builds(lambda r, w: a_source(running=r, waiting=w), amounts, amounts),
    st.builds(lambda r, w, a, s: a_source(running=r, waiting=w, arrivals=a, service_seconds=s), *[amounts] * 4),
    st.builds(lambda r: a_source(age=100, running=r, waiting=r), amounts),
    st.just(a_source(problem="connection refused")),
)
moments = st.integers(-4000, 0).map(lambda s: seconds_ago(-s))
statuses = st.fixed_dictionaries(
    {},
    optional={
        "desiredReplicas": st.integers(0, 12),
        "scaleDown": st.builds(lambda since, n: {"since": since, "replicas": n}, moments, st.integers(0, 12)),
        "conditions": st.builds(
            lambda status, at: [{"type": "MetricsFresh", "status": status, "lastTransitionTime": at}],
            st.sampled_from(["True", "False", "Unknown"]),
            moments,
        ),
        "decisions": st.lists(
            st.builds(lambda at, n: {"time": at, "replicas": n, "reason": "LoadRose"}, moments, st.integers(0, 12)),
            max_size=3,
        ),
    },
)


@st.composite
def worlds(draw: st.DrawFn, load: st.SearchStrategy[list[Source]] | None = None) -> Snapshot:
    has = draw(st.integers(0, 8))
    low = draw(st.integers(0, 4))
    metrics = draw(
        st.sampled_from([BY_ENGINE["metrics"], BY_QUERY["metrics"], BY_ENGINE["metrics"] + BY_QUERY["metrics"]])
    )
    scaling = {
        "metrics": metrics,
        "mode": draw(st.sampled_from(["Operator", "Operator", "External"])),
        "scaleDownDelay": draw(st.sampled_from(["0s", "1m", "1h"])),
        "schedule": draw(st.sampled_from([[], [{"start": "0 0 * * *", "end": "59 23 31 12 *", "minReplicas": 3}]])),
    }
    replicas = {"min": low, "max": draw(st.integers(max(3, low), 10)), "desired": draw(st.integers(0, 12))}
    pool = running(has, status=draw(statuses), ready=draw(st.integers(0, has)), scaling=scaling, replicas=replicas)
    match draw(st.sampled_from(["own", "none", "others"])):
        case "none":
            pool = replace(pool, pod_set=None)
        case "others":
            fields = {
                "written_replicas": draw(st.integers(0, 8)),
                "template_writer": draw(st.sampled_from(["", "kubectl-set"])),
                "undone_at": tuple(sorted(draw(st.lists(moments, max_size=3)))),
            }
            pool = replace(pool, pod_set=replace(pool.pod_set, **fields))
    answers = draw(load if load is not None else st.lists(sources, max_size=has))
    query = draw(st.sampled_from([{}, {QUERY: a_source(total=draw(amounts))}, {QUERY: a_source(problem="503")}]))
    return world(pool, a_load(answers, query, since=draw(st.integers(0, 4000))))


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_same_snapshot_gives_the_same_plan_and_a_plan_carried_out_gives_an_empty_one(snapshot: Snapshot):
    actions = plan(snapshot)

    assert plan(snapshot) == actions
    assert plan(carried_out(snapshot, actions)) == []


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_no_plan_leaves_the_bounds_or_gives_two_numbers(snapshot: Snapshot):
    (pool,) = snapshot.serving_pools.values()
    after, actions = settled(snapshot)
    bounds = pool.spec.replicas
    floor = 3 if pool.spec.scaling.schedule and pool.spec.scaling.mode == "Operator" else 0

    assert max(bounds.min, floor) <= after.status.desired_replicas <= bounds.max
    writes = [action for action in actions if isinstance(action, WriteDeployment)]
    assert len(writes) <= 1
    assert all(write.replicas == after.status.desired_replicas for write in writes)


@settings(max_examples=200, deadline=None)
@given(worlds(st.lists(st.sampled_from([a_source(problem="x"), a_source(age=100, running=0, waiting=0)]), max_size=8)))
def test_unknown_load_never_takes_a_replica_away(snapshot: Snapshot):
    (pool,) = snapshot.serving_pools.values()
    queried = snapshot.loads[pool.key].queries.get(QUERY)
    answered = queried is not None and queried.reading is not None
    engine_counts = any(metric.type == "Concurrency" for metric in pool.spec.scaling.metrics)
    if pool.spec.scaling.mode == "External" or (answered and not engine_counts):
        return
    had = pool.status.desired_replicas if pool.status.desired_replicas is not None else pool.pod_set
    if had is None:
        return
    before = had if isinstance(had, int) else had.replicas

    after = settled(snapshot)[0].status.desired_replicas

    assert after >= min(before, pool.spec.replicas.max)
    assert after >= 1 or before == 0


@settings(max_examples=200, deadline=None)
@given(worlds(), st.floats(0, 1e5), st.integers(0, 7))
def test_more_load_never_means_fewer_replicas(snapshot: Snapshot, more: float, which: int):
    (pool,) = snapshot.serving_pools.values()
    load = snapshot.loads[pool.key]
    busier = {
        uid: _busier(source, more) if uid == f"uid-chat-{which}" else source for uid, source in load.replicas.items()
    }
    after = replace(snapshot, loads={pool.key: replace(load, replicas=busier)})

    assert desired(after) >= desired(snapshot)


def _busier(source: Source, more: float) -> Source:
    if source.reading is None:
        return source
    values = {signal: value + more for signal, value in source.reading.values.items()}
    return replace(source, reading=replace(source.reading, values=values))


@given(amounts, amounts, amounts, st.floats(0.001, 1e4), st.floats(1, 3600))
def test_places_lie_between_what_is_in_work_and_one_for_each_request(
    running: float, waiting: float, arrivals: float, service: float, drain: float
):
    values = a_source(running=running, waiting=waiting, arrivals=arrivals, service_seconds=service).reading.values

    places = concurrency(values, drain)

    most = max(running, arrivals * service) + waiting
    assert running <= places
    assert places <= most or math.isclose(places, most)

"""How many replicas: up at once, down late, held when nothing is known."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from builders import (
    NOW,
    a_load,
    a_serving_pool,
    a_source,
    seconds_ago,
)
from kit.autoscaling import BY_ENGINE, BY_QUERY, QUERY, condition, desired, plan, running, settled, shifted, world
from stokehold.model.actions import WriteDeployment
from stokehold.model.snapshot import Autoscaler
from stokehold.planning.autoscaling.measuring import concurrency


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
    second, _ = settled(world(first, shifted(a_load(fresh), peak), peak))
    assert (second.status.scale_down.since, second.status.scale_down.replicas) == (NOW, 3)

    later = NOW + timedelta(minutes=5)
    idle = shifted(a_load([a_source(running=0, waiting=0) for _ in range(4)]), later)
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


def test_pool_that_a_horizontal_pod_autoscaler_scales_is_left_to_it_once_it_has_spoken_and_taken_back_after():
    busy = a_load([a_source(running=8, waiting=0)] * 6)
    pool = running(6, scaling=BY_ENGINE, replicas={"min": 2, "max": 10, "desired": 7})

    silent, _ = settled(world(replace(pool, autoscaler=Autoscaler("hpa", "chat", decides=False)), busy))
    follows, _ = settled(world(replace(pool, autoscaler=Autoscaler("hpa", "chat", decides=True)), busy))
    floor = replace(pool, spec=a_serving_pool(replicas={"min": 8, "max": 10, "desired": 7}, scaling=BY_ENGINE).spec)
    raised = replace(floor, autoscaler=Autoscaler("hpa", "chat", decides=False))

    assert silent.status.desired_replicas == 6
    assert "has not set a number yet" in condition(silent, "MetricsFresh")[2]
    assert follows.status.desired_replicas == 7
    assert follows.status.decisions[-1].reason == "ExternalScale"
    assert condition(follows, "MetricsFresh")[:2] == ("Unknown", "External")
    assert "HorizontalPodAutoscaler hpa scales this pool" in condition(follows, "MetricsFresh")[2]
    assert desired(world(raised, busy)) == 8
    assert condition(settled(world(pool, busy))[0], "MetricsFresh")[:2] == ("True", "Fresh")

"""What holds of any pool under any load."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    a_load,
    a_source,
    seconds_ago,
)
from kit.autoscaling import (
    BY_ENGINE,
    BY_QUERY,
    QUERY,
    carried_out,
    desired,
    plan,
    running,
    settled,
    world,
)
from stokehold.model.actions import WriteDeployment
from stokehold.model.load import Source
from stokehold.model.snapshot import Snapshot
from stokehold.planning.autoscaling.measuring import concurrency

amounts = st.one_of(st.floats(0, 1e6, allow_nan=False), st.sampled_from([1e15, 1e308]))
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

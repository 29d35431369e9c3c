"""The scheduling planner on values: whole gangs or nothing, never more than there is, always a reason."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import A100, GPU, NOW, a_job, a_node, a_pool, a_snapshot
from kit.workspaces import a_sighting
from stokehold.model.actions import AdmitJob, FinishJob, WriteStatus
from stokehold.model.pods import DELETED, Pod, Worker
from stokehold.model.snapshot import Job, PriorityClass, Snapshot
from stokehold.model.taints import Taint
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

SETTINGS = SchedulingSettings()


def plan(snapshot: Snapshot) -> list[object]:
    return list(plan_scheduling(snapshot, SETTINGS))


def a_worker(job: Job, index: int, phase: str, attempt: int = 1, size: int = 1, **fields: object) -> Pod:
    worker = Worker(job.name, attempt, index, size, 0, "h100", "h100", "on-prem", tuple(["n1"] * size))
    return Pod(
        namespace=job.namespace,
        name=f"{job.name}-{attempt}-{index}",
        uid=f"pod-{index}",
        phase=phase,
        node="n1",
        owner_uid=job.uid,
        worker=worker,
        tracked=True,
        **{"bound": True, "requests": {GPU: 1}, "created_at": NOW, "started_at": NOW, **fields},  # type: ignore[arg-type]
    )


def test_gang_that_does_not_fit_whole_is_told_why_and_gets_no_pod():
    nodes = [a_node(f"n{i}") for i in range(3)]

    actions = plan(a_snapshot(nodes, [a_job(numNodes=4, gpusPerNode=8)]))

    assert [type(action) for action in actions] == [WriteStatus]
    queue = actions[0].status["queue"]
    assert queue["reason"] == "WaitingForCapacity"
    assert queue["details"] == {"requested": 32, "available": 24, "unit": "GPUs"}


def test_small_job_goes_to_the_fullest_node_that_takes_it():
    nodes = [a_node("a"), a_node("b")]

    actions = plan(a_snapshot(nodes, [a_job()], {"b": {GPU: 7}}))

    assert actions[0].placement.nodes == ("b",)


def test_required_topology_keeps_a_gang_in_one_rack():
    rack = "topology.kubernetes.io/rack"
    nodes = [a_node(f"n{i}", labels={rack: f"r{i % 2}"}) for i in range(4)]

    actions = plan(a_snapshot(nodes, [a_job(numNodes=2, gpusPerNode=8, topology={"required": "rack"})]))

    chosen = {node.labels[rack] for node in nodes if node.name in actions[0].placement.nodes}
    assert len(chosen) == 1


def test_a_worker_that_was_deleted_and_has_ended_since_costs_no_restart():
    job = a_job(failurePolicy={"maxRestarts": 0}, status={"phase": "Running", "attempt": 1})
    ended = a_worker(job, 0, "Failed", terminating_since=NOW, finished_at=NOW, exit_code=143)

    (deleted, *_) = plan(a_snapshot([a_node("n1")], [replace(job, pods=(replace(ended, reason=DELETED),))]))
    (failed, *_) = plan(a_snapshot([a_node("n1")], [replace(job, pods=(ended,))]))

    assert deleted.status["lastFailure"]["reason"] == "PodLost"
    assert failed.proof.outcome == "Failed"


def test_higher_priority_goes_first_and_of_equals_the_older():
    classes = {"urgent": PriorityClass("urgent", 1000, is_default=False, preempts=False)}
    jobs = [
        a_job("young", age=10, gpusPerNode=8),
        a_job("old", age=100, gpusPerNode=8),
        a_job("urgent", age=5, gpusPerNode=8, priorityClassName="urgent"),
    ]

    def admitted(nodes: int) -> list[str]:
        snapshot = replace(a_snapshot([a_node(f"n{i}") for i in range(nodes)], jobs), priority_classes=classes)
        return [action.job.name for action in plan(snapshot) if isinstance(action, AdmitJob)]

    assert admitted(1) == ["urgent"]
    assert admitted(2) == ["urgent", "old"]


def test_the_first_gpu_type_with_room_for_the_whole_gang_is_taken():
    nodes = [a_node("h1"), a_node("a1", product=A100), a_node("a2", product=A100)]

    def chosen(types: list[str], size: int) -> set[str]:
        job = a_job(gpuTypes=types, numNodes=size, gpusPerNode=8)
        return set(plan(a_snapshot(nodes, [job]))[0].placement.nodes)

    assert chosen(["h100", "a100-80gb"], 1) == {"h1"}
    assert chosen(["a100-80gb", "h100"], 1) < {"a1", "a2"}
    assert chosen(["h100", "a100-80gb"], 2) == {"a1", "a2"}, "never some of each"


def test_cordoned_node_is_not_used():
    actions = plan(a_snapshot([a_node(unschedulable=True)], [a_job()]))

    assert not any(isinstance(action, AdmitJob) for action in actions)


def test_all_workers_succeeded_finishes_the_job_with_a_proof():
    job = a_job(numNodes=2)
    job = replace(job, pods=tuple(a_worker(job, i, "Succeeded", size=2, finished_at=NOW) for i in range(2)))

    actions = plan(a_snapshot([a_node()], [job]))

    assert [(type(a), a.proof.outcome) for a in actions] == [(FinishJob, "Succeeded")]


def test_end_takes_back_what_was_told_and_tells_nothing_else():
    def end(*told: str) -> dict[str, tuple[str, str]]:
        since = {"lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Admitted", "status": "True"}
        job = a_job(status={"phase": "Running", "conditions": [{"type": kind, **since} for kind in told]})
        job = replace(job, pods=(a_worker(job, 0, "Succeeded", finished_at=NOW),))
        (action,) = plan(a_snapshot([a_node()], [job]))
        return {c["type"]: (c["status"], c["reason"]) for c in action.status["conditions"]}

    held = ("QuotaReserved", "Admitted", "PodsReady")
    assert end() == {"Finished": ("True", "Succeeded")}
    assert end(*held) == {**dict.fromkeys(held, ("False", "Finished")), "Finished": ("True", "Succeeded")}


def test_workers_tolerate_the_gpu_taints_that_their_nodes_have():
    gpus, other = Taint("nvidia.com/gpu", "present", "NoSchedule"), Taint("stranger", "", "PreferNoSchedule")

    def tolerated(*taints: Taint) -> tuple[Taint, ...]:
        return plan(a_snapshot([a_node(taints=taints)], [a_job()]))[0].placement.taints

    assert tolerated(gpus, other) == (gpus,)
    assert tolerated() == ()


def test_what_was_used_is_counted_by_the_gpus_that_ran_whatever_the_spec_says_since():
    job = a_job(gpusPerNode=8)
    ran = {GPU: 2, "pods": 1}
    worker = a_worker(job, 0, "Succeeded", requests=ran, finished_at=NOW + timedelta(minutes=1))
    pool = a_pool("h100", price={"perGpuHour": "6", "currency": "USD"})

    end = plan(a_snapshot([a_node("n1")], [replace(job, pods=(worker,))], node_pools=[pool]))[0]

    assert end.status["usage"]["gpuSeconds"] == 120
    assert float(end.status["usage"]["cost"]) == 0.2


def test_refusal_by_the_kubelet_counts_no_restart():
    job = a_job()
    job = replace(job, pods=(a_worker(job, 0, "Failed", reason="UnexpectedAdmissionError"),))

    actions = plan(a_snapshot([a_node()], [job]))

    assert actions[0].status["attempt"] == 2
    assert actions[0].status["restarts"] == 0


def test_failure_beyond_the_last_restart_is_final():
    job = a_job(failurePolicy={"maxRestarts": 0})
    job = replace(job, pods=(a_worker(job, 0, "Failed", exit_code=3),))

    actions = plan(a_snapshot([a_node()], [job]))

    assert actions[0].proof.outcome == "Failed"
    assert "exit code 3" in actions[0].proof.message


def test_eviction_for_its_own_disk_is_the_jobs_failure_and_one_for_the_node_is_not():
    for disrupted, restarts in ((False, 1), (True, 0)):
        job = a_job()
        job = replace(job, pods=(a_worker(job, 0, "Failed", reason="Evicted", disrupted=disrupted),))

        (action,) = plan(a_snapshot([a_node()], [job]))

        assert action.status["restarts"] == restarts


@pytest.mark.parametrize(("steady_for", "taken_back"), [(None, True), (60, True), (59, False)])
def test_time_to_bind_does_not_run_while_the_api_server_was_away(steady_for: int | None, taken_back: bool):
    job = a_job(status={"phase": "Starting", "attempt": 1})
    unbound = a_worker(job, 0, "Pending", bound=False, started_at=None, created_at=NOW - timedelta(minutes=5))
    snapshot = a_snapshot([a_node("n1"), a_node("n2")], [replace(job, pods=(unbound,))])
    steady_since = None if steady_for is None else NOW - timedelta(seconds=steady_for)

    told = [action.status for action in plan(replace(snapshot, steady_since=steady_since))]

    assert any(status.get("evictions") for status in told) is taken_back


def test_gang_that_could_not_be_bound_goes_elsewhere_if_it_can():
    evictions = [{"time": "2026-01-01T11:59:00Z", "reason": "BindTimeout", "node": "a"}]
    job = a_job(gpusPerNode=8, status={"evictions": evictions, "attempt": 2})

    def chosen(*nodes: str) -> tuple[str, ...]:
        return plan(a_snapshot([a_node(name) for name in nodes], [job]))[0].placement.nodes

    assert chosen("a", "b") == ("b",)
    assert chosen("a") == ("a",)


@pytest.mark.parametrize(
    ("phase", "told"), [("Running", "Running"), ("Pending", "Starting"), ("Succeeded", "Succeeded")]
)
def test_job_that_has_started_says_no_more_that_it_was_evicted_or_that_no_nodes_are_bought(phase: str, told: str):
    waited = {"Evicted": "True", "Requeued": "True", "CapacityProvisioned": "False"}
    conditions = [{"type": kind, "status": status, "reason": "Before"} for kind, status in waited.items()]
    job = a_job(status={"phase": "Restarting", "attempt": 2, "conditions": conditions})
    born = {"created_at": NOW - timedelta(minutes=1), "started_at": None if phase == "Pending" else NOW}
    job = replace(job, pods=(a_worker(job, 0, phase, attempt=2, **born),))

    (action,) = plan(a_snapshot([a_node()], [job]))

    assert action.status["phase"] == told
    now = {one["type"]: (one["status"], one["reason"]) for one in action.status["conditions"]}
    assert [now[kind] for kind in waited] == [("False", "Admitted"), ("False", "Admitted"), ("False", "Covered")]


def test_running_is_told_soon_of_one_job_and_later_of_a_swarm():
    """Each write costs the API server as much as a pod, and a job of seconds is over before anybody reads it."""

    def told(swarm: int, seconds: float, phase: str = "") -> int:
        made = [a_job(f"j{i}", status={"phase": phase} if phase else {}) for i in range(swarm)]
        began = NOW - timedelta(seconds=seconds)
        running = [replace(job, pods=(a_worker(job, 0, "Running", started_at=began),)) for job in made]
        return sum(action.status["phase"] == "Running" for action in plan(a_snapshot([a_node()], running)))

    assert told(swarm=1, seconds=2) == 1
    assert told(swarm=1, seconds=1) == 0
    assert told(swarm=60, seconds=5) == 0
    assert told(swarm=60, seconds=6) == 60
    assert told(swarm=60, seconds=0, phase="Pending") == 60, "who was told to wait is told at once"
    assert [told(swarm=60, seconds=seconds, phase="Starting") for seconds in (1, 2)] == [0, 60]


jobs = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9), st.integers(1, 600)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 10)), min_size=1, max_size=8), jobs)
def test_no_plan_overbooks_splits_a_gang_or_depends_on_order(nodes: list, jobs: list):
    named = [a_node(f"n{i}", gpus=has) for i, (has, _) in enumerate(nodes)]
    used = {f"n{i}": {GPU: taken} for i, (_, taken) in enumerate(nodes)}
    made = [a_job(f"j{i}", numNodes=n, gpusPerNode=g, age=age) for i, (n, g, age) in enumerate(jobs)]

    actions = plan(a_snapshot(named, made, used))

    admitted = [action for action in actions if isinstance(action, AdmitJob)]
    booked: Counter[str] = Counter()
    for action in admitted:
        assert len(action.placement.nodes) == action.job.spec.num_nodes == len(action.missing)
        for node in action.placement.nodes:
            booked[node] += action.job.spec.gpus_per_node
    for i, (has, taken) in enumerate(nodes):
        assert booked[f"n{i}"] <= max(0, has - taken)
    shuffled = plan(a_snapshot(named[::-1], made[::-1], used))
    assert _placements(shuffled) == _placements(actions)


def _placements(actions: list[object]) -> set[tuple[str, tuple[str, ...]]]:
    return {(a.job.name, a.placement.nodes) for a in actions if isinstance(a, AdmitJob)}


@pytest.mark.parametrize(
    ("owners", "others_use", "chosen"),
    [((), 0, "n2"), ((), 8, "n1"), (({"pod": "ada-0", "namespace": "team-a", "container": "main"},), 0, "n1")],
    ids=["elsewhere", "nowhere else", "an owned GPU is given to nobody"],
)
def test_nodes_on_which_a_stranger_uses_a_free_gpu_come_last(owners: tuple, others_use: int, chosen: str):
    device = {"uuid": "GPU-5", "owners": owners, "foreignUsers": [{"namespace": "team-b", "pod": "miner"}]}
    used = {"n1": {GPU: 1}, "n2": {GPU: others_use}}  # n1 is the tighter fit

    snapshot = a_snapshot(
        [a_node("n1"), a_node("n2")], [a_job()], used, sightings={"n1": a_sighting(device, heard=NOW, node="n1")}
    )

    assert [a.placement.nodes for a in plan_scheduling(snapshot, SETTINGS) if isinstance(a, AdmitJob)] == [(chosen,)]

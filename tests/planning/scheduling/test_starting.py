"""A gang that cannot start says why, in the words of its nodes, and says it once."""

from dataclasses import replace

import msgspec
import pytest

from builders import NOW, a_gang, a_job, a_node, a_snapshot, a_worker
from stokehold.api.v1alpha1.training_job import TrainingJobStatus
from stokehold.cluster import wire
from stokehold.cluster.reading.pods import read_pod
from stokehold.model.actions import WriteStatus
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

PAIR = a_job("pair", numNodes=2, status={"phase": "Starting", "attempt": 1})
MISSING = {"reason": "CreateContainerConfigError", "message": 'configmap "nope" not found'}


def trouble(waiting: dict[str, str], of: str = "containerStatuses") -> str:
    """What the model knows of a pod with a container that waits like this."""
    container = {"name": "main", "image": "registry.local/train:1", "state": {"waiting": waiting}}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": []}, "status": {of: [container]}}
    return read_pod(msgspec.convert(pod, wire.Pod)).trouble


def statuses(job: Job, *pods: Pod) -> list[TrainingJobStatus]:
    snapshot = a_snapshot(nodes=[a_node("n1"), a_node("n2")], jobs=[replace(job, pods=pods)])
    plan = plan_scheduling(snapshot, SchedulingSettings())
    return [TrainingJobStatus.model_validate(action.status) for action in plan if isinstance(action, WriteStatus)]


@pytest.mark.parametrize("of", ["containerStatuses", "initContainerStatuses"])
def test_what_somebody_must_mend_is_known_and_what_takes_its_time_is_not(of: str):
    assert trouble(MISSING, of) == 'CreateContainerConfigError: configmap "nope" not found'
    assert trouble({"reason": "ContainerCreating"}, of) == trouble({"reason": "PodInitializing"}, of) == ""


def test_words_for_an_image_are_the_same_with_each_try():
    tries = [{"reason": "ErrImagePull", "message": "not found"}, {"reason": "ImagePullBackOff", "message": "Back-off"}]

    assert {trouble(one) for one in tries} == {"its image registry.local/train:1 cannot be pulled"}


def test_gang_that_cannot_start_says_so_once():
    lead, other = a_gang(PAIR)
    stuck = replace(a_worker(PAIR, 1), phase="Pending", started_at=None, trouble=trouble(MISSING))

    (told,) = statuses(PAIR, lead, stuck)

    (ready,) = (condition for condition in told.conditions if condition.type == "PodsReady")
    assert ready.message == f"1 of 2 workers run; {other.name}: {stuck.trouble}"
    later = replace(stuck, trouble=f"{stuck.trouble}, for the second time")
    assert statuses(replace(PAIR, status=told), lead, later) == []


@pytest.mark.parametrize(("others", "told"), [(0, 1), (30, 0)])
def test_gang_that_starts_or_runs_among_many_others_is_told_of_later(others: int, told: int):
    """At once 30 gangs of two keep the API server busy for six seconds; one alone is told of in the usual time."""
    settings = SchedulingSettings()
    for started_ago, phase in ((settings.first_running_after, "Running"), (settings.slow_start, "Pending")):
        at = NOW - started_ago
        jobs = [a_job(f"pair-{index}", numNodes=2) for index in range(others + 1)]
        gangs = [
            replace(job, pods=tuple(replace(pod, phase=phase, created_at=at, started_at=at) for pod in a_gang(job)))
            for job in jobs
        ]
        plan = plan_scheduling(a_snapshot(nodes=[a_node("n1"), a_node("n2")], jobs=gangs), settings)
        written = [action for action in plan if isinstance(action, WriteStatus)]
        assert len(written) == told, phase

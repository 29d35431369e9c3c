"""Workers whose labels or annotations somebody has changed: they go, and nothing of ours keeps them from going."""

from typing import Any

import msgspec
import pytest

from builders import NOW, a_job, a_node
from stokehold.api.v1alpha1.training_job import TrainingJobStatus
from stokehold.cluster import manifests, wire
from stokehold.cluster.reading.pods import read_pod
from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import AdmitJob, DeletePod, Placement, ReleasePod, WriteStatus
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

RUNNING = TrainingJobStatus.model_validate({"phase": "Running", "attempt": 1})
PAIR = a_job("pair", numNodes=2, status=RUNNING.model_dump(by_alias=True, exclude_none=True))


def a_pod(index: int, change: dict[str, Any] | None = None) -> Pod:
    """A running worker of the pair as the API server shows it, with a part of its metadata replaced."""
    placement = Placement("h100", "h100", "on-prem", "nvidia.com/gpu", ("n1", "n2"), ())
    manifest = manifests.worker(AdmitJob(PAIR, 1, 0, placement, (0, 1), ""), index)
    manifest["metadata"] |= {"uid": f"uid-{index}", "creationTimestamp": NOW.isoformat(), **(change or {})}
    manifest["spec"]["nodeName"] = f"n{index + 1}"
    manifest["status"] = {"phase": "Running", "startTime": NOW.isoformat()}
    return read_pod(msgspec.convert(manifest, wire.Pod))


def plan(*pods: Pod, job: Job | None = PAIR) -> list[object]:
    cluster = Cluster(lambda: None, lambda: NOW)
    for name in ("n1", "n2"):
        cluster.nodes.on_upsert(("", name), None, a_node(name))
    if job is not None:
        cluster.jobs.on_upsert(job.key, None, job)
    for pod in pods:
        cluster.pods.on_upsert(pod.key, None, pod)
    return list(plan_scheduling(cluster.snapshot(), SchedulingSettings()))


@pytest.mark.parametrize(
    "change",
    [{"labels": {}}, {"annotations": {}}, {"labels": {"stokehold.dev/job": "pair"}}, {"annotations": {"a": "{"}}],
)
def test_worker_that_cannot_be_told_from_others_any_more_is_deleted_and_the_gang_starts_anew(change: dict[str, Any]):
    changed = a_pod(1, change)

    actions = plan(a_pod(0), changed)

    assert {type(action) for action in actions if getattr(action, "pod", None) == changed} == {DeletePod, ReleasePod}
    (closed,) = (action for action in actions if isinstance(action, WriteStatus))
    assert closed.status["lastFailure"]["reason"] == "PodLost"
    assert closed.status["restarts"] == 0


@pytest.mark.parametrize("owned", [{}, {"ownerReferences": []}], ids=["owned", "nobody's"])
@pytest.mark.parametrize("change", [{"labels": {}}, {"annotations": {}}, {"annotations": {"a": "{"}}])
def test_nothing_of_ours_stays_on_it_when_its_job_is_gone(change: dict[str, Any], owned: dict[str, Any]):
    leaving = a_pod(1, {**change, **owned, "deletionTimestamp": NOW.isoformat()})

    released = [action.pod.key for action in plan(leaving, job=None) if isinstance(action, ReleasePod)]
    assert released == [leaving.key]


def test_pod_of_somebody_else_is_left_alone():
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": True}
    stranger = a_pod(1, {"labels": {"app": "web"}, "annotations": {}, "finalizers": [], "ownerReferences": [owner]})

    assert not [action for action in plan(stranger, job=None) if getattr(action, "pod", None) == stranger]

"""Workers whose TrainingJob is gone: let go and deleted by us, never those of a job that may exist."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from builders import NOW, a_job, a_snapshot, a_worker, seconds_ago
from stokehold.cluster.own_kinds import Unreadable
from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import Action, DeleteOrphan, ReleasePod
from stokehold.model.pods import Pod
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

GONE = a_worker(a_job("gone"), orphaned_since=seconds_ago(3))


def plan(pod: Pod, **fields: object) -> list[Action]:
    return list(plan_scheduling(a_snapshot([], [], orphans=(pod,), **fields), SchedulingSettings()))


def test_worker_whose_job_is_gone_is_deleted_and_then_let_go():
    assert plan(GONE) == [DeleteOrphan(GONE)]

    going = replace(GONE, terminating_since=NOW)
    assert plan(going) == [ReleasePod(going, "its TrainingJob is gone")]
    assert plan(replace(going, tracked=False)) == []


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
def test_orphan_goes_whatever_its_phase(phase: str):
    orphan = replace(GONE, phase=phase, tracked=False)

    assert plan(orphan) == [DeleteOrphan(orphan)]


def test_orphan_is_left_to_the_garbage_collector_first():
    assert plan(replace(GONE, orphaned_since=seconds_ago(2.9))) == []
    assert plan(GONE, steady_since=seconds_ago(2)) == []  # it could do nothing while the API server was away


def test_orphan_whose_job_may_exist_keeps_everything():
    assert plan(replace(GONE, orphaned_since=None)) == []


def test_what_only_looks_like_a_worker_is_let_go_and_never_deleted():
    stray = replace(GONE, owner_uid="", orphaned_since=None)

    assert plan(stray) == [ReleasePod(stray, "its TrainingJob is gone")]
    assert plan(replace(stray, tracked=False)) == []


class Watched:
    """A cluster as the watches show it, with one worker of a job."""

    def __init__(self) -> None:
        self.now = NOW
        self.cluster = Cluster(lambda: None, lambda: self.now)
        self.job = a_job("j1")
        self.pod = a_worker(self.job)
        self.cluster.jobs.on_upsert(self.job.key, None, self.job)
        self.cluster.pods.on_upsert(self.pod.key, None, self.pod)

    def orphaned_since(self) -> list[datetime | None]:
        self.now += timedelta(seconds=1)
        return [pod.orphaned_since for pod in self.cluster.snapshot().orphans]


def test_worker_is_an_orphan_since_it_was_first_seen_without_its_job():
    watched = Watched()
    assert watched.orphaned_since() == []

    watched.cluster.jobs.on_delete(watched.job.key, watched.job)
    other = replace(watched.job, uid="another-of-this-name")
    watched.cluster.jobs.on_upsert(other.key, None, other)

    assert watched.orphaned_since() == [NOW + timedelta(seconds=2)]
    assert watched.orphaned_since() == [NOW + timedelta(seconds=2)]


def test_while_jobs_cannot_be_seen_nobody_is_an_orphan_for_sure_and_the_time_starts_anew():
    watched = Watched()
    watched.cluster.jobs.on_delete(watched.job.key, watched.job)
    assert watched.orphaned_since() == [NOW + timedelta(seconds=1)]

    watched.cluster.orphans.sees_jobs = lambda: False
    assert watched.orphaned_since() == [None]

    watched.cluster.orphans.sees_jobs = lambda: True
    assert watched.orphaned_since() == [NOW + timedelta(seconds=3)]


def test_job_that_nobody_can_read_keeps_its_workers():
    watched = Watched()
    job = watched.job
    watched.cluster.jobs.on_upsert(job.key, job, Unreadable(job.namespace, job.name, job.uid, "2", "why"))
    assert watched.orphaned_since() == []

    watched.cluster.jobs.on_delete(job.key, job)
    watched.cluster.orphans.unread_jobs = lambda: (job.uid,)
    assert watched.orphaned_since() == []

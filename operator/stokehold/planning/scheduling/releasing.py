"""Pods that nobody needs any more: deleted where they still run, and let go once their outcome stands. Pure."""

from collections.abc import Iterator

from stokehold.model.actions import Action, DeleteOrphan, DeletePod, ReleasePod
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Snapshot
from stokehold.planning.scheduling.attempts import is_over
from stokehold.planning.scheduling.closing import record_both
from stokehold.planning.scheduling.lifecycle import Standing
from stokehold.planning.scheduling.settings import SchedulingSettings
from stokehold.planning.scheduling.single_pods import unbound_replicas, useless_corpses


def release(snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Of jobs that are gone or over, and replicas that failed or that nobody could bind."""
    yield from _let_orphans_go(snapshot, settings)
    for pod in useless_corpses(snapshot, settings):
        yield DeletePod(pod, "newer replicas of its pool have failed too")
    for pod in unbound_replicas(snapshot, settings):
        yield DeletePod(pod, "kube-scheduler could not bind it to its node")
    yield from _tidy_finished(snapshot)


def let_history_go(standings: list[Standing]) -> Iterator[Action]:
    """Of attempts that were closed."""
    for standing in standings:
        yield from _let_go(standing.attempt.history, "its attempt is over")


def _let_orphans_go(snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Nobody will ask for their outcome any more. What never had a TrainingJob is not ours to delete."""
    for pod in snapshot.orphans:
        if pod.tracked and (pod.terminating_since is not None or not pod.owner_uid):
            yield ReleasePod(pod, "its TrainingJob is gone")
        since = pod.orphaned_since
        if pod.terminating_since is None and since is not None and snapshot.time_given(since) >= settings.orphan_grace:
            yield DeleteOrphan(pod)


def _tidy_finished(snapshot: Snapshot) -> Iterator[Action]:
    """Pods of jobs that are over or being deleted: record what is missing, then let them go."""
    for job in snapshot.jobs.values():
        if snapshot.is_going(job):
            yield from _let_go(job.pods, "its TrainingJob is being deleted")
        elif is_over(job):
            yield from record_both(job, snapshot)
            if job.proof is not None and job.status.phase == job.proof.outcome:
                yield from _let_go(job.pods, "its TrainingJob has finished")


def _let_go(pods: tuple[Pod, ...], why: str) -> Iterator[Action]:
    """Workers that still run are deleted; those that ended stay for their logs until the job goes."""
    for pod in pods:
        if pod.is_active:
            yield DeletePod(pod, why)
        if pod.tracked:
            yield ReleasePod(pod, why)

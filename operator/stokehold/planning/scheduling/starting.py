"""Who is told to be starting or running: as late as can be, for each telling is a write. Pure."""

from collections.abc import Iterator
from datetime import timedelta

from stokehold.api.v1alpha1 import training_job as api
from stokehold.model.actions import Action, Note, WriteStatus
from stokehold.model.reasons import Progress
from stokehold.model.snapshot import Job, Snapshot
from stokehold.planning.scheduling import reporting
from stokehold.planning.scheduling.attempts import Attempt
from stokehold.planning.scheduling.lifecycle import Standing
from stokehold.planning.scheduling.settings import SchedulingSettings


def report_running(going: list[Standing], snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Running is told when all workers run; a gang that takes long to start is told to be starting."""
    now = snapshot.taken_at
    whole = [(s.job, s.attempt) for s in going if s.attempt.pods and not s.attempt.missing]
    running = [(job, attempt) for job, attempt in whole if _all_run(attempt)]
    starting = [(job, attempt) for job, attempt in whole if not _all_run(attempt)]
    early, late = _Swarm(running), _Swarm(starting)
    for job, attempt in running:
        told = job.status.phase == api.RUNNING and job.status.observed_generation == job.generation
        # A job of seconds that nobody was told of yet goes straight to its end: one write less of ten.
        until = {"": settings.running_interval(early.beside(attempt)), api.STARTING: settings.first_running_after}
        if not told and _runs_for(attempt, snapshot) >= until.get(job.status.phase, timedelta()):
            yield WriteStatus(job, reporting.started(job, attempt, now), _admitted_note(job, attempt))
    for job, attempt in starting:
        waited = settings.start_interval(late.beside(attempt) if not job.status.phase else len(starting))
        if _starts_slowly(attempt, snapshot, waited) and reporting.is_news_of_start(job, attempt):
            yield WriteStatus(job, reporting.starting(job, attempt, now))


class _Swarm:
    """Jobs that nobody was told of yet; their pods are what the cluster is busy with."""

    def __init__(self, jobs: list[tuple[Job, Attempt]]) -> None:
        self._pods = sum(len(attempt.pods) for job, attempt in jobs if not job.status.phase)

    def beside(self, attempt: Attempt) -> int:
        """How many pods beside those of one of them: a gang alone is told of soon, however large."""
        return self._pods - len(attempt.pods)


def _admitted_note(job: Job, attempt: Attempt) -> tuple[Note, ...]:
    """An Event for those who were told to wait; whoever starts at once sees it in the phase."""
    if job.status.queue is None or attempt.lead is None:
        return ()
    nodes = ", ".join(sorted({pod.node for pod in attempt.pods}))
    return (Note(Progress.ADMITTED, f"attempt {attempt.number} runs on {nodes}", f"admitted {attempt.number}"),)


def _all_run(attempt: Attempt) -> bool:
    return all(pod.phase in ("Running", "Succeeded") for pod in attempt.pods)


def _runs_for(attempt: Attempt, snapshot: Snapshot) -> timedelta:
    """Since its last worker started; a worker that ended before it was seen has told no start."""
    started = attempt.started_at
    return snapshot.taken_at - started if started is not None else timedelta.max


def _starts_slowly(attempt: Attempt, snapshot: Snapshot, slow: timedelta) -> bool:
    born = [pod.created_at for pod in attempt.pods if pod.created_at is not None]
    return bool(born) and snapshot.taken_at - min(born) >= slow

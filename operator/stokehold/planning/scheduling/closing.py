"""What is written when an attempt has ended: the end of its job, or that the gang goes back into the line. Pure."""

from collections.abc import Iterator

from stokehold.api.v1alpha1 import training_job as api
from stokehold.model.actions import Action, FinishJob, Note, WriteStatus
from stokehold.model.reasons import Eviction, Finish
from stokehold.model.snapshot import Job, Snapshot
from stokehold.planning.placement.prices import Tariff, tariff_in
from stokehold.planning.scheduling import reporting
from stokehold.planning.scheduling.attempts import Attempt, current_attempt
from stokehold.planning.scheduling.backoff import requeue_time
from stokehold.planning.scheduling.lifecycle import Standing
from stokehold.planning.scheduling.settings import SchedulingSettings


def close_attempts(standings: list[Standing], snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Finished, failed, lost, suspended, too long: for good, or until the next attempt."""
    now = snapshot.taken_at
    for job, attempt, end in ((s.job, s.attempt, s.end) for s in standings):
        if end is None:
            continue
        tariff = _tariff(attempt, snapshot)
        if isinstance(end.reason, Finish):
            proof = reporting.proof_of(attempt, end, now)
            failed = proof.outcome == api.FAILED
            notes = (Note(end.reason, end.message, f"finished {attempt.number}", warning=True),) if failed else ()
            yield FinishJob(job, proof, reporting.finished(job, attempt, proof, tariff, now), notes)
        else:
            again = requeue_time(job, attempt, end, now, settings)
            warning = end.reason is not Eviction.SUSPENDED
            note = Note(end.reason, end.message, f"closed {attempt.number}", warning)
            status = reporting.requeued(job, attempt, end, again, tariff, now)
            yield WriteStatus(job, status, (note,), closes_attempt=end.reason)


def record_both(job: Job, snapshot: Snapshot) -> Iterator[Action]:
    """The end stands on the object and in its status; whichever is missing is written again from the other."""
    attempt = current_attempt(job)
    if job.proof is None:
        yield FinishJob(job, reporting.proof_from_status(job, snapshot.taken_at), None)
    elif job.status.phase != job.proof.outcome:
        status = reporting.finished(job, attempt, job.proof, _tariff(attempt, snapshot), snapshot.taken_at)
        yield FinishJob(job, job.proof, status)


def _tariff(attempt: Attempt, snapshot: Snapshot) -> Tariff:
    """What the attempt's GPUs cost, by the pool that its pods name."""
    worker = attempt.pods[0].worker if attempt.pods else None
    return tariff_in(snapshot, worker.pool) if worker is not None else Tariff()

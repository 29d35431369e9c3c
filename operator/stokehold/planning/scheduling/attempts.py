"""One attempt of a gang: which of the job's pods belong to it, and what its number is.

An attempt is closed by writing a higher number into `status.attempt`. Pods with a lower number are history then:
whatever happens to them, it has been accounted for. So an operator that dies between two steps cannot count one
failure twice, and cannot start an attempt that nobody asked for.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job

OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The current attempt of a job: `pods` by index, `history` all pods of attempts before it."""

    number: int
    restarts: int
    pods: tuple[Pod, ...]
    history: tuple[Pod, ...]

    @property
    def lead(self) -> Pod | None:
        """The pod with index 0; it was created first and knows the whole placement."""
        return next((pod for pod in self.pods if pod.worker and pod.worker.index == 0), None)

    @property
    def size(self) -> int:
        """How many workers the attempt was admitted with; 0 before it was."""
        return max((pod.worker.gang_size for pod in self.pods if pod.worker), default=0)

    @property
    def missing(self) -> tuple[int, ...]:
        """The indices without a pod; none before the attempt has been admitted."""
        if not self.pods:
            return ()
        present = {pod.worker.index for pod in self.pods if pod.worker}
        return tuple(index for index in range(self.size) if index not in present)

    @property
    def started_at(self) -> datetime | None:
        """When its last worker started; None while some have not."""
        starts = [pod.started_at for pod in self.pods]
        known = [start for start in starts if start is not None]
        return max(known) if known and len(known) == len(starts) == self.size else None

    def run_seconds(self, until: datetime) -> float:
        """How long the whole gang has run, from its last start to its first end."""
        start = self.started_at
        if start is None:
            return 0.0
        ends = [pod.finished_at for pod in self.pods if pod.finished_at is not None]
        return max(0.0, (min([until, *ends]) - start).total_seconds())

    def gpu_seconds(self, until: datetime, gpu_resource: str) -> float:
        """For how long, summed over the GPUs of its workers, one was held: from each start to its end."""
        return sum(
            max(0.0, ((pod.finished_at or until) - pod.started_at).total_seconds()) * pod.requests.get(gpu_resource, 0)
            for pod in self.pods
            if pod.started_at is not None
        )


def is_over(job: Job) -> bool:
    """Whether the job has finished, by its proof or, should that be lost, by its status."""
    return job.proof is not None or job.status.phase in OVER


def current_attempt(job: Job, corpses: Collection[Pod] = ()) -> Attempt:
    """The attempt that the job is in or would start next.

    `corpses` are pods of a deleted job of the same name that have not gone yet; their names are taken.
    """
    recorded = job.status.attempt or 1
    if not job.pods and not corpses:
        return Attempt(recorded, job.status.restarts or 0, (), ())
    seen = max((pod.worker.attempt for pod in job.pods if pod.worker), default=0)
    number = max(recorded, seen)
    pods = [pod for pod in job.pods if pod.worker and pod.worker.attempt == number]
    if not pods:
        taken = max((corpse.worker.attempt for corpse in corpses if corpse.worker), default=0)
        number = max(number, taken + 1)
    restarts = max([job.status.restarts or 0, *(pod.worker.restarts for pod in pods if pod.worker)])
    return Attempt(
        number=number,
        restarts=restarts,
        pods=tuple(sorted(pods, key=lambda pod: pod.worker.index if pod.worker else 0)),
        history=tuple(pod for pod in job.pods if pod not in pods),
    )

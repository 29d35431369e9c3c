"""Workers without a TrainingJob: which ones, and since when nobody doubts it. What becomes of them is for a planner."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from stokehold.cluster.indexes import Clock, Jobs, Pods
from stokehold.model.pods import Pod


class Orphans:
    """Remembers for how long workers have been seen without their job."""

    def __init__(self, pods: Pods, jobs: Jobs, clock: Clock) -> None:
        self.unread_jobs: Callable[[], Iterable[str]] = tuple
        """The uids of jobs that the watch could not even hand to their index: they exist."""
        self.sees_jobs: Callable[[], bool] = lambda: True
        """Whether a job that is missing does not exist, as far as the watch of jobs can know."""
        self._pods = pods
        self._jobs = jobs
        self._clock = clock
        self._since: dict[str, datetime] = {}
        """By uid of the job that is gone."""

    def now(self) -> tuple[Pod, ...]:
        """All of them. A worker whose job cannot be read has a job all the same, and is left alone."""
        unread = {bad.uid for bad in self._jobs.unreadable.values()} | {*self.unread_jobs()}
        alive = {job.uid for job in self._jobs.values.values()} | unread
        gone = {uid: pods for uid, pods in self._pods.by_owner.items() if uid not in alive}
        now = self._clock()
        self._since = {uid: self._since.get(uid, now) for uid in gone} if self.sees_jobs() else {}
        left = (replace(pod, orphaned_since=self._since.get(uid)) for uid in gone for pod in gone[uid].values())
        return (*self._pods.strays.values(), *left)

"""The loop around a planner: wait until woken, freeze the cluster, plan, carry out. It runs at its own pace."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from stokehold.cluster.leases import NotLeaderError
from stokehold.model.actions import Action
from stokehold.model.snapshot import Snapshot
from stokehold.observability import logs, metrics

log = logs.get("cycle")

PAUSE_AFTER_FAILURE_SECONDS = 2.0
DUE_MARGIN_SECONDS = 0.002
"""Clocks differ by a little: a cycle that starts too early would have to be made again."""
FOLLOW_UPS = 4
"""Short sleeps after the last wake-up, before the long ones."""
THREAD_FROM_SECONDS = 0.05
"""Plans that took longer than this the last time move to a thread, so that watches and probes go on meanwhile."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon after a wake-up a cycle starts, and how long it may sleep without one."""

    debounce_seconds: float
    resync_seconds: float
    follow_up_seconds: float = 1.0
    """The longest sleep while things happen: what has just changed has deadlines of seconds."""


class Cycle:
    """One planner's loop."""

    def __init__(
        self,
        name: str,
        read: Callable[[], Snapshot],
        plan: Callable[[Snapshot], Iterable[Action]],
        carry_out: Callable[[list[Action]], Awaitable[Counter[str]]],
        pace: Pace,
        due: Callable[[Snapshot], datetime | None] = lambda _: None,
    ) -> None:
        """`due` tells when the plan of a snapshot would be another although nothing happens: a cycle starts then."""
        self.name = name
        self._due = due
        self._read = read
        self._plan = plan
        self._carry_out = carry_out
        self._pace = pace
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._planned_in = 0.0
        self._due_at = math.inf
        self._follow_ups = 0
        metrics.CYCLE_FAILURES.labels(name)  # a series that starts at 1 hides its first increase

    def wake(self, *, at_once: bool = False) -> None:
        """Something has changed; cheap, and harmless to call often. `at_once` waits for nothing more to change."""
        self._woken.set()
        if at_once:
            self._hurried.set()

    async def run(self) -> None:
        """Until cancelled, or until this process may not lead any more (NotLeaderError)."""
        while True:
            await self._wait()
            try:
                acted = await self.run_once()
            except NotLeaderError:
                raise
            except Exception:
                metrics.CYCLE_FAILURES.labels(self.name).inc()
                log.exception("cycle failed", planner=self.name)
                await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)
                continue
            if acted:
                self.wake()  # what was done may have made room for more

    async def run_once(self) -> int:
        """One cycle; returns how many actions were done. Those that were not are planned again when it wakes."""
        with _timed(self.name, "snapshot"):
            snapshot = self._read()
        began = time.monotonic()
        with _timed(self.name, "plan"):
            actions = await self._decide(snapshot)
        self._planned_in = time.monotonic() - began
        due = self._due(snapshot)
        self._due_at = began + (due - snapshot.taken_at).total_seconds() if due is not None else math.inf
        if not actions:
            return 0
        with _timed(self.name, "apply"):
            outcomes = await self._carry_out(actions)
        return outcomes["done"]

    async def _decide(self, snapshot: Snapshot) -> list[Action]:
        if self._planned_in < THREAD_FROM_SECONDS:
            return list(self._plan(snapshot))
        return await asyncio.to_thread(lambda: list(self._plan(snapshot)))

    async def _wait(self) -> None:
        sleep = self._pace.follow_up_seconds if self._follow_ups else self._pace.resync_seconds
        sleep = min(sleep, max(0.0, self._due_at - time.monotonic()) + DUE_MARGIN_SECONDS)
        try:
            async with asyncio.timeout(sleep):
                await self._woken.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.debounce_seconds):
                    await self._hurried.wait()
            self._follow_ups = FOLLOW_UPS
        except TimeoutError:
            self._follow_ups = max(0, self._follow_ups - 1)
        self._woken.clear()
        self._hurried.clear()


class _timed:  # noqa: N801 - a context manager, read as a statement
    """Counts the time of one part of a cycle."""

    def __init__(self, planner: str, part: str) -> None:
        self._metric = metrics.CYCLE_SECONDS.labels(planner, part)
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._metric.observe(time.monotonic() - self._began)

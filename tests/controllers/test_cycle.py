"""When a planner's loop starts a cycle."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from builders import NOW, a_snapshot
from stokehold.controllers.cycle import Cycle, Pace
from stokehold.model.snapshot import Snapshot


async def _plans_within(seconds: float, due: timedelta, *, debounce: float = 0.0, at_once: bool = False) -> int:
    """How often it plans, woken once, when the next plan is due so long after the first."""
    taken = 0

    def read() -> Snapshot:
        nonlocal taken
        taken += 1
        return replace(a_snapshot(), taken_at=NOW if taken == 1 else NOW + due)

    pace = Pace(debounce_seconds=debounce, resync_seconds=60.0, follow_up_seconds=60.0)
    cycle = Cycle("test", read, lambda _: (), _nothing, pace, lambda seen: NOW + due if seen.taken_at == NOW else None)
    cycle.wake(at_once=at_once)
    try:
        async with asyncio.timeout(seconds):
            await cycle.run()
    except TimeoutError:
        return taken
    raise AssertionError("it ends by itself")


async def _nothing(_: object) -> None:
    """Nothing is ever planned here."""


async def test_cycle_starts_when_a_deadline_passes_although_nothing_happens():
    assert await _plans_within(2.0, timedelta(seconds=0.1)) == 2


async def test_cycle_waits_for_a_deadline_that_is_far():
    assert await _plans_within(0.3, timedelta(seconds=30)) == 1


async def test_cycle_that_is_in_a_hurry_waits_for_no_more_changes():
    far = timedelta(seconds=30)

    assert await _plans_within(0.3, far, debounce=30, at_once=True) == 1
    assert await _plans_within(0.3, far, debounce=30) == 0

"""Writes that the API server refuses are tried again, each time later: a policy or a quota does not change at once.

Without that a write that is always refused would be planned, sent and logged again with every cycle.
"""

import time
from collections.abc import Callable

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
Key = tuple[str, str, str]
"""The name of the action, the kind of our object that it is for, and what it is about."""


class Patience:
    """Remembers what was refused, and until when it is not tried again. Lost with the process, which does no harm."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[Key, tuple[float, float]] = {}

    def waits(self, key: Key) -> bool:
        """Whether it is too early to try this again."""
        until, _ = self._refused.get(key, (0.0, 0.0))
        return self._clock() < until

    def note(self, key: Key, *, refused: bool) -> None:
        """What became of it."""
        if not refused:
            self._refused.pop(key, None)
            return
        self._forget_old()
        _, before = self._refused.get(key, (0.0, 0.0))
        pause = min(LONGEST_PAUSE_SECONDS, 2 * before or FIRST_PAUSE_SECONDS)
        self._refused[key] = (self._clock() + pause, pause)

    def _forget_old(self) -> None:
        """What nobody has tried again for long: its object is gone, or nobody wants it any more."""
        now = self._clock()
        self._refused = {k: kept for k, kept in self._refused.items() if now < kept[0] + LONGEST_PAUSE_SECONDS}

"""Whose Services were made anew of late, and how often: whoever takes them away may do so again within milliseconds."""

from datetime import timedelta

from stokehold.cluster.indexes import Clock
from stokehold.model.snapshot import OwnObject, Restores

FORGOTTEN_AFTER = timedelta(minutes=15)
"""Longer than any pause: a Service that has stayed for so long is taken away for the first time again."""


class RestoreMemory:
    """By uid of the job or workspace."""

    def __init__(self, clock: Clock) -> None:
        self._last: dict[str, Restores] = {}
        self._clock = clock

    def note(self, owner: OwnObject) -> None:
        """Its Service was made anew just now."""
        before = self.now().get(owner.uid)
        self._last[owner.uid] = Restores(before.times + 1 if before is not None else 1, self._clock())

    def now(self) -> dict[str, Restores]:
        """Those that still count."""
        if self._last:
            oldest = self._clock() - FORGOTTEN_AFTER
            self._last = {uid: one for uid, one in self._last.items() if one.at > oldest}
        return dict(self._last)

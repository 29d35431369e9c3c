"""Statuses of which the API server drops a part, because its CRDs are older than we are: said once, not in every cycle.

Such a write changes nothing, so the next plan would make it again, at once and for ever.
"""

import json
import re
import time
from collections.abc import Callable
from typing import Any

from stokehold.model.snapshot import OwnObject

SAID_AGAIN_AFTER_SECONDS = 600.0
"""The CRDs may have been brought up to date since."""
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


class Unheard:
    """Remembers status writes that changed nothing. Lost with the process, which does no harm."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[str, str, float]] = {}
        """By uid of the object: its version, what was said, and when."""

    def is_vain(self, subject: OwnObject, status: dict[str, Any]) -> bool:
        """Whether the same was said of the same version a while ago, and nothing came of it."""
        version, said, at = self._said.get(subject.uid, ("", "", 0.0))
        if version != subject.resource_version or self._clock() - at >= SAID_AGAIN_AFTER_SECONDS:
            return False
        return said == _gist(status)

    def note(self, subject: OwnObject, status: dict[str, Any], version: str) -> None:
        """What has been written, and which version the object has since."""
        if version != subject.resource_version:
            self._said.pop(subject.uid, None)
            return
        now = self._clock()
        self._said = {uid: kept for uid, kept in self._said.items() if now - kept[2] < SAID_AGAIN_AFTER_SECONDS}
        self._said[subject.uid] = (version, _gist(status), now)


def _gist(status: dict[str, Any]) -> str:
    """The status without its times, which differ each time it is made."""
    return _TIMES.sub("", json.dumps(status, sort_keys=True))

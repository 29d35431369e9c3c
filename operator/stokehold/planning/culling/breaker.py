"""The mass-idle breaker: many workspaces that turn quiet at once mean that something is wrong with what we see.

So do many whose agents were away for long and came back at once: all would be due a window later, on their word alone.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from stokehold.planning.culling.settings import CullingSettings


def suspects(
    quiet: Iterable[tuple[datetime, timedelta]], running: int, now: datetime, settings: CullingSettings
) -> int:
    """How many workspaces turned quiet together, if they are too many to be believed; else 0.

    `quiet` holds for each quiet workspace since when it is, or is seen, and after how long it would be stopped.
    A swarm counts until `mass_idle_hold` after its last member would have been stopped: by then somebody has looked.
    """
    believed = now - settings.mass_idle_hold
    fresh = sorted(since for since, after in quiet if since + after > believed)
    largest = first = 0
    for last, since in enumerate(fresh):
        while since - fresh[first] > settings.mass_idle_within:
            first += 1
        largest = max(largest, last - first + 1)
    enough = max(settings.mass_idle_least, settings.mass_idle_share * running)
    return largest if largest >= enough else 0

"""Objects that this version cannot read: no planner sees them, so their owners are told from here."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from stokehold.cluster.apply import Writes
from stokehold.cluster.own_kinds import Unreadable
from stokehold.model.actions import Note
from stokehold.observability import metrics

INTERVAL_SECONDS = 2.0


async def tell(read: Callable[[], Iterable[Unreadable]], writes: Writes) -> None:
    """One Event for each object and cause, until cancelled. Raises NotLeaderError when replaced."""
    while True:
        for found in list(read()):
            await writes.tell_once(found, _note(found))
        await asyncio.sleep(INTERVAL_SECONDS)


def count(found: Iterable[Unreadable]) -> None:
    """The metric, by kind."""
    metrics.UNREADABLE.clear()
    for kind, number in Counter(one.KIND for one in found).items():
        metrics.UNREADABLE.labels(kind).set(number)


def _note(found: Unreadable) -> Note:
    message = (
        f"this version of Stokehold cannot read it: {found.why}. It and its pods are left as they are. "
        "Change what is named, or run the version that it was written for."
    )
    return Note("Unreadable", message, f"unreadable {found.why}", warning=True)

"""Two hands on one Deployment: what others write is undone, but nobody fights for ever. Pure.

After three reversals in a minute we stand back for a while and say who the other is: pods that come and go help
nobody. The times of the reversals are kept on the Deployment itself, so the next leader knows them too.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from stokehold.model.pods import PodSet
from stokehold.model.statuses import whole

MOST_REVERSALS = 3
WITHIN = timedelta(minutes=1)
STAND_BACK = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Contention:
    """Somebody else has written what only we should write; `stands_back` while we leave it so."""

    message: str
    stands_back: bool
    undone_at: tuple[datetime, ...]
    """The reversals to remember, this one included."""


def contention(known: PodSet | None, now: datetime, *, asked_again: bool = False) -> Contention | None:
    """What others have done to the Deployment; None when nobody has. Whoever asks the pool for something else
    (`asked_again`) is heard: once, if the other hand is still there."""
    if known is None:
        return None
    number = known.written_replicas is not None and known.replicas != known.written_replicas
    if not number and not known.template_writer:
        return None
    other = (known.replicas_writer if number else "") or known.template_writer or "somebody"
    what = f"spec.replicas to {known.replicas}" if number else "the template of its pods"
    undone = known.undone_at[-MOST_REVERSALS:]
    fought = len(undone) == MOST_REVERSALS and undone[-1] - undone[0] < WITHIN
    until = undone[-1] + STAND_BACK if fought and not asked_again else now
    if now < until:
        told = f"{other} keeps writing {what}: left as it is until {until:%H:%M} UTC; scale the InferencePool instead"
        return Contention(told, True, undone)
    return Contention(f"{other} has written {what}", False, (*undone, whole(now))[-MOST_REVERSALS:])

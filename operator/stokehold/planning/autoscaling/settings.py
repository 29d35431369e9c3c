"""What an administrator may set about autoscaling; plain values, read once at start-up."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class AutoscalingSettings:
    """Deadlines and limits of the autoscaling planner."""

    fresh_for: timedelta = timedelta(seconds=45)
    """How old a reading may be; three times the interval of scraping, so that one lost answer changes nothing."""
    raise_after: timedelta = timedelta(minutes=5)
    """A pool whose load was unknown for so long gets as many replicas as it needed lately."""
    recent: timedelta = timedelta(hours=1)
    """What "lately" is."""
    retry_creation_after: timedelta = timedelta(seconds=10)
    """What the API server refused is tried again after this."""

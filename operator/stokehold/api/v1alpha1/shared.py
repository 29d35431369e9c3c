"""Parts of the status that several kinds share: why something waits, and where it runs."""

from stokehold.api.base import Int, Part
from stokehold.api.times import Timestamp


class RejectedPool(Part):
    """A pool that cannot take the work, and why."""

    name: str
    """The GPUNodePool."""
    reason: str = ""
    """Why, as one CamelCase word."""
    message: str = ""
    """Why, as a sentence with numbers."""


class QueueDetails(Part):
    """The numbers behind the reason."""

    requested: Int | None = None
    """How much is asked for."""
    available: Int | None = None
    """How much there is at present."""
    limit: Int | None = None
    """The limit that stands in the way, if one does. Not told yet."""
    unit: str = ""
    """What is counted, for example GPUs or nodes."""
    pools: tuple[RejectedPool, ...] = ()
    """The pools that were considered, each with the reason against it. Not told yet."""


class QueueStatus(Part):
    """Why something waits, for how long, and what helps."""

    position: Int | None = None
    """The place in the queue. The first is 1."""
    estimated_start_time: Timestamp | None = None
    """When it will start if all goes as expected. Not told yet."""
    reason: str = ""
    """The one thing that is in the way most, as a CamelCase word that scripts may rely on."""
    message: str = ""
    """The same as a sentence for people."""
    next_step: str = ""
    """What can be done about it."""
    observed_time: Timestamp | None = None
    """When the place, the estimate and the numbers were last brought up to date."""
    details: QueueDetails | None = None
    """The numbers behind the reason."""

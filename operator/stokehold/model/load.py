"""How busy the replicas of a serving pool are, as they themselves or Prometheus said it, and how old that is.

Gathered by `cluster/scraping`; what follows from it, and whether it is fresh enough, is for the planner to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Signal(StrEnum):
    """What can be read of a replica, or of a query."""

    WAITING = "waiting"
    """Requests in the engine's queue."""
    RUNNING = "running"
    """Requests in work."""
    KV_CACHE = "kvCache"
    """The share of the KV cache in use, 0 to 1."""
    ARRIVALS = "arrivals"
    """Requests that come in a second, over the last minute."""
    SERVICE_SECONDS = "serviceSeconds"
    """How long a request is in work, on average over the last minute."""
    TOTAL = "total"
    """The answer to a query."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source said at one moment; a signal that it did not give is missing, never 0."""

    at: datetime
    values: Mapping[Signal, float]


@dataclass(frozen=True, slots=True)
class Source:
    """One place that is asked: the metrics of a replica, or a query."""

    address: str
    reading: Reading | None = None
    """The last good answer, however old."""
    problem: str = ""
    """Why the last try gave none."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """All sources of one pool."""

    watched_since: datetime
    """From when on this process has asked; of the time before it knows nothing."""
    replicas: Mapping[str, Source] = field(default_factory=dict)
    """By the pod's uid."""
    queries: Mapping[str, Source] = field(default_factory=dict)
    """By the query."""

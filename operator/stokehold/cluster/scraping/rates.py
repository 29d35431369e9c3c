"""A replica's last answers -> its reading: gauges as they are, counters as rates over the last minute. Pure."""

from collections import deque
from datetime import datetime, timedelta

from stokehold.model.engines import Raw
from stokehold.model.load import Reading, Signal

WINDOW = timedelta(seconds=60)
SHORTEST = timedelta(seconds=30)
"""Of a shorter time no rate is given: a handful of requests at once would look like a flood that goes on."""
MOST_KEPT = 120

GAUGES = {Raw.WAITING: Signal.WAITING, Raw.RUNNING: Signal.RUNNING, Raw.KV_CACHE: Signal.KV_CACHE}
COUNTERS = (Raw.FINISHED, Raw.LATENCY_SUM, Raw.LATENCY_COUNT, Raw.QUEUED_SUM)


class History:
    """What one replica has said within the window."""

    def __init__(self) -> None:
        self._kept: deque[tuple[datetime, dict[Raw, float]]] = deque(maxlen=MOST_KEPT)

    def take(self, at: datetime, values: dict[Raw, float]) -> Reading:
        """Add an answer; returns the reading that it makes with those before."""
        last = self._kept[-1][1] if self._kept else {}
        if any(values.get(raw, 0.0) < last.get(raw, 0.0) for raw in COUNTERS):
            self._kept.clear()  # the engine has started again
        while self._kept and at - self._kept[0][0] > WINDOW:
            self._kept.popleft()
        self._kept.append((at, values))
        began, first = self._kept[0]
        signals = {signal: values[raw] for raw, signal in GAUGES.items() if raw in values}
        if at - began >= SHORTEST:
            signals |= _rates(first, values, (at - began).total_seconds())
        return Reading(at, signals)


def _rates(first: dict[Raw, float], last: dict[Raw, float], seconds: float) -> dict[Signal, float]:
    """Arrivals, not completions: behind a full engine completions stay the same however many come in."""
    rates = {}
    finished = _growth(Raw.FINISHED, first, last)
    if finished is not None:
        piled_up = sum(last.get(raw, 0.0) - first.get(raw, 0.0) for raw in (Raw.RUNNING, Raw.WAITING))
        rates[Signal.ARRIVALS] = max(0.0, (finished + piled_up) / seconds)
    count = _growth(Raw.LATENCY_COUNT, first, last)
    latency = _growth(Raw.LATENCY_SUM, first, last)
    queued = _growth(Raw.QUEUED_SUM, first, last)
    # Requests are whole: less than one is a number that somebody made up, and would make of a second for ever.
    if count is not None and count >= 1 and latency is not None and queued is not None:
        rates[Signal.SERVICE_SECONDS] = max(0.0, (latency - queued) / count)
    return rates


def _growth(raw: Raw, first: dict[Raw, float], last: dict[Raw, float]) -> float | None:
    return last[raw] - first[raw] if raw in first and raw in last else None

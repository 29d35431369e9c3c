"""Metrics as text -> the few numbers of an engine that we know. Pure."""

import math
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from stokehold.model.engines import ENGINES, Raw, Series


class UnreadableError(Exception):
    """The text is not in Prometheus' format; the message says where."""


def read_metrics(text: str, engine: str) -> dict[Raw, float]:
    """What the engine's metrics say; a number that is missing, negative or not finite is left out.

    Of several names of one thing the first that appears counts, never two together.
    """
    wanted = ENGINES[engine]
    names = {name for series in wanted.values() for one in series for name in one.spellings}
    samples = _samples(text, names)
    read = {raw: _value(raw, series, samples) for raw, series in wanted.items()}
    return {raw: value for raw, value in read.items() if value is not None}


Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]


def _samples(text: str, names: set[str]) -> Samples:
    """The samples with these names. An engine has thousands of others, and the parser is slow."""
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    lines = [line for line in text.splitlines() if _name(line) in names]
    try:
        for family in text_string_to_metric_families("\n".join([*lines, ""])):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    except (ValueError, KeyError, IndexError) as error:
        raise UnreadableError(f"not in Prometheus' text format: {error}") from error
    return found


def _name(line: str) -> str:
    return line.split("{", 1)[0].split(" ", 1)[0].strip()


def _value(raw: Raw, series: Iterable[Series], samples: Samples) -> float | None:
    for one in series:
        for name in one.spellings:
            values = [value for labels, value in samples.get(name, ()) if _has(labels, one.labels)]
            if values:
                return _plausible((max(values) if raw is Raw.KV_CACHE else sum(values)) * one.scale)
    return None


def _has(labels: Mapping[str, str], wanted: Iterable[tuple[str, str]]) -> bool:
    return all(labels.get(key) == value for key, value in wanted)


def _plausible(value: float) -> float | None:
    return value if math.isfinite(value) and value >= 0 else None

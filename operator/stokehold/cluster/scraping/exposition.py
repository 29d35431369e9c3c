"""Metrics as text -> the few numbers of an engine that we know. Pure."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from prometheus_client.parser import text_string_to_metric_families

from stokehold.model.engines import ENGINES, Raw, Series

LONGEST_LINE = 4096
LARGEST_PART = 256 * 1024
"""How long one line, and all lines with the names that we know, may be. The parser takes time that grows with the
square of a line's labels, and whoever writes the lines is a tenant."""
LARGEST_NUMBER = 1e15
"""No engine has counted so far. Sums and quotients of smaller ones stay finite."""


class UnreadableError(Exception):
    """The text is not in Prometheus' format, in the same words each time: they go into a status."""


def read_metrics(text: str, engine: str) -> dict[Raw, float]:
    """What the engine's metrics say; a number that is missing or cannot be true is left out.

    Of several names of one thing the first that appears counts, never two together.
    """
    wanted = ENGINES[engine]
    samples = _samples(text, engine)
    read = {raw: _value(raw, series, samples) for raw, series in wanted.items()}
    return {raw: value for raw, value in read.items() if value is not None}


Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]


def _samples(text: str, engine: str) -> Samples:
    """The samples with the engine's names. It has thousands of others, and the parser is slow."""
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    part = "\n".join([*_lines(text, engine), ""])
    try:
        for family in text_string_to_metric_families(part):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    except (ValueError, LookupError) as error:
        raise UnreadableError("its metrics are not in Prometheus' text format") from error
    return found


def _lines(text: str, engine: str) -> list[str]:
    lines, length = [], 0
    for match in _pattern(engine).finditer(text):
        line = match[0]
        length += len(line)
        if len(line) > LONGEST_LINE:
            raise UnreadableError(f"a line of its metrics has more than {LONGEST_LINE} characters")
        if length > LARGEST_PART:
            raise UnreadableError(f"its lines with the names of {engine} have more than {LARGEST_PART} characters")
        lines.append(line)
    return lines


@lru_cache
def _pattern(engine: str) -> re.Pattern[str]:
    """A line that begins with one of the engine's names, and not with a longer one."""
    names = {name for series in ENGINES[engine].values() for one in series for name in one.spellings}
    return re.compile(rf"^(?:{'|'.join(map(re.escape, sorted(names)))})(?=[ \t{{]).*$", re.MULTILINE)


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
    return value if 0 <= value <= LARGEST_NUMBER else None  # NaN is neither

"""Instants as Kubernetes writes them: RFC 3339 with a zone, whole seconds."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, PlainSerializer, WithJsonSchema


def format_time(instant: datetime) -> str:
    """Return the instant as 2026-01-31T08:00:00Z; other zones and fractions stay as they are."""
    text = instant.isoformat()
    return text.removesuffix("+00:00") + "Z" if instant.utcoffset() == UTC.utcoffset(None) else text


FIRST_YEAR, LAST_YEAR = 1970, 2999
"""Instants outside of these are nobody's: with them the calendar ends, and so would a plan that adds to them."""


def parse_time(text: str) -> datetime | None:
    """Return the instant that somebody has written, in UTC; None when it has no zone, or is no time that can be."""
    try:
        return plausible_time(datetime.fromisoformat(text))
    except ValueError:
        return None


def plausible_time(instant: datetime) -> datetime | None:
    """Return the instant in UTC; None when it has no zone, or is so far away that nobody can count with it."""
    if instant.tzinfo is None or not FIRST_YEAR <= instant.year <= LAST_YEAR:
        return None
    return instant.astimezone(UTC)


Timestamp = Annotated[
    AwareDatetime,
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

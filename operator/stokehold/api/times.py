"""Instants as Kubernetes writes them: RFC 3339 with a zone, whole seconds."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, PlainSerializer, WithJsonSchema


def format_time(instant: datetime) -> str:
    """Return the instant as 2026-01-31T08:00:00Z; other zones and fractions stay as they are."""
    text = instant.isoformat()
    return text.removesuffix("+00:00") + "Z" if instant.utcoffset() == UTC.utcoffset(None) else text


Timestamp = Annotated[
    AwareDatetime,
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

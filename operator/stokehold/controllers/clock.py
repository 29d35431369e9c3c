"""The only reader of the wall clock; everybody else is given the time."""

from datetime import UTC, datetime


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place that may

"""Durations as Go writes them, exact to the nanosecond, with whole days on top: 90m, 1.5h, 7d."""

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_snake
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from stokehold.api.base import Rule

NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5, what Go prints
    "μs": 10**3,  # U+03BC, what Go also reads
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 24 * 3600 * 10**9,
}

# Go has no days, people do; a day is 24 hours and stands alone.
PATTERN = r"^([0-9]{1,5}d|([0-9]{1,9}([.][0-9]{1,9})?(ns|us|µs|μs|ms|s|m|h)){1,6})$"
MAX_LENGTH = 32

_WHOLE = re.compile(PATTERN)
_PIECE = re.compile(r"([0-9]+)(?:[.]([0-9]+))?(ns|us|µs|μs|ms|s|m|h|d)")


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A span of time that prints as it was written. Equal spans are equal: 90m is 1h30m."""

    nanoseconds: int
    text: str = field(compare=False, default="")

    def __post_init__(self) -> None:
        if not self.text:
            object.__setattr__(self, "text", go_text(self.nanoseconds))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the span that the text names; ValueError when it is none."""
        if not text or len(text) > MAX_LENGTH or not _WHOLE.fullmatch(text):
            raise ValueError("must be a duration such as 90m, 24h, 1h30m or 7d")
        return cls(sum(_nanoseconds(*piece.groups()) for piece in _PIECE.finditer(text)), text)

    @classmethod
    def of_seconds(cls, seconds: int) -> Self:
        """Return a span of whole seconds."""
        return cls(seconds * 10**9)

    @property
    def seconds(self) -> float:
        """The span in seconds."""
        return self.nanoseconds / 10**9

    def to_timedelta(self) -> timedelta:
        """Return the span as Python's own type, exact to the microsecond."""
        return timedelta(microseconds=self.nanoseconds // 1000)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_validate, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "maxLength": MAX_LENGTH}


def go_text(nanoseconds: int) -> str:
    """Return what Go's time.Duration prints, less its zero units at the end: 1h30m, 1.5s, 0s."""
    if nanoseconds < 0:
        raise ValueError("a duration is not negative")
    if nanoseconds < NANOSECONDS["s"]:
        unit = next((u for u in ("ms", "us", "ns") if nanoseconds >= NANOSECONDS[u]), "s")
        return _decimal(nanoseconds, NANOSECONDS[unit]) + unit
    hours, rest = divmod(nanoseconds, NANOSECONDS["h"])
    minutes, rest = divmod(rest, NANOSECONDS["m"])
    pieces = [
        f"{hours}h" if hours else "",
        f"{minutes}m" if minutes else "",
        _decimal(rest, NANOSECONDS["s"]) + "s" if rest else "",
    ]
    return "".join(pieces)


def between(low: str, high: str) -> Rule:
    """Return the rule that a duration is well formed and within the bounds."""
    least, most = Duration.parse(low), Duration.parse(high)
    shortest, longest = (bound.nanoseconds // NANOSECONDS["ms"] for bound in (least, most))
    span = _cel_milliseconds("self")
    return Rule(
        f"must be a duration from {low} to {high}, written like 90m, 24h, 1h30m or 7d",
        cel=f"{_cel_is_duration('self')} && {span} >= {shortest} && {span} <= {longest}",
        holds=lambda span: least <= span <= most,
    )


def at_most(smaller: str, larger: str) -> Rule:
    """Return the rule that one optional member is at most another; the names are of the manifest."""

    def holds(part: BaseModel) -> bool:
        low, high = getattr(part, to_snake(smaller)), getattr(part, to_snake(larger))
        return low is None or high is None or bool(low <= high)

    # A malformed member has its own message; here it would only add an error of evaluation.
    low, high = f"self.{smaller}", f"self.{larger}"
    unknown = " || ".join(f"!has({path}) || !{_cel_is_duration(path)}" for path in (low, high))
    return Rule(
        f"{smaller} must be at most {larger}",
        cel=f"{unknown} || {_cel_milliseconds(low)} <= {_cel_milliseconds(high)}",
        holds=holds,
        field=f".{smaller}",
    )


def _cel_is_duration(path: str) -> str:
    return f"({path} != '' && {path}.matches('{PATTERN}'))"


def _cel_milliseconds(path: str) -> str:
    # Arithmetic on numbers, not on strings: the server can bound its cost.
    days = f"int({path}.substring(0, {path}.indexOf('d'))) * 86400000"
    return f"({path}.endsWith('d') ? {days} : duration({path}).getMilliseconds())"


def _validate(value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a duration in a string, such as 90m or 24h")
    return Duration.parse(value)


def _nanoseconds(whole: str, fraction: str | None, unit: str) -> int:
    scale = NANOSECONDS[unit]
    digits = fraction or "0"
    return int(whole) * scale + int(digits) * scale // int("1" + "0" * len(digits))


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"

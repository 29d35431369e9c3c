"""How commands print: aligned columns for people, JSON with stable keys for scripts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import click
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stokehold.api.times import format_time

T = TypeVar("T")

OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="A table for people, or JSON for scripts.",
)
UNLIMITED = 10_000
"""Columns of an output that is no terminal: a pipe gets whole lines."""


@dataclass(frozen=True)  # no slots: Python 3.11 cannot call Column[Row](...) on a frozen class with them
class Column(Generic[T]):
    """A heading, and what stands below it for one row; the last columns may be cut on a narrow terminal."""

    heading: str
    text: Callable[[T], object]
    right: bool = False


def show(rows: Sequence[T], columns: Sequence[Column[T]], output: str, nothing: str) -> None:
    """Print the rows; `nothing` goes to standard error when a person would see an empty table."""
    if output == "json":
        print_json({"items": [to_json(row) for row in rows]})
    elif not rows:
        click.echo(nothing, err=True)
    else:
        console = Console(highlight=False, soft_wrap=False)
        if not console.is_terminal:
            console.width = UNLIMITED
        console.print(_table(rows, columns))


def print_json(document: Any) -> None:
    """One JSON document, as scripts get it."""
    click.echo(json.dumps(document, indent=2))


def to_json(row: Any) -> dict[str, Any]:
    """A row with the keys and forms that the reference names."""
    return {to_camel(key): _json_value(value) for key, value in asdict(row).items()}


def plain(value: object) -> str:
    """The value as one line of printable text: names and messages come from others, and a terminal obeys escapes."""
    text = "-" if value is None or value == "" else str(value)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def span(passed: timedelta) -> str:
    """A length of time in its largest unit or two: 45s, 12m, 3h20m, 5d."""
    seconds = max(0, int(passed.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days >= 2:
        return f"{days}d"
    if hours >= 1:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{minutes}m" if minutes else f"{seconds}s"


def _table(rows: Sequence[T], columns: Sequence[Column[T]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis" if last else "fold",
            min_width=8 if last else len(column.heading),
        )
    for row in rows:
        table.add_row(*(Text(plain(column.text(row))) for column in columns))
    return table


def _json_value(value: Any) -> Any:
    return format_time(value) if isinstance(value, datetime) else value

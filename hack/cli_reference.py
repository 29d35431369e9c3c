"""The reference of the command line, from the commands themselves and from the rows that they print."""

from collections.abc import Iterator

import click
from pydantic.alias_generators import to_camel

from stokehold.api.docs import field_docs
from stokehold.cli.get import Item
from stokehold.cli.main import main
from stokehold.cli.queue import Waiting
from stokehold.cli.snooze import Answer
from stokehold.cli.top import PoolUse
from stokehold.cli.why import Answer as Why


def _documented(row: type) -> tuple[tuple[str, str], ...]:
    """The keys of a class of rows, each with its meaning."""
    docs = field_docs(row)
    return tuple((to_camel(name), text) for name, text in docs.items())


FOR_PEOPLE = ("get", "queue", "why", "top", "snooze", "resume")
PROGRAMS = ("run", "agent")

# What `-o json` prints for a command: the class whose fields are the keys, and whether they are under `items`.
ROWS: dict[str, tuple[type, bool]] = {
    "get": (Item, True),
    "queue": (Waiting, True),
    "top": (PoolUse, True),
    "why": (Why, False),
}
KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    "snooze": (
        ("namespace", "The workspace's namespace."),
        ("name", "Its name."),
        *_documented(Answer),
    ),
    "resume": (
        ("namespace", "The workspace's namespace."),
        ("name", "Its name."),
        ("wasRunning", "Whether it was to run before; then nothing was changed."),
    ),
}

INTRODUCTION = """\
`stokehold` is for people and for scripts. As `kubectl stokehold` it is a plugin of kubectl: the same commands, once
`kubectl-stokehold` is on the PATH (`pip install` puts it there).

A command acts with the rights of the kubeconfig, nothing more: it reads what you may read and patches as you. Tables
are for people and may change; with `-o json` the keys below stay. Times are RFC 3339 in UTC; what is not known is null.

| exit code | meaning |
|---|---|
| 0 | done; an empty list is no error |
| 1 | the API server refused or did not answer, or there is no such object; the reason is on standard error |
| 2 | the command itself is wrong: an unknown option, kind or duration |

Each option can be set by a variable of the environment, `STOKEHOLD_COMMAND_OPTION`: `STOKEHOLD_QUEUE_OUTPUT=json`."""


def cli_reference() -> Iterator[str]:
    """The lines of the page."""
    yield from INTRODUCTION.splitlines()
    context = click.Context(main, info_name="stokehold", **main.context_settings)
    for heading, names in (("For people", FOR_PEOPLE), ("Programs", PROGRAMS)):
        yield from ("", f"## {heading}")
        for name in names:
            command = main.get_command(context, name)
            if command is None:
                raise LookupError(f"no command {name}")
            yield from _command(command, click.Context(command, parent=context, info_name=name), name)


def _command(command: click.Command, context: click.Context, name: str) -> Iterator[str]:
    yield from ("", f"### stokehold {name}", "", "```console")
    yield "$ " + " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```", "", *_paragraphs(command.help or ""))
    options = [p for p in command.get_params(context) if isinstance(p, click.Option) and "--help" not in p.opts]
    yield from ("", "| option | meaning |", "|---|---|")
    for option in options:
        shown = option.get_help_record(context)
        if shown is not None:
            names, text = shown
            yield f"| `{_cell(names)}` | {_cell(text)} |"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            sub = command.get_command(context, child)
            if sub is not None:
                yield from _command(sub, click.Context(sub, parent=context, info_name=child), f"{name} {child}")
    yield from _keys(name)


def _keys(name: str) -> Iterator[str]:
    keys = KEYS.get(name, ())
    where = ""
    if name in ROWS:
        row, listed = ROWS[name]
        where = ", one object for each row under `items`" if listed else ""
        keys = _documented(row)
    if keys:
        yield from ("", f"With `-o json`{where}:", "", "| key | meaning |", "|---|---|")
        yield from (f"| `{key}` | {_cell(text)} |" for key, text in keys)


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.replace("\b\n", "").split("\n\n")):
        if number:
            yield ""
        yield " ".join(paragraph.split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

"""`stokehold snooze` and `stokehold resume`: the user's word on an idle or a stopped workspace, as the user's patch."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import click

from stokehold.api.durations import Duration
from stokehold.api.names import SNOOZE_ANNOTATION
from stokehold.api.times import format_time
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace, Snooze
from stokehold.cli import objects
from stokehold.cli.access import Access, access_options, ask, now, told
from stokehold.cli.tables import OUTPUT, plain, print_json, to_json
from stokehold.cluster.client import KubeApi, Object, PatchKind
from stokehold.cluster.resources import DEV_WORKSPACES

FIELD_MANAGER = "stokehold-cli"
STOPPED = ("Stopping", "Stopped")
ANSWER_TRIES, ANSWER_PAUSE_SECONDS = 10, 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a snooze."""

    requested_until: str
    """Until when the workspace is to be left alone, as it was asked for."""
    answered: bool
    """Whether the operator has answered within a few seconds; if not, look at `status.snoozedUntil` later."""
    snoozed_until: datetime | None
    """Until when it will be, within what spec.idle.snooze allows; null while unanswered, or when nothing is left."""


@click.command()
@click.argument("name")
@click.argument("duration", metavar="DURATION")
@access_options()
@OUTPUT
def snooze(access: Access, name: str, duration: str, output: str) -> None:
    """Put the stop of an idle workspace off for DURATION from now, for example 2h or 90m.

    spec.idle.snooze bounds how long once and how long a day. An earlier snooze is replaced.
    """
    span = _span(duration)
    name = _workspace_name(name)
    place = access.one_place
    until = (now() + span).replace(microsecond=0)

    async def put_off(api: KubeApi) -> Answer:
        workspace = await objects.fetch(api, DevWorkspace, place, name)
        _check(workspace, span, duration)
        await _patch(api, workspace, {"metadata": {"annotations": {SNOOZE_ANNOTATION: format_time(until)}}})
        return await _answer(api, place, name, format_time(until))

    answer = ask(access, put_off)
    if output == "json":
        print_json({"namespace": place, "name": name, **to_json(answer)})
    elif not answer.answered:
        click.echo(f"{place}/{name} is to be left alone until {_clock(until)}; the operator has not answered yet:")
        click.echo(f"  kubectl get gws {name} -n {place} -o jsonpath={{.status.snoozedUntil}}")
    elif answer.snoozed_until is None:
        raise click.ClickException(
            f"{place}/{name} is not snoozed: the day's budget (spec.idle.snooze.budgetPerDay) is used up"
        )
    else:
        click.echo(f"{place}/{name} is not stopped for being idle before {_clock(answer.snoozed_until)}")
        if answer.snoozed_until < until:
            click.echo("  That is less than you asked for: spec.idle.snooze bounds it for once and for a day.")


@click.command()
@click.argument("name")
@access_options()
@OUTPUT
def resume(access: Access, name: str, output: str) -> None:
    """Start a stopped workspace again, with its files. It waits for GPUs like any other."""
    name = _workspace_name(name)
    place = access.one_place

    async def start(api: KubeApi) -> DevWorkspace:
        workspace = await objects.fetch(api, DevWorkspace, place, name)
        if not workspace.spec.running:
            await _patch(api, workspace, {"spec": {"running": True}})
        return workspace

    before = ask(access, start)
    if output == "json":
        print_json({"namespace": place, "name": name, "wasRunning": before.spec.running})
    elif before.spec.running:
        click.echo(f"{place}/{name} is running or about to: {plain(before.status.phase or 'Pending')}")
    else:
        click.echo(f"{place}/{name} starts; stokehold why gws/{name} tells how far it is")


def _span(text: str) -> timedelta:
    try:
        span = Duration.parse(text).to_timedelta()
    except ValueError as error:
        raise click.UsageError(f"DURATION {error}") from error
    if span < timedelta(minutes=1):
        raise click.UsageError("DURATION must be a minute or more")
    return span


def _workspace_name(what: str) -> str:
    kind, name = objects.kind_and_name(what, DevWorkspace)
    if kind is not DevWorkspace:
        raise click.UsageError(f"{what} is no workspace; only those are stopped and started")
    return name


def _check(workspace: DevWorkspace, span: timedelta, duration: str) -> None:
    """Refuse what the operator would not grant, in words that say what to do."""
    if not workspace.spec.running or workspace.status.phase in STOPPED:
        name = workspace.metadata.name
        raise click.ClickException(
            f"{name} is stopped, so there is no stop to put off; stokehold resume {name} starts it"
        )
    limits = _limits(workspace)
    if span > limits.max.to_timedelta():
        raise click.ClickException(
            f"{duration} is more than the {limits.max} that spec.idle.snooze.max allows at a time;"
            " for longer, ask whoever runs the cluster for spec.idle.exempt"
        )


async def _answer(api: KubeApi, place: str, name: str, requested: str) -> Answer:
    """Wait a few seconds for the operator: it answers each new value of the annotation once."""
    for _ in range(ANSWER_TRIES):
        status = (await objects.fetch(api, DevWorkspace, place, name)).status
        if status.snooze_request == requested:
            return Answer(requested, answered=True, snoozed_until=status.snoozed_until)
        await asyncio.sleep(ANSWER_PAUSE_SECONDS)
    return Answer(requested, answered=False, snoozed_until=None)


def _limits(workspace: DevWorkspace) -> Snooze:
    return workspace.spec.idle.snooze or Snooze()


async def _patch(api: KubeApi, workspace: DevWorkspace, body: Object) -> None:
    """Change the workspace that was read, not a new one of the same name."""
    meta = workspace.metadata
    body = {**body, "metadata": {**body.get("metadata", {}), "uid": meta.uid}}
    with told(f"change the DevWorkspace {meta.name} in namespace {meta.namespace}"):
        await api.patch(
            DEV_WORKSPACES,
            meta.name,
            body,
            namespace=meta.namespace,
            kind=PatchKind.MERGE,
            field_manager=FIELD_MANAGER,
        )


def _clock(until: datetime) -> str:
    """In the user's own time zone, which is the one on their wall."""
    return f"{until.astimezone():%Y-%m-%d %H:%M %Z}"

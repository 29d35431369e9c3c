"""`stokehold snooze` and `stokehold resume`: the user's word on an idle or a stopped workspace, as the user's patch."""

from datetime import datetime, timedelta

import click

from stokehold.api.durations import Duration
from stokehold.api.names import SNOOZE_ANNOTATION
from stokehold.api.times import format_time
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace, Snooze
from stokehold.cli import objects
from stokehold.cli.access import Access, access_options, ask, now, told
from stokehold.cli.tables import OUTPUT, plain, print_json
from stokehold.cluster.client import KubeApi, Object, PatchKind
from stokehold.cluster.resources import DEV_WORKSPACES

FIELD_MANAGER = "stokehold-cli"
STOPPED = ("Stopping", "Stopped")


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

    async def put_off(api: KubeApi) -> DevWorkspace:
        workspace = await objects.fetch(api, DevWorkspace, place, name)
        _check(workspace, span, duration)
        await _patch(api, workspace, {"metadata": {"annotations": {SNOOZE_ANNOTATION: format_time(until)}}})
        return workspace

    workspace = ask(access, put_off)
    if output == "json":
        print_json({"namespace": place, "name": name, "snoozedUntil": format_time(until)})
        return
    limits = _limits(workspace)
    click.echo(f"{place}/{name} is not stopped for being idle before {_clock(until)}")
    click.echo(f"at most {limits.max} at a time and {limits.budget_per_day} a day count; status.snoozedUntil tells")


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

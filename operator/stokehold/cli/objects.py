"""How the user's commands fetch objects of our kinds, by the words that people use for them."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeVar

import click

from stokehold.api.base import Kind
from stokehold.api.names import GROUP
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cli.access import told
from stokehold.cluster.client import KubeApi, Object
from stokehold.cluster.once import list_objects
from stokehold.cluster.resources import DEV_WORKSPACES, INFERENCE_POOLS, TRAINING_JOBS, Resource

K = TypeVar("K", bound=Kind)
Work = TrainingJob | DevWorkspace | InferencePool

RESOURCES: dict[type[Work], Resource] = {
    TrainingJob: TRAINING_JOBS,
    DevWorkspace: DEV_WORKSPACES,
    InferencePool: INFERENCE_POOLS,
}


def kind_called(word: str) -> type[Work]:
    """The kind that `tj`, `trainingjob` or `trainingjobs.stokehold.dev` means; click.UsageError for others."""
    for kind in RESOURCES:
        names = (kind.RESOURCE.short_name, kind.RESOURCE.plural, kind.RESOURCE.plural.removesuffix("s"))
        if word.lower().removesuffix(f".{GROUP}") in names:
            return kind
    known = ", ".join(f"{kind.RESOURCE.short_name} ({kind.__name__})" for kind in RESOURCES)
    raise click.UsageError(f"{word} is not known here; there are {known}")


def kind_and_name(what: str, default: type[Work]) -> tuple[type[Work], str]:
    """The kind and the name in `tj/NAME` or `NAME`."""
    word, _, name = what.rpartition("/")
    if not name:
        raise click.UsageError(f"{what} has no name; write {default.RESOURCE.short_name}/NAME")
    return kind_called(word) if word else default, name


async def fetch(api: KubeApi, kind: type[K], namespace: str, name: str) -> K:
    """One object; click.ClickException with what to do when there is none."""
    plural, short = kind.RESOURCE.plural, kind.RESOURCE.short_name
    missing = f"no {kind.__name__} {name} in namespace {namespace}; kubectl get {short} -A shows where it is"
    with told(f"read {plural} in namespace {namespace}", missing):
        found = await api.get(_resource(kind), name, namespace)
    return _read(kind, found)


async def fetch_all(api: KubeApi, kinds: Sequence[type[Work]], place: str | None) -> list[Work]:
    """All objects of these kinds in one namespace, or in all; those that nobody can read are named and left out."""
    lists = await asyncio.gather(*(_list(api, kind, place) for kind in kinds))
    return [found for objects in lists for found in objects]


async def _list(api: KubeApi, kind: type[Work], place: str | None) -> list[Work]:
    where = f"in namespace {place}" if place else "in all namespaces; name one with -n"
    with told(f"list {kind.RESOURCE.plural} {where}"):
        listed = await list_objects(api, _resource(kind), place)
    return list(_readable(kind, listed))


def _readable(kind: type[Work], listed: Iterable[Object]) -> Iterable[Work]:
    for item in listed:
        try:
            yield _read(kind, item)
        except click.ClickException as error:
            click.echo(f"left out: {error.message}", err=True)


def _read(kind: type[K], found: Object) -> K:
    metadata = found.get("metadata", {})
    try:
        return kind.read({"apiVersion": f"{GROUP}/v1alpha1", "kind": kind.__name__, **found})
    except ValueError as error:
        name = f"{metadata.get('namespace')}/{metadata.get('name')}"
        raise click.ClickException(f"{kind.__name__} {name} is not understood by this version of stokehold") from error


def _resource(kind: type[Kind]) -> Resource:
    return next(resource for known, resource in RESOURCES.items() if known is kind)

"""The cluster as it is now, read once for a command that a person runs: lists, no watches, no cache."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from stokehold.cluster import resources, wire
from stokehold.cluster.client import KubeApi
from stokehold.cluster.errors import ForbiddenError, GoneError, UnavailableError
from stokehold.cluster.nesting import decode
from stokehold.cluster.own_kinds import read_node_pool, read_sighting
from stokehold.cluster.reading.nodes import read_node
from stokehold.cluster.reading.pods import read_pod
from stokehold.cluster.resources import Resource
from stokehold.cluster.snapshots import Cluster
from stokehold.cluster.store import Listener, key_of
from stokehold.cluster.watching import ListPage, Wire
from stokehold.model.snapshot import Snapshot

T = TypeVar("T")
W = TypeVar("W", bound=Wire)

PAGE_SIZE = 500
MOST_PAGES = 10_000


async def list_objects(api: KubeApi, resource: Resource, namespace: str | None = None) -> list[dict[str, Any]]:
    """All objects of a namespace, or of all namespaces, as the server holds them."""
    return [decode(item, dict[str, Any]) for item in await _items(api, resource, namespace)]


async def read_fleet(api: KubeApi, now: datetime) -> Snapshot:
    """Nodes, what their pods request, pools, and what the agents wrote, where we may read it.

    ForbiddenError when nodes, pods or pools may not be listed in the whole cluster.
    """
    cluster = Cluster(lambda: None, lambda: now)
    await _fill(api, resources.GPU_NODE_POOLS, wire.OwnKind, read_node_pool, cluster.node_pools)
    await _fill(api, resources.NODES, wire.Node, read_node, cluster.nodes)
    await _fill(api, resources.PODS, wire.Pod, read_pod, cluster.pods)
    with suppress(ForbiddenError):  # the counts stand without it
        await _fill(api, resources.GPU_NODES, wire.OwnKind, read_sighting, cluster.sightings)
    return cluster.snapshot()


async def _fill(
    api: KubeApi, resource: Resource, form: type[W], convert: Callable[[W], T], listener: Listener[T]
) -> None:
    for item in await _items(api, resource, None):
        try:
            raw = decode(item, form)
            listener.on_upsert(key_of(raw.metadata), None, convert(raw))
        except ValueError:
            continue  # one object that nobody can read; msgspec's errors are ValueErrors too


async def _items(api: KubeApi, resource: Resource, namespace: str | None) -> list[msgspec.Raw]:
    """The items of one consistent list; its pages expire together, and then it is asked for in one piece."""
    try:
        return await _pages(api, resource, namespace, PAGE_SIZE)
    except GoneError:
        return await _pages(api, resource, namespace, None)


async def _pages(api: KubeApi, resource: Resource, namespace: str | None, limit: int | None) -> list[msgspec.Raw]:
    items: list[msgspec.Raw] = []
    token = None
    for _ in range(MOST_PAGES):
        body = await api.list_page(resource, namespace=namespace, limit=limit, continue_token=token)
        page = decode(body, ListPage)
        items += page.items or ()
        token = page.metadata.token
        if not token:
            return items
    raise UnavailableError(0, "Garbled", f"a list of more than {MOST_PAGES} pages")

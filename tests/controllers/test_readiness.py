"""The operator is not ready while it does not see the cluster as it is, and /readyz says what it does not see."""

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from builders import NOW
from stokehold.cluster.client import KubeApi
from stokehold.cluster.informers import Informer
from stokehold.cluster.snapshots import Cluster
from stokehold.controllers.watches import Watches
from stokehold.observability.health import HealthServer

STALE_AFTER = 90


@pytest.fixture
def watches() -> Watches:
    """All in sync, and heard of just now."""
    made = Watches(cast(KubeApi, None), Cluster(lambda: None, lambda: NOW))
    for informer in made:
        informer._synced.set()
    return made


@pytest.fixture
async def readyz(watches: Watches) -> AsyncIterator[Callable[[], Any]]:
    """What a probe is told: status and lines."""
    server = HealthServer(
        CollectorRegistry(), alive=list, ready=lambda: watches.problems(STALE_AFTER), refresh=lambda: None
    )
    port = await server.start("127.0.0.1", 0)

    async def ask() -> tuple[int, list[str]]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/readyz") as reply:
            return reply.status, (await reply.text()).splitlines()

    yield ask
    await server.close()


def of(watches: Watches, plural: str) -> Informer[Any]:
    return next(informer for informer in watches if informer.resource.plural == plural)


async def test_ready_while_all_watches_are_heard(readyz: Callable[[], Any]):
    assert await readyz() == (200, ["ok"])


async def test_watch_that_has_been_silent_for_long_is_named_with_its_last_error(
    watches: Watches, readyz: Callable[[], Any]
):
    nodes = of(watches, "nodes")
    nodes._alive_at -= STALE_AFTER + 5
    nodes.last_error = "0 Timeout: nothing for 60 s"

    assert await readyz() == (503, ["nodes: nothing heard for 95 s (0 Timeout: nothing for 60 s)"])


async def test_kind_that_is_gone_is_named_at_once_with_what_to_do(watches: Watches, readyz: Callable[[], Any]):
    of(watches, "gpuqueues").is_served = False

    status, lines = await readyz()

    assert status == 503
    remedy = "helm upgrade makes its CRD again, or kubectl apply -f crds/"
    assert lines == [f"gpuqueues: the API server does not know this kind; {remedy}"]


async def test_list_that_was_never_taken_is_named(watches: Watches, readyz: Callable[[], Any]):
    of(watches, "pods")._synced.clear()

    assert await readyz() == (503, ["pods: not listed yet (in progress)"])


async def test_kind_that_is_watched_by_several_labels_is_named_once(watches: Watches, readyz: Callable[[], Any]):
    for informer in watches.services:
        informer._synced.clear()

    assert await readyz() == (503, ["services: not listed yet (in progress)"])

"""What probes and Prometheus ask for, over HTTP: /livez, /readyz, /metrics."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Problems = Callable[[], list[str]]


class HealthServer:
    """Serves the answers of two callables and a registry until closed; `refresh` runs before each scrape."""

    def __init__(
        self, registry: CollectorRegistry, *, alive: Problems, ready: Problems, refresh: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._refresh = refresh
        app = web.Application()
        app.router.add_get("/livez", _probe(alive))
        app.router.add_get("/readyz", _probe(ready))
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port, which the system chooses for 0."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, address, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        self._refresh()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _probe(problems: Problems) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        if found := problems():
            return web.Response(status=503, text="\n".join(found) + "\n")
        return web.Response(text="ok\n")

    return answer

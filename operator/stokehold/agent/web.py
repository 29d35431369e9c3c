"""`/metrics` and `/healthz` of the agent. A GPU in trouble never makes the agent unhealthy."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from stokehold.agent.node_state import NodeState
from stokehold.agent.readings import Missing


async def serve(address: str, registry: CollectorRegistry, state: Callable[[], NodeState]) -> web.AppRunner:
    """The running server; clean it up when done."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def healthz(_: web.Request) -> web.Response:
        # 200 whatever the driver does: restarting the agent has never healed a driver.
        return web.json_response({"status": "ok", "degraded": _troubles(state())})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = address.rpartition(":")
    await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
    return runner


def _troubles(state: NodeState) -> list[str]:
    troubles = [state.look.error] if state.look.error else []
    if isinstance(state.ownership, Missing):
        troubles.append(state.ownership.evidence)
    return troubles

"""Jupyter servers that hang, flood, redirect, refuse, have a wrong clock: no idleness by mistake, nobody else waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from kit.workspaces import a_workspace
from stokehold.cluster import notebooks
from stokehold.cluster.notebooks import LARGEST_ANSWER, NotebookProber
from stokehold.model.snapshot import Notebook

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Servers:
    """Servers on loopback, each a workspace's; `ask` gives what the prober says of them, in their order."""

    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []
        self.ports: list[int] = []
        self.prober = NotebookProber({}, lambda: NOW, "http://127.0.0.1:{port}")

    async def add(self, handler: Handler) -> int:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        self.ports.append(port)
        return port

    async def ask(self) -> list[Notebook]:
        workspaces = [
            a_workspace(f"ws-{port}", idle={"signals": {"jupyter": {"port": port}}}, env=[]) for port in self.ports
        ]
        return await self.prober.round(workspaces)

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    made = Servers()
    yield made
    await made.close()


def jupyter(*, state: str = "idle", active: str | None = None, date: datetime = NOW) -> Handler:
    """A server with one kernel, last active an hour ago by the server's clock, which `date` tells."""

    async def answer(request: web.Request) -> web.StreamResponse:
        at = active or (date - HOUR).isoformat()
        kernel = {"execution_state": state, "last_activity": at, "connections": 1}
        bodies = {"kernels": [kernel], "terminals": [], "status": {"started": (date - 5 * HOUR).isoformat()}}
        body = bodies[request.path.rsplit("/", 1)[-1]]
        return web.json_response(body, headers={"Date": format_datetime(date, usegmt=True)})

    return answer


async def test_a_server_that_answers_is_believed(servers: Servers):
    await servers.add(jupyter())
    await servers.add(jupyter(state="busy"))
    await servers.add(jupyter(state="a state of some later release"))

    idle, busy, unheard_of = await servers.ask()

    assert (idle.error, idle.busy_kernels, idle.last_activity, idle.time) == ("", 0, NOW - HOUR, NOW)
    assert busy.busy_kernels == unheard_of.busy_kernels == 1


@pytest.mark.parametrize("off", [timedelta(hours=3), timedelta(hours=-3)])
async def test_a_wrong_clock_is_taken_out_of_the_times(servers: Servers, off: timedelta):
    await servers.add(jupyter(date=NOW + off))

    (answer,) = await servers.ask()

    assert answer.last_activity is not None
    assert abs(answer.last_activity - (NOW - HOUR)) <= timedelta(seconds=2)


@pytest.mark.parametrize("written", ["2026-01-01T11:00:00Z", "2026-01-01T13:00:00+02:00", "2026-01-01T11:00:00"])
async def test_times_of_other_zones_and_of_none_are_the_same_moment(servers: Servers, written: str):
    await servers.add(jupyter(active=written))

    (answer,) = await servers.ask()

    assert answer.last_activity == NOW - HOUR


async def html(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>log in</html>", content_type="text/html")


async def other_json(_: web.Request) -> web.StreamResponse:
    return web.json_response({"kernels": "many"})


async def refuses(_: web.Request) -> web.StreamResponse:
    return web.Response(status=403)


async def not_there(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def broken(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(2 * LARGEST_ANSWER // 2**16):
        await response.write(b"[" * 2**16)
    return response


async def nests(_: web.Request) -> web.StreamResponse:
    text = '[{"last_activity": "2026-01-01T11:00:00Z", "more": ' + "[" * (LARGEST_ANSWER // 2)
    return web.Response(text=text, content_type="application/json")


def tells_its_time(date: str, active: str = "0001-01-01T00:00:00Z") -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        bodies = {"kernels": [{"last_activity": active}], "terminals": [], "status": {"started": active}}
        return web.json_response(bodies[request.path.rsplit("/", 1)[-1]], headers={"Date": date})

    return answer


async def packs_a_bomb(request: web.Request) -> web.StreamResponse:
    response = web.Response(body=b" " * 40 * LARGEST_ANSWER + b"[]", content_type="application/json")
    response.enable_compression(web.ContentCoding.gzip)
    return response


USELESS: dict[str, tuple[Handler, str]] = {
    "HTML": (html, "/api/kernels gave text/html that no Jupyter server gives"),
    "other JSON": (other_json, "/api/kernels gave application/json that no Jupyter server gives"),
    "refuses": (refuses, "it refuses (403); set JUPYTER_TOKEN in spec.env to its token"),
    "not there": (not_there, "/api/kernels is not there; is it a Jupyter server?"),
    "broken": (broken, "/api/kernels answered 500"),
    "hangs up": (hangs_up, "Server disconnected"),
    "floods": (floods, f"the answer is longer than {LARGEST_ANSWER} bytes"),
    "packs a bomb": (packs_a_bomb, f"the answer is longer than {LARGEST_ANSWER} bytes"),
    "nests": (nests, "its answer makes no sense: maximum recursion depth exceeded"),
    "no time": (tells_its_time(""), "it does not tell its time"),
    "no such time": (tells_its_time("Thu, 31 Dec 2026 23:59:59 +99999999999999999999"), "it does not tell its time"),
    "the end of time": (tells_its_time("Fri, 31 Dec 9999 23:59:59 GMT"), "its answer makes no sense: date value"),
}


@pytest.mark.parametrize("case", USELESS)
async def test_no_usable_answer_is_no_knowledge_and_says_why(servers: Servers, case: str):
    handler, said = USELESS[case]
    await servers.add(handler)
    await servers.add(jupyter())

    strange, good = await servers.ask()

    assert strange.error.startswith(f"the Jupyter server at http://127.0.0.1:{servers.ports[0]}: ")
    assert said in strange.error
    assert (strange.last_activity, strange.kernels) == (None, 0)
    assert good.error == ""


async def test_a_redirect_is_not_followed(servers: Servers):
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response([])

    port = await servers.add(elsewhere)

    async def redirects(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"http://127.0.0.1:{port}/api/kernels")

    servers.ports.clear()
    await servers.add(redirects)

    (answer,) = await servers.ask()

    assert "answered 302: it sends us elsewhere" in answer.error
    assert asked == []


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def test_servers_that_hang_cost_one_deadline_and_only_themselves(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(notebooks, "DEADLINE_SECONDS", 1.0)
    for handler in (hangs, hangs, hangs, jupyter()):
        await servers.add(handler)
    began = time.monotonic()

    *hanging, good = await servers.ask()

    assert time.monotonic() - began < 2.9  # in turn they would take 3 s
    assert good.error == ""
    assert all("it did not answer in 1 s" in answer.error for answer in hanging)


async def test_who_gave_no_answer_the_last_time_is_asked_last(servers: Servers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notebooks, "DEADLINE_SECONDS", 0.2)
    servers.prober = NotebookProber({}, lambda: NOW, "http://127.0.0.1:{port}", at_once=1)
    asked: list[int] = []

    def noting(number: int, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            asked.append(number)
            return await handler(request)

        return answer

    await servers.add(noting(1, hangs))
    await servers.add(noting(2, broken))
    await servers.add(noting(3, jupyter()))

    await servers.ask()
    await servers.ask()

    assert [*dict.fromkeys(asked[:5])] == [1, 2, 3]
    assert [*dict.fromkeys(asked[5:])] == [3, 1, 2]

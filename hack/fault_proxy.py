"""A TLS proxy between one client and the API server of a local cluster; it delays, holds, refuses and cuts at will.

Tests put it before an operator, never before the cluster's own servers. A request that is held outlives its
client: it reaches the API server when the test lets it through, as a packet that a network kept for a while.
It listens on loopback, in a thread of its own, and knows as little as it can: paths, and the names in bodies.
"""

import asyncio
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from hack.cluster import LocalCluster

T = TypeVar("T")

WRITES = ("POST", "PUT", "PATCH", "DELETE")
START_SECONDS = 10.0
_PATH = re.compile(
    r"/api(?:s/(?P<group>[^/]+))?/[^/]+(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?"
)
# Of one connection, not of the message; the length is counted anew.
_HOP_BY_HOP = frozenset({"connection", "host", "transfer-encoding", "content-length", "keep-alive"})


@dataclass(slots=True)
class Call:
    """One request as it came; `status` is the API server's answer, 0 while there is none."""

    method: str
    resource: str
    name: str
    is_watch: bool
    received_at: float
    """Seconds of `time.monotonic`."""
    namespace: str = ""
    status: int = 0
    body: bytes = b""

    @property
    def is_write(self) -> bool:
        """Whether it would change something."""
        return self.method in WRITES


Matches = Callable[[Call], bool]


def renewals(call: Call) -> bool:
    """All that a candidate asks about its Lease."""
    return call.resource == "leases"


def writes(call: Call) -> bool:
    """Every write but those of the Lease."""
    return call.is_write and not renewals(call)


@dataclass(slots=True, eq=False)
class Fault:
    """What happens to the calls that match, until it is over; `caught` lists them."""

    matches: Matches
    refuse_with: int = 0
    """Answer this status; 0 keeps the call until the fault is over, and forwards it then."""
    caught: list[Call] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def statuses(self) -> list[int]:
        """What the API server said to the calls that it got in the end; 0 for those without an answer yet."""
        return [call.status for call in self.caught]


class FaultProxy:
    """A proxy to a cluster's API server, for one client."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self.calls: list[Call] = []
        self.url = ""
        self._cluster = cluster
        self._name = name
        self._faults: list[Fault] = []
        self._streams: set[asyncio.BaseTransport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {name}", daemon=True)
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    @classmethod
    def start(cls, cluster: LocalCluster, name: str) -> Self:
        """Listen on a free port of the loopback."""
        proxy = cls(cluster, name)
        proxy._thread.start()
        proxy._do(proxy._start())
        return proxy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def kubeconfig(self, direct: Path) -> Path:
        """A copy of a kubeconfig of this cluster that leads through the proxy."""
        path = self._cluster.layout.kubeconfig(f"through-{self._name}")
        path.write_text(direct.read_text().replace(self._cluster.url, self.url))
        return path

    def hold(self, matches: Matches) -> Fault:
        """Keep matching calls until `end`; then they go on, whether or not anybody still waits for the answer."""
        return self._add(Fault(matches))

    def refuse(self, matches: Matches, status: int) -> Fault:
        """Answer matching calls with this status until `end`; the API server never sees them."""
        return self._add(Fault(matches, refuse_with=status))

    def end(self, fault: Fault) -> None:
        """The fault is over."""

        async def over() -> None:
            self._faults.remove(fault)
            fault.over.set()

        self._do(over())

    def cut_watches(self) -> None:
        """Break every open watch, as a load balancer that restarts."""

        async def cut() -> None:
            for transport in self._streams:
                transport.close()

        self._do(cut())

    def writes_since(self, moment: float) -> list[Call]:
        """The writes, those of the Lease aside, that came after this `time.monotonic`."""
        return [call for call in self.calls if writes(call) and call.received_at > moment]

    def stop(self) -> None:
        """Forward what is held, then listen no more."""
        for fault in list(self._faults):
            self.end(fault)
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)
        self._loop.close()

    def _add(self, fault: Fault) -> Fault:
        async def add() -> Fault:
            self._faults.append(fault)
            return fault

        return self._do(add())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    async def _start(self) -> None:
        layout = self._cluster.layout
        files = layout.authority().server(layout.pki, f"proxy-{self._name}")
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(files.certificate, files.key)
        asking = ssl.create_default_context(cafile=str(layout.ca_file))
        connector = aiohttp.TCPConnector(ssl=asking, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=_NO_TIMEOUT)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=serving).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        for transport in self._streams:
            transport.close()
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()
        unfinished = asyncio.all_tasks() - {asyncio.current_task()}
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = _read(request, body)
        self.calls.append(call)
        fault = next((fault for fault in self._faults if fault.matches(call)), None)
        if fault is not None:
            fault.caught.append(call)
            if fault.refuse_with:
                return _refusal(fault.refuse_with)
            await fault.over.wait()
        return await self._forward(request, body, call)

    async def _forward(self, request: web.Request, body: bytes, call: Call) -> web.StreamResponse:
        assert self._session is not None  # noqa: S101 - it is there before the first request
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        target = self._cluster.url + request.raw_path
        try:
            async with self._session.request(
                request.method, target, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                call.status = answer.status
                return await self._pass_on(request, answer, call)
        except (aiohttp.ClientError, OSError):
            _break(request)  # what the client of a server that is gone would see
            return web.Response(status=502)

    async def _pass_on(self, request: web.Request, answer: aiohttp.ClientResponse, call: Call) -> web.StreamResponse:
        reply = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                reply.headers.add(name, value)
        await reply.prepare(request)
        transport = request.transport
        if call.is_watch and transport is not None:
            self._streams.add(transport)
        try:
            async for chunk in answer.content.iter_any():
                await reply.write(chunk)
            await reply.write_eof()
        finally:
            if transport is not None:
                self._streams.discard(transport)
        return reply


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)


def _read(request: web.Request, body: bytes) -> Call:
    found = _PATH.match(request.path)
    parts = found.groupdict() if found else {}
    resource = "/".join(part for part in (parts.get("resource"), parts.get("subresource")) if part)
    name = parts.get("name") or ""
    if request.method == "POST" and not name and body:
        name = json.loads(body).get("metadata", {}).get("name", "")
    is_watch = request.query.get("watch") == "true"
    return Call(request.method, resource, name, is_watch, time.monotonic(), parts.get("namespace") or "", body=body)


def _refusal(status: int) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "refused by a test", "code": status}
    return web.json_response(body, status=status, headers={"Retry-After": "1"} if status == 429 else {})


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()

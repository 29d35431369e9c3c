"""An API server that fails on demand: what a real one cannot be made to show when a test wants it.

It keeps objects of any kind with growing versions and a log of events, serves lists in pages and
watches, and lets a test queue faults per verb. Everything else is tested against a real control plane.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from stokehold.cluster.client import KubeApi
from stokehold.cluster.connection import Connection
from stokehold.cluster.limiter import TokenBucket
from stokehold.cluster.transport import Transport

Object = dict[str, Any]
Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """A request that reached the server."""

    verb: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str] = field(repr=False)


class FakeApi:
    def __init__(self) -> None:
        self.version = 1000
        self.bookmark_seconds = 60.0
        self.page_tokens_expire = 0
        self.asked: list[Asked] = []
        self.url = ""
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = defaultdict(dict)
        self._log: list[tuple[int, str, str, Object]] = []
        self._oldest = 0
        self._news = asyncio.Condition()

    # What a test does to the cluster.

    async def put(self, plural: str, obj: Object, *, version: int | None = None) -> Object:
        """Create or change an object, as another client would."""
        self.version = version or self.version + 1
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        held = self._objects[plural].get(key)
        meta = {"uid": f"uid-{meta['name']}-{self.version}", **(held or {}).get("metadata", {}), **meta}
        stored = obj | {"metadata": meta | {"resourceVersion": str(self.version)}}
        self._objects[plural][key] = stored
        await self._publish(plural, "MODIFIED" if held else "ADDED", stored)
        return stored

    async def remove(self, plural: str, name: str, namespace: str = "") -> None:
        self.version += 1
        gone = self._objects[plural].pop((namespace, name))
        gone = gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self.version)}}
        await self._publish(plural, "DELETED", gone)

    def compact(self) -> None:
        """Forget all history: watches from before now are told 410."""
        self._oldest = self.version
        self._log.clear()

    def restore_backup(self, version: int, *lost: tuple[str, str, str]) -> None:
        """Go back to an earlier state: these (plural, namespace, name) never were."""
        self.version = self._oldest = version
        self._log.clear()
        for plural, namespace, name in lost:
            del self._objects[plural][namespace, name]

    def held(self, plural: str) -> dict[tuple[str, str], Object]:
        """The truth that a client should end up with."""
        return dict(self._objects[plural])

    def fail_next(self, verb: str, *faults: Fault) -> None:
        """Answer the next requests of that verb with these faults, one each."""
        self._faults[verb].extend(faults)

    def count(self, verb: str) -> int:
        return sum(asked.verb == verb for asked in self.asked)

    async def _publish(self, plural: str, kind: str, obj: Object) -> None:
        async with self._news:
            self._log.append((self.version, plural, kind, obj))
            self._news.notify_all()

    # What a client sees.

    async def handle(self, request: web.Request) -> web.StreamResponse:
        verb = _verb(request)
        raw = await request.read()
        body = json.loads(raw) if raw else None
        self.asked.append(Asked(verb, request.path, dict(request.query), body, dict(request.headers)))
        if self._faults[verb]:
            return await self._faults[verb].popleft()(request)
        plural, namespace, name = _target(request.path)
        match verb:
            case "watch":
                return await self._watch(request, plural)
            case "list":
                return self._list(request, plural, namespace)
            case "create":
                return await self._create(plural, namespace, body)
        if (namespace, name) not in self._objects[plural]:
            return status(404, "NotFound")
        return await self._one(verb, plural, (namespace, name), body)

    async def _create(self, plural: str, namespace: str, body: Object) -> web.StreamResponse:
        body["metadata"].setdefault("namespace", namespace)
        if (namespace, body["metadata"]["name"]) in self._objects[plural]:
            return status(409, "AlreadyExists")
        return web.json_response(await self.put(plural, body), status=201)

    async def _one(self, verb: str, plural: str, key: tuple[str, str], body: Object) -> web.StreamResponse:
        held = self._objects[plural][key]
        if verb == "get":
            return web.json_response(held)
        if verb == "delete":
            await self.remove(plural, key[1], key[0])
            return web.json_response({"kind": "Status", "status": "Success"})
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != held["metadata"]["resourceVersion"]:
            return status(409, "Conflict")
        return web.json_response(await self.put(plural, held | body | {"metadata": held["metadata"]}))

    def _list(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        start, version = 0, self.version
        if token := request.query.get("continue"):
            if self.page_tokens_expire:
                self.page_tokens_expire -= 1
                return status(410, "Expired")
            start, version = (int(part) for part in token.split("."))
        everything = [obj for (where, _), obj in sorted(self._objects[plural].items()) if namespace in ("", where)]
        end = start + int(request.query.get("limit", len(everything) or 1))
        metadata = {"resourceVersion": str(version)}
        if end < len(everything):
            metadata["continue"] = f"{end}.{version}"
        return web.json_response({"metadata": metadata, "items": everything[start:end]})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        stream = web.StreamResponse()
        await stream.prepare(request)
        if since < self._oldest:
            await stream.write(line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}))
            return stream
        while True:
            fresh = [(v, kind, obj) for v, p, kind, obj in self._log if p == plural and v > since]
            for version, kind, obj in fresh:
                await stream.write(line(kind, obj))
                since = version
            try:
                async with asyncio.timeout(self.bookmark_seconds), self._news:
                    await self._news.wait()
            except TimeoutError:
                since = self.version
                await stream.write(line("BOOKMARK", {"metadata": {"resourceVersion": str(since)}}))


def line(kind: str, obj: Object) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def status(code: int, reason: str = "", headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"told to say {code}"}
    return web.json_response(body, status=code, headers=headers)


def answer(code: int, reason: str = "", **headers: str) -> Fault:
    """A fault: refuse; keyword `Retry_After="1"` becomes the header."""

    async def fault(request: web.Request) -> web.StreamResponse:
        return status(code, reason, {key.replace("_", "-"): value for key, value in headers.items()})

    return fault


def html(code: int) -> Fault:
    """A fault: a proxy answers instead of the API server."""

    async def fault(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>told to", status=code, content_type="text/html")

    return fault


async def drop(request: web.Request) -> web.StreamResponse:
    """A fault: the connection breaks before any answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def send(*chunks: bytes, then: str = "end") -> Fault:
    """A fault: a stream of these bytes, which then ends, `drop`s or `hang`s."""

    async def fault(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        for chunk in chunks:
            await stream.write(chunk)
        if then == "drop":
            await asyncio.sleep(0.02)  # let what was written leave first
            return await drop(request)
        if then == "hang":
            await asyncio.sleep(3600)
        return stream

    return fault


async def hang(request: web.Request) -> web.StreamResponse:
    """A fault: accepted, never answered."""
    await asyncio.sleep(3600)
    return web.Response()


def _verb(request: web.Request) -> str:
    _, _, name = _target(request.path)
    match request.method:
        case "GET" if request.query.get("watch"):
            return "watch"
        case "GET":
            return "get" if name else "list"
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[request.method]


def _target(path: str) -> tuple[str, str, str]:
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    return parts[0], namespace, parts[1] if len(parts) > 1 else ""


@asynccontextmanager
async def serving() -> AsyncIterator[FakeApi]:
    """A fake server on loopback."""
    fake = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def write_kubeconfig(path: Path, url: str, user: Object | None = None) -> str:
    """A kubeconfig for `url`; its name."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": user or {"token": "secret"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@asynccontextmanager
async def client(fake: FakeApi, kubeconfig: Path, **settings: Any) -> AsyncIterator[KubeApi]:
    """A KubeApi on the fake server whose pauses take no time."""
    path = write_kubeconfig(kubeconfig, fake.url, settings.pop("user", None))
    transport = Transport(await Connection.load(path), TokenBucket(1e6, 1000), **{"sleep": no_sleep} | settings)
    api = KubeApi(transport)
    try:
        yield api
    finally:
        await api.close()


async def no_sleep(seconds: float) -> None:
    """For the client's pauses, which only their length makes interesting."""
    await asyncio.sleep(0)

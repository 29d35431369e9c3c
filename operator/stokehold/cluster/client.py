"""The only client of the event loop: verbs on resources, dicts in and out. It knows no kind.

How a request behaves (deadlines, retries, credentials) is `transport`'s; what the errors mean is
written in `errors`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import Enum
from typing import Any

import msgspec

from stokehold.cluster.connection import Connection
from stokehold.cluster.errors import UnavailableError
from stokehold.cluster.limiter import TokenBucket
from stokehold.cluster.nesting import decode
from stokehold.cluster.resources import Resource
from stokehold.cluster.transport import (
    REQUEST_TIMEOUT_SECONDS,
    DateObserver,
    Request,
    RequestObserver,
    Transport,
    ignore_dates,
    ignore_requests,
)

# A disruption budget also answers 429; whoever evicts must hear of it at once.
EVICTION = "eviction"
# Bookmarks come about each minute, so a longer silence is a dead connection.
WATCH_IDLE_SECONDS = 75.0

Object = dict[str, Any]


class PatchKind(Enum):
    """How the server is to read a patch's body; the value is its content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"
    STRATEGIC = "application/strategic-merge-patch+json"  # built-in kinds only


def pointer(*steps: str) -> str:
    """The path of a JSON patch; keys of labels and annotations have slashes."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


class KubeApi:
    """One API server; close it when done."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    async def connect(  # noqa: PLR0913 - settings, each with a default
        cls,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        qps: float = 200,
        burst: int = 400,
        user_agent: str = "stokehold",
        observe: RequestObserver = ignore_requests,
        observe_date: DateObserver = ignore_dates,
        request_timeout: float = REQUEST_TIMEOUT_SECONDS,
    ) -> KubeApi:
        """A client for the cluster of `kubeconfig`, or of the environment; sends nothing yet."""
        transport = Transport(
            await Connection.load(kubeconfig, context),
            TokenBucket(qps, burst),
            user_agent=user_agent,
            observe=observe,
            observe_date=observe_date,
            request_timeout=request_timeout,
        )
        return cls(transport)

    def guard_writes(self, check: Callable[[], None]) -> None:
        """Call `check` right before anything that may change the cluster is sent; what it raises ends the call."""
        self._transport.guard_writes(check)

    async def close(self) -> None:
        """Close all connections, watches included."""
        await self._transport.close()

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object:
        """The object as the server holds it now."""
        path = resource.path(namespace, name, subresource)
        return await self._send(Request("get", resource.plural, "GET", path))

    async def create(  # noqa: PLR0913 - the API's own parameters
        self,
        resource: Resource,
        body: Object,
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
        field_manager: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Create the object; `name` with `subresource` is for bindings, evictions and tokens."""
        request = Request(
            "create",
            resource.plural,
            "POST",
            resource.path(namespace, name, subresource),
            _write_query(field_manager, dry_run=dry_run),
            msgspec.json.encode(body),
            honours_retry_after=subresource != EVICTION,
        )
        return await self._send(request)

    async def patch(  # noqa: PLR0913 - the API's own parameters
        self,
        resource: Resource,
        name: str,
        body: Object | list[Object],
        *,
        namespace: str | None = None,
        kind: PatchKind,
        subresource: str | None = None,
        field_manager: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> Object:
        """Patch the object; APPLY needs `field_manager`, and creates what does not exist."""
        applies = kind is PatchKind.APPLY
        if applies and not field_manager:
            raise ValueError("server-side apply needs a field manager")
        query = _write_query(field_manager, dry_run=dry_run)
        if applies and force:
            query["force"] = "true"
        request = Request(
            "apply" if applies else "patch",
            resource.plural,
            "PATCH",
            resource.path(namespace, name, subresource),
            query,
            msgspec.json.encode(body),
            kind.value,
        )
        return await self._send(request)

    async def replace(
        self,
        resource: Resource,
        name: str,
        body: Object,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        field_manager: str | None = None,
    ) -> Object:
        """Replace the object; the body's resourceVersion is the precondition."""
        request = Request(
            "update",
            resource.plural,
            "PUT",
            resource.path(namespace, name, subresource),
            _write_query(field_manager),
            msgspec.json.encode(body),
        )
        return await self._send(request)

    async def delete(  # noqa: PLR0913 - the API's own parameters
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
        propagation: str | None = None,
    ) -> Object:
        """Delete under preconditions; the reply is the object, if it lingers, or a Status."""
        preconditions = _present({"uid": uid, "resourceVersion": resource_version})
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": preconditions or None,
            "gracePeriodSeconds": grace_seconds,
            "propagationPolicy": propagation,
        }
        path = resource.path(namespace, name)
        body = msgspec.json.encode(_present(options))
        return await self._send(Request("delete", resource.plural, "DELETE", path, {}, body))

    async def list_page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = 500,
        continue_token: str | None = None,
    ) -> bytes:
        """One page of a consistent list, undecoded; GoneError when `continue_token` has expired."""
        query = _selectors(label_selector, field_selector)
        if limit is not None:
            query["limit"] = str(limit)
        if continue_token:
            query["continue"] = continue_token
        path = resource.path(namespace)
        return await self._transport.send(Request("list", resource.plural, "GET", path, query))

    async def watch(  # noqa: PLR0913 - the API's own parameters
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
        idle_seconds: float = WATCH_IDLE_SECONDS,
    ) -> AsyncGenerator[bytes, None]:
        """Events after `resource_version`, one JSON line each, until the server ends the watch.

        One try: whoever watches decides how to go on. UnavailableError also means that nothing at
        all came within `idle_seconds`. In-stream ERROR events are lines like others. Close it
        (contextlib.aclosing) when leaving early.
        """
        query = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        request = Request("watch", resource.plural, "GET", resource.path(namespace), query)
        async with aclosing(self._transport.stream(request, idle_seconds=idle_seconds)) as lines:
            async for line in lines:
                yield line

    async def _send(self, request: Request) -> Object:
        body = await self._transport.send(request)
        try:
            decoded: Object = decode(body, dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnavailableError(0, "Garbled", f"{error}: {body[:80]!r}") from error
        return decoded


def _write_query(field_manager: str | None, *, dry_run: bool = False) -> dict[str, str]:
    return _present({"fieldManager": field_manager, "dryRun": "All" if dry_run else None})


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    return _present({"labelSelector": label_selector, "fieldSelector": field_selector})


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}

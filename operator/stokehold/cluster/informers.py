"""List, then watch one resource, for ever: the only cache of cluster state.

What the values mean, and which indexes hang on them, belongs to the snapshots; which version of an
object wins is `store`'s.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from stokehold.cluster import errors
from stokehold.cluster.client import WATCH_IDLE_SECONDS, KubeApi
from stokehold.cluster.errors import ApiError, GoneError, NotFoundError, TooManyRequestsError, UnavailableError
from stokehold.cluster.nesting import decode
from stokehold.cluster.resources import Resource
from stokehold.cluster.store import Arrival, Broken, Key, Listener, Store, describe, key_of
from stokehold.cluster.watching import (
    Bookmark,
    Identity,
    ListPage,
    OnlyMetadata,
    WatchLine,
    Wire,
)

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
W = TypeVar("W", bound=Wire)

# (plural of the resource, what): "event", "broken", "list", "reconnect", "stall"
Recorder = Callable[[str, str], None]
_MAX_PAGES = 10_000
_MAX_RETRY_AFTER_SECONDS = 30.0
_SHORT_BREAK_SECONDS = 5.0
"""A watch that is back after so long has missed nothing that others had time for; longer, and it was an outage."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient an informer is; the defaults suit a real API server."""

    page_size: int = 500
    watch_seconds: int = 300
    idle_seconds: float = WATCH_IDLE_SECONDS
    first_backoff_seconds: float = 0.2
    last_backoff_seconds: float = 10.0
    # So many refused watches in a row, and our resourceVersion is suspect (an etcd restored from a
    # backup answers 504 to versions of its future).
    refusals_before_relist: int = 5


def ignore_signals(resource: str, what: str) -> None:
    """The recorder for those who do not count."""


class Informer(Generic[T]):
    """Values of one resource by (namespace, name), as fresh as the watch.

    `wire` is a msgspec.Struct with a `metadata` and just the fields that `convert` needs; `convert`
    returns None for objects that nobody wants. An object that either cannot read is listed in
    `broken` and keeps its last readable value.
    """

    def __init__(  # noqa: PLR0913 - collaborators, each with a default
        self,
        api: KubeApi,
        resource: Resource,
        *,
        wire: type[W],
        convert: Callable[[W], T | None],
        listener: Listener[T],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        pace: Pace = Pace(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        record: Recorder = ignore_signals,
    ) -> None:
        self.resource = resource
        self.last_error: str | None = None
        self.is_served = True
        """Whether the API server knows the resource; a CRD may be deleted at any time."""
        self._api = api
        self._wire: type[Any] = wire
        self._convert: Callable[[Any], T | None] = convert
        self._scope = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
        }
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._record = record
        self._store = Store(listener)
        self._objects: msgspec.json.Decoder[Any] = msgspec.json.Decoder(wire)
        self._identities = msgspec.json.Decoder(OnlyMetadata)
        self._alive_at = self._steady_since = clock()
        self._lost_at: float | None = None  # since when nothing has come through
        self._synced = asyncio.Event()
        self._failures = 0
        self._refusals = 0  # failures that the server answered, a subset

    @property
    def synced(self) -> bool:
        """Whether a complete list has been taken."""
        return self._synced.is_set()

    @property
    def is_current(self) -> bool:
        """Whether what is missing here is missing: a list was taken, the kind is served, the watch not interrupted."""
        return self.synced and self.is_served and self.last_error is None

    async def wait_synced(self) -> None:
        """Return after the first complete list."""
        await self._synced.wait()

    @property
    def broken(self) -> Mapping[Key, Broken]:
        """Why objects could not be read or indexed, by key; live."""
        return self._store.broken

    def items(self) -> Mapping[Key, T]:
        """What is held now; a live, read-only view."""
        return self._store.items

    def age_seconds(self) -> float:
        """Seconds since the server last said anything: an event, a bookmark or a page of a list."""
        return self._clock() - self._alive_at

    def steady_seconds(self) -> float:
        """Seconds since the first list, or since the last outage: for so long the API server served others, too."""
        return self._clock() - self._steady_since

    def observe_write(self, obj: dict[str, Any]) -> None:
        """Take in the server's reply to our own write, so that the next cycle plans with it.

        Replies that are not objects (a Status) and older versions change nothing. All that is written of the resource
        comes here: with a selector, `convert` must give None for what does not match it, or such are never written.
        """
        metadata = obj.get("metadata", {})
        if not metadata.get("uid") or not metadata.get("resourceVersion"):
            return
        try:
            wire = msgspec.convert(obj, self._wire)
            arrival = _arrival(wire.metadata, self._convert(wire))
        except Exception as error:  # noqa: BLE001 - the write itself has succeeded
            arrival = self._failed(msgspec.convert(obj, OnlyMetadata).metadata, error)
        self._store.observe_write(arrival)

    async def run(self) -> NoReturn:
        """Keep the cache fresh until cancelled; whatever the server does is retried with backoff."""
        must_list = True
        while True:
            try:
                if must_list:
                    await self._list()
                    must_list, self._refusals = False, 0
                await self._watch()
                continue
            except GoneError as error:
                failure: ApiError = error
                must_list = True
            except ApiError as error:
                failure = error
                self.is_served = not isinstance(error, NotFoundError)
                self._refusals += error.status != 0
                must_list = must_list or self._refusals >= self._pace.refusals_before_relist
            await self._back_off(failure)

    async def _list(self) -> None:
        """Take a complete list; its pages expire together, so an expired one starts it afresh."""
        self._record(self.resource.plural, "list")
        for limit in (self._pace.page_size, 4 * self._pace.page_size, None):
            try:
                arrivals, version = await self._pages(limit)
            except GoneError:
                if limit is None:
                    raise
                continue  # the last try, one page without limit, cannot expire
            self._store.take_list(arrivals, version)
            self._note_alive(is_new=not self.synced)
            self._synced.set()
            return

    async def _pages(self, limit: int | None) -> tuple[list[Arrival[T]], int]:
        arrivals: list[Arrival[T]] = []
        version, token = None, None
        for _ in range(_MAX_PAGES):
            body = await self._api.list_page(self.resource, limit=limit, continue_token=token, **self._scope)
            page = _decode(body, ListPage)
            self._alive_at = self._clock()
            version = version or _version(page.metadata.resource_version)
            arrivals += [self._read(item) for item in page.items or ()]
            token = page.metadata.token
            if not token:
                return arrivals, version
        raise UnavailableError(0, "Garbled", f"a list of more than {_MAX_PAGES} pages")

    async def _watch(self) -> None:
        """Take events until the server ends the watch; it must have lived to count as a success."""
        started = self._clock()
        seconds = int(self._pace.watch_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
        events = self._api.watch(
            self.resource,
            resource_version=self._store.stream_version,
            timeout_seconds=seconds,
            idle_seconds=self._pace.idle_seconds,
            **self._scope,
        )
        async with aclosing(events):
            async for line in events:
                self._take_line(line)
                self._failures = self._refusals = 0
        if self._clock() - started < self._pace.first_backoff_seconds:
            raise UnavailableError(0, "ShortWatch", "the server ended the watch at once")

    def _take_line(self, line: bytes) -> None:
        event = _decode(line, WatchLine)
        match event.type:
            case "ADDED" | "MODIFIED":
                self._take_object(event.object)
            case "DELETED":
                gone = _decode(event.object, OnlyMetadata).metadata
                version = _version(gone.resource_version)
                self._store.take_deletion(key_of(gone), gone.uid, version)
            case "BOOKMARK":
                bookmark = _decode(event.object, Bookmark)
                self._store.advance(_version(bookmark.metadata.resource_version))
            case "ERROR":
                raise errors.from_watch_error(bytes(event.object))
            case _:
                return  # a kind of event that this version does not know
        self._note_alive()
        self._record(self.resource.plural, "event")

    def _note_alive(self, *, is_new: bool = False) -> None:
        now = self._clock()
        if is_new or (self._lost_at is not None and now - self._lost_at > _SHORT_BREAK_SECONDS):
            self._steady_since = now
        self._alive_at, self._lost_at, self.last_error = now, None, None
        self.is_served = True

    def _take_object(self, raw: msgspec.Raw) -> None:
        """An added or changed object; one that the reply to our own write has told of is not converted again."""
        try:
            meta = self._identities.decode(raw).metadata
        except RecursionError:
            meta = _decode(raw, OnlyMetadata).metadata
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnavailableError(0, "Garbled", f"{error}: {bytes(raw)[:80]!r}") from error
        version = _version(meta.resource_version)
        if self._store.knows(key_of(meta), meta.uid, version):
            self._store.advance(version)
        else:
            self._store.take_event(self._read(raw))

    def _read(self, raw: msgspec.Raw) -> Arrival[T]:
        """An object of a list or an event; what cannot be read becomes a failure, not an error."""
        try:
            wire = self._objects.decode(raw)
            value = self._convert(wire)
        except Exception as error:  # noqa: BLE001 - one object must not end the stream
            return self._failed(_decode(raw, OnlyMetadata).metadata, error)
        return _arrival(wire.metadata, value)

    def _failed(self, metadata: Identity, error: Exception) -> Arrival[T]:
        self._record(self.resource.plural, "broken")
        return _arrival(metadata, None, describe(error))

    async def _back_off(self, failure: ApiError) -> None:
        self._failures += 1
        self.last_error = str(failure)
        stalled = failure.reason == "Timeout"
        if self._lost_at is None:
            self._lost_at = self._alive_at if stalled else self._clock()
        self._record(self.resource.plural, "stall" if stalled else "reconnect")
        ceiling = self._pace.first_backoff_seconds * 2.0 ** min(self._failures - 1, 16)
        delay = min(ceiling, self._pace.last_backoff_seconds) * random.uniform(0.5, 1.0)  # noqa: S311
        if isinstance(failure, TooManyRequestsError):
            delay = max(delay, min(failure.retry_after, _MAX_RETRY_AFTER_SECONDS))
        await self._sleep(delay)


def _arrival(metadata: Identity, value: T | None, failure: str | None = None) -> Arrival[T]:
    version = _version(metadata.resource_version)
    return Arrival(key_of(metadata), version, metadata.uid, value, failure)


def _version(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UnavailableError(0, "Garbled", f"resourceVersion {text!r}") from error


def _decode(body: bytes | msgspec.Raw, kind: type[S]) -> S:
    try:
        return decode(body, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnavailableError(0, "Garbled", f"{error}: {bytes(body)[:80]!r}") from error

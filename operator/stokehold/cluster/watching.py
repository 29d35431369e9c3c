"""The wire form of lists and watches, and how to cut a stream into events. No state, no I/O."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

import msgspec

from stokehold.cluster.errors import UnavailableError

# etcd refuses objects above 1.5 MiB; far above it, something that is no watch is talking to us.
MAX_EVENT_BYTES = 32 * 1024 * 1024


class Identity(Protocol):
    """What an informer must know of each object; the metadata of any wire form has it."""

    @property
    def name(self) -> str:
        """Unique in the namespace at any time."""

    @property
    def namespace(self) -> str:
        """Empty for a cluster-scoped object."""

    @property
    def uid(self) -> str:
        """Unique for ever."""

    @property
    def resource_version(self) -> str:
        """An integer that grows with each write to the resource."""


class Wire(Protocol):
    """A decoded object: a msgspec.Struct with the fields its reader wants, and the metadata."""

    @property
    def metadata(self) -> Identity:
        """The object's identity and version."""


class Metadata(msgspec.Struct, rename="camel"):
    """The least metadata that is an Identity."""

    name: str
    uid: str
    resource_version: str
    namespace: str = ""


class OnlyMetadata(msgspec.Struct):
    """The smallest wire form, for objects that a kind's own struct cannot decode."""

    metadata: Metadata


class ListMetadata(msgspec.Struct, rename={"resource_version": "resourceVersion", "token": "continue"}):
    """Where a list stands, and whether there is more of it."""

    resource_version: str = ""
    token: str = ""


class ListPage(msgspec.Struct):
    """One page; its items stay undecoded, so that one bad object cannot spoil the rest."""

    metadata: ListMetadata
    items: list[msgspec.Raw] | None = None


class WatchLine(msgspec.Struct):
    """One event of a watch; the object stays undecoded."""

    type: str
    object: msgspec.Raw


class _BookmarkMetadata(msgspec.Struct, rename="camel"):
    resource_version: str


class Bookmark(msgspec.Struct):
    """The object of a BOOKMARK event: nothing but how far the stream has come."""

    metadata: _BookmarkMetadata


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Lines of any length, without line ends and blanks; an unfinished last line is dropped."""
    pending: list[bytes] = []
    pending_bytes = 0
    async for chunk in chunks:
        head, newline, rest = chunk.partition(b"\n")
        pending.append(head)
        pending_bytes += len(head)
        if pending_bytes > MAX_EVENT_BYTES:
            raise UnavailableError(0, "Garbled", f"a watch event above {MAX_EVENT_BYTES} bytes")
        if not newline:
            continue
        if first := b"".join(pending).strip():
            yield first
        *lines, tail = rest.split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        pending, pending_bytes = [tail], len(tail)

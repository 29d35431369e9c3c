"""What one informer holds, and which of two versions of an object wins. No I/O, no clock.

Versions are integers of one etcd, so they order all writes to a resource. Three sources bring objects:
the watch (in order), lists, and the replies to our own writes, which may come before or long after the
watch has said the same. `_stream` is how far list and watch have come: whatever happened up to there
is known, so an unknown object of an older version has been deleted since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar

from stokehold.cluster.watching import Identity

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

# (namespace, name); the namespace of a cluster-scoped object is "".
Key = tuple[str, str]
_FAILURE_CHARACTERS = 300


class Listener(Protocol[T_contra]):
    """Hears of each change once, in the event loop, before `items()` is read by anybody else."""

    def on_upsert(self, key: Key, old: T_contra | None, new: T_contra) -> None:
        """The object is new or changed; `old` has the same uid."""

    def on_delete(self, key: Key, old: T_contra) -> None:
        """The object is gone, or another object has taken its name (an upsert follows)."""


@dataclass(slots=True)
class _Held(Generic[T]):
    version: int
    uid: str
    value: T


class Arrival(NamedTuple, Generic[T]):
    """A decoded object; `value` None means that its reader does not want it, or could not read it."""

    key: Key
    version: int
    uid: str
    value: T | None
    failure: str | None = None


class Broken(NamedTuple):
    """An object that is there and could not be read or indexed, and why, in one line."""

    uid: str
    version: int
    why: str


class Store(Generic[T]):
    """Values by key, with the rules of precedence; each change goes to the listener."""

    def __init__(self, listener: Listener[T]) -> None:
        self._listener = listener
        self._held: dict[Key, _Held[T]] = {}
        self._values: dict[Key, T] = {}
        self._broken: dict[Key, Broken] = {}
        self._stream = 0
        self.items: Mapping[Key, T] = MappingProxyType(self._values)
        self.broken: Mapping[Key, Broken] = MappingProxyType(self._broken)

    @property
    def stream_version(self) -> str:
        """The resourceVersion from which a watch goes on."""
        return str(self._stream)

    def advance(self, version: int) -> None:
        """A bookmark: nothing has happened up to here."""
        self._stream = max(self._stream, version)

    def knows(self, key: Key, uid: str, version: int) -> bool:
        """Whether this version, or a newer one, of the object is held: the reply to our own write told of it."""
        held = self._held.get(key)
        return held is not None and held.uid == uid and held.version >= version

    def take_event(self, arrival: Arrival[T]) -> None:
        """ADDED or MODIFIED."""
        self._upsert(arrival)
        self.advance(arrival.version)

    def take_deletion(self, key: Key, uid: str, version: int) -> None:
        """DELETED; a re-created object that our own write already told of stays."""
        held = self._held.get(key)
        if held and (held.uid == uid or held.version < version):
            self._remove(key)
        if held is None or held.uid == uid:
            self._broken.pop(key, None)
        self.advance(version)

    def take_list(self, arrivals: Iterable[Arrival[T]], version: int) -> None:
        """A complete list as of `version`: what it lacks is gone, unless a newer reply told of it."""
        if version < self._stream:
            self._forget_versions()  # etcd was restored from a backup: the list is the only truth
        self._stream = version
        listed = set()
        for arrival in arrivals:
            listed.add(arrival.key)
            self._upsert(arrival)
        for key in [key for key in self._broken if key not in self._held and key not in listed]:
            del self._broken[key]
        for key in [key for key in self._held if key not in listed]:
            if self._held[key].version <= version:
                self._remove(key)

    def observe_write(self, arrival: Arrival[T]) -> None:
        """The server's reply to our own write; ignored where list or watch know better."""
        if arrival.key not in self._held and arrival.version <= self._stream:
            return
        self._upsert(arrival)

    def _upsert(self, arrival: Arrival[T]) -> None:
        key = arrival.key
        held = self._held.get(key)
        if held and arrival.version <= held.version:
            return
        if held and held.uid != arrival.uid:
            self._remove(key)
            held = None
        if arrival.failure is not None:
            # The last readable state stands: a pod that we cannot read still holds its GPUs.
            self._broken[key] = Broken(arrival.uid, arrival.version, arrival.failure)
            return
        self._broken.pop(key, None)
        if arrival.value is None:
            self._remove(key)
            return
        self._held[key] = _Held(arrival.version, arrival.uid, arrival.value)
        self._values[key] = arrival.value
        try:
            self._listener.on_upsert(key, held.value if held else None, arrival.value)
        except Exception as error:  # noqa: BLE001 - one object's index entry must not end the stream
            self._broken[key] = Broken(arrival.uid, arrival.version, describe(error))

    def _remove(self, key: Key) -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        del self._values[key]
        self._broken.pop(key, None)
        try:
            self._listener.on_delete(key, held.value)
        except Exception as error:  # noqa: BLE001 - as above
            self._broken[key] = Broken(held.uid, held.version, describe(error))

    def _forget_versions(self) -> None:
        for held in self._held.values():
            held.version = 0


def key_of(metadata: Identity) -> Key:
    """The key under which an object is held."""
    return metadata.namespace, metadata.name


def describe(error: Exception) -> str:
    """One line for a person, short enough for a status or a log."""
    return f"{type(error).__name__}: {error}"[:_FAILURE_CHARACTERS]

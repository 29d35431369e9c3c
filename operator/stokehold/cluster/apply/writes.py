"""The few ways in which we write: all under one limit of calls in flight, and only while we lead.

What the server replies is shown to the informers at once, so that the next cycle plans with it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from stokehold.api.names import API_VERSION
from stokehold.cluster import manifests
from stokehold.cluster.annotations import TERM
from stokehold.cluster.client import KubeApi, PatchKind
from stokehold.cluster.errors import AlreadyExistsError, ApiError, NotFoundError
from stokehold.cluster.informers import Informer
from stokehold.cluster.manifests import Subject
from stokehold.cluster.resources import (
    DEV_WORKSPACES,
    EVENTS,
    FIELD_MANAGER,
    GPU_NODE_CLAIMS,
    GPU_NODE_POOLS,
    GPU_QUEUES,
    INFERENCE_POOLS,
    TRAINING_JOBS,
    Resource,
)
from stokehold.model.actions import Note
from stokehold.model.snapshot import OwnObject
from stokehold.observability import logs

__all__ = ["FIELD_MANAGER", "Writer", "Writes"]

T = TypeVar("T")

MOST_AT_ONCE = 32
"""Calls in flight. More only lengthens the API server's queue."""

MOST_TOLD = 10_000
"""News that are remembered, so that they are told once."""

OF_KIND = {
    "TrainingJob": TRAINING_JOBS,
    "DevWorkspace": DEV_WORKSPACES,
    "InferencePool": INFERENCE_POOLS,
    "GPUNodeClaim": GPU_NODE_CLAIMS,
    "GPUNodePool": GPU_NODE_POOLS,
    "GPUQueue": GPU_QUEUES,
}
"""The resource of each kind of ours whose status we write."""

log = logs.get("apply")


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: its name in Events, whether and where it may write, and which leader since the Lease was made."""

    identity: str
    check_leader: Callable[[], None]
    term: Callable[[], int]
    is_closed: Callable[[str], bool] = lambda _: False
    """Whether a namespace is being deleted, by name."""


class Writes:
    """Calls that change the cluster."""

    def __init__(
        self, api: KubeApi, informers: Iterable[Informer[Any]], writer: Writer, clock: Callable[[], datetime]
    ) -> None:
        self.api = api
        self._informers: defaultdict[Resource, list[Informer[Any]]] = defaultdict(list)
        for informer in informers:
            self._informers[informer.resource].append(informer)
        self._writer = writer
        self._clock = clock
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._told: set[tuple[str, str]] = set()

    def now(self) -> datetime:
        """The time, for what is recorded on objects."""
        return self._clock()

    async def call(self, call: Callable[[], Awaitable[T]]) -> T:
        """One call, when there is room for it. Raises NotLeaderError when replaced."""
        async with self._slots:
            self._writer.check_leader()
            return await call()

    def stamp(self) -> dict[str, str]:
        """The annotation that tells in whose term an object was written; a status has a field for it."""
        return {TERM: str(self._writer.term())}

    def show(self, resource: Resource, reply: dict[str, Any]) -> None:
        """Show a reply to whoever watches the resource, before the watch tells."""
        for informer in self._informers.get(resource, ()):
            informer.observe_write(reply)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: dict[str, Any] | list[dict[str, Any]],
        *,
        namespace: str | None = None,
        kind: PatchKind = PatchKind.MERGE,
        shows: bool = True,
    ) -> dict[str, Any]:
        """Patch one object and show the reply; whoever applies takes the fields from any other manager."""
        patched = await self.call(
            lambda: self.api.patch(
                resource,
                name,
                patch,
                namespace=namespace,
                kind=kind,
                field_manager=FIELD_MANAGER,
                force=kind is PatchKind.APPLY,
            )
        )
        if shows:
            self.show(resource, patched)
        return patched

    async def create_own(self, resource: Resource, body: dict[str, Any], owner: OwnObject) -> dict[str, Any]:
        """Create a child of `owner`, or take the one that an earlier try has made."""
        namespace = owner.namespace
        body["metadata"]["annotations"] = body["metadata"].get("annotations", {}) | self.stamp()
        try:
            made = await self.call(lambda: self.api.create(resource, body, namespace, field_manager=FIELD_MANAGER))
        except AlreadyExistsError:
            made = await self.call(lambda: self.api.get(resource, body["metadata"]["name"], namespace))
            _check_owner(resource, made, owner)
        self.show(resource, made)
        return made

    async def apply_own(self, resource: Resource, body: dict[str, Any], owner: OwnObject) -> None:
        """Create a child of `owner`, or bring the one that is there up to date; never somebody else's object."""
        namespace, name = owner.namespace, body["metadata"]["name"]
        with suppress(NotFoundError):  # the apply creates it
            _check_owner(resource, await self.call(lambda: self.api.get(resource, name, namespace)), owner)
        await self.patch(resource, name, body, namespace=namespace, kind=PatchKind.APPLY)

    async def write_status(self, subject: OwnObject, status: dict[str, Any], version: str | None = None) -> str:
        """Replace the status, unless the object has changed since `version` (default: since the snapshot).

        Returns the version that the object has now: the same as before if nothing has changed.
        """
        resource = OF_KIND[subject.KIND]
        metadata = {
            "name": subject.name,
            "uid": subject.uid,
            "resourceVersion": version or subject.resource_version,
        }
        if subject.namespace:
            metadata["namespace"] = subject.namespace
        told = {**status, "term": self._writer.term()}
        body = {"apiVersion": API_VERSION, "kind": subject.KIND, "metadata": metadata, "status": told}
        written = await self.call(
            lambda: self.api.replace(
                resource,
                subject.name,
                body,
                namespace=subject.namespace or None,
                subresource="status",
                field_manager=FIELD_MANAGER,
            )
        )
        self.show(resource, written)
        return str(written["metadata"]["resourceVersion"])

    async def tell_once(self, about: Subject, note: Note) -> None:
        """One Event for what goes on happening, however often it is told; the API server keeps Events for an hour."""
        news = (about.uid, note.key)
        if news in self._told:
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()  # what is told again then has the same name, and is refused while the first one is there
        self._told.add(news)
        await self.tell(about, (note,))

    async def tell(self, about: Subject, notes: Iterable[Note]) -> None:
        """Events come after the write that they tell of, and never stand in its way.

        A namespace that is being deleted takes none.
        """
        if self._writer.is_closed(about.namespace):
            return
        for note in notes:
            body = manifests.event(about, note, self._clock(), self._writer.identity)
            body["metadata"]["annotations"] = self.stamp()
            try:
                await self.call(
                    lambda body=body: self.api.create(EVENTS, body, body["metadata"]["namespace"])  # type: ignore[misc]
                )
            except ApiError as error:
                if not isinstance(error, AlreadyExistsError):
                    log.debug("event not written", error=str(error))


def _check_owner(resource: Resource, found: dict[str, Any], owner: OwnObject) -> None:
    owners = found["metadata"].get("ownerReferences", ())
    if all(ref.get("uid") != owner.uid for ref in owners):
        name, whose = found["metadata"]["name"], _whose(owners, owner)
        raise AlreadyExistsError(409, "AlreadyExists", f"{resource.kind} {name} exists already and {whose}")


def _whose(owners: Iterable[dict[str, Any]], owner: OwnObject) -> str:
    first = next(iter(owners), None)
    if first is None:
        return "was made by somebody else"
    if (first.get("kind"), first.get("name")) == (owner.KIND, owner.name):
        return f"belongs to an earlier {owner.KIND} of this name, with which it goes"
    return f"belongs to {first.get('kind')} {first.get('name')}"

"""A fake kubelet: serves pod-resources v1 on a socket in a directory, in a thread of its own.

The answer is encoded here by hand, so that an error in the agent's message descriptors shows.
"""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server

SOCKET_NAME = "kubelet.sock"


@dataclass(frozen=True)
class Container:
    """A container and what it was given: device ids by resource, DRA devices by driver."""

    namespace: str
    pod: str
    name: str = "main"
    devices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    claims: tuple[tuple[str, str], ...] = ()


AGENT = Container("stokehold-system", "stokehold-agent", "agent")


def with_gpus(namespace: str, pod: str, *ids: str, resource: str = "nvidia.com/gpu") -> Container:
    """A container that was given these devices."""
    return Container(namespace, pod, devices={resource: ids})


class FakeKubelet:
    """Steer it by `containers`, `error`, `hangs` and `garbage`; `restart` makes the socket anew."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.containers: tuple[Container, ...] = (AGENT,)
        self.error: Status | None = None
        self.hangs = False
        self.garbage: bytes | None = None
        self.calls = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._call(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def give(self, *containers: Container) -> None:
        """Answer with these containers beside the agent's own."""
        self.containers = (AGENT, *containers)

    def start(self) -> None:
        """Make the socket and serve on it."""
        self._call(self._start())

    def stop(self) -> None:
        """Close every connection and remove the socket."""
        self._call(self._stop())

    def restart(self, *, leaving_the_old_one: bool = False) -> None:
        """A new socket in the place of the old, whose server may live on unseen."""
        if leaving_the_old_one:
            (self.directory / SOCKET_NAME).unlink()
        else:
            self.stop()
        self.start()

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _start(self) -> None:
        server = Server([_Service(self)], codec=_Bytes())
        await server.start(path=str(self.directory / SOCKET_NAME))
        self._servers.append(server)

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()  # not wait_closed(): a List that hangs would be waited for
        self._servers.clear()
        (self.directory / SOCKET_NAME).unlink(missing_ok=True)

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def list(self, stream: Any) -> None:
        """One List call."""
        self.calls += 1
        await stream.recv_message()
        if self.hangs:
            await asyncio.sleep(3600)
        if self.error is not None:
            raise GRPCError(self.error, "as told")
        await stream.send_message(encode(self.containers) if self.garbage is None else self.garbage)


class _Service:
    def __init__(self, kubelet: FakeKubelet) -> None:
        self._kubelet = kubelet

    def __mapping__(self) -> dict[str, Handler]:
        handler = Handler(self._kubelet.list, Cardinality.UNARY_UNARY, bytes, bytes)
        return {"/v1.PodResourcesLister/List": handler}


class _Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


def encode(containers: Iterable[Container]) -> bytes:
    """A ListPodResourcesResponse, with fields between that our agent does not read."""
    return b"".join(_field(1, _pod(container)) for container in containers)


def _pod(container: Container) -> bytes:
    return _text(1, container.pod) + _text(2, container.namespace) + _field(3, _container(container))


def _container(container: Container) -> bytes:
    devices = b"".join(
        _field(2, _text(1, resource) + b"".join(_text(2, i) for i in ids) + _field(3, _field(1, b"\x08\x01")))
        for resource, ids in container.devices.items()
    )
    cpu_ids = _field(3, b"\x00\x01")
    claims = b"".join(_field(4, _text(2, driver) + _text(4, device)) for driver, device in container.claims)
    dynamic = _field(5, _text(2, "claim") + claims) if claims else b""
    return _text(1, container.name) + devices + cpu_ids + dynamic


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

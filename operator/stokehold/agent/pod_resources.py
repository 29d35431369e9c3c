"""The kubelet's pod-resources API (v1): which device it gave to which container. No judgement.

One connection is kept; it is renewed when the socket in its directory is another one than before,
after any failure, and now and then. A failure is a value: whoever asked goes on without an owner, never with the
last one.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpclib
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.client import Channel, UnaryUnaryMethod

from stokehold.agent.readings import Cause, Missing

SOCKET_NAME = "kubelet.sock"
LIST_METHOD = "/v1.PodResourcesLister/List"
# h2 remembers 65,536 closed streams of a connection, 100 bytes each.
LISTS_PER_CONNECTION = 1000

_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
# The part of the kubelet's api.proto that is read here: message -> (field, number, type).
_MESSAGES: dict[str, tuple[tuple[str, int, str | int], ...]] = {
    "ListPodResourcesRequest": (),
    "ListPodResourcesResponse": (("pod_resources", 1, "PodResources"),),
    "PodResources": (
        ("name", 1, _STRING),
        ("namespace", 2, _STRING),
        ("containers", 3, "ContainerResources"),
    ),
    "ContainerResources": (
        ("name", 1, _STRING),
        ("devices", 2, "ContainerDevices"),
        ("dynamic_resources", 5, "DynamicResource"),
    ),
    "ContainerDevices": (("resource_name", 1, _STRING), ("device_ids", 2, _STRING)),
    "DynamicResource": (("claim_resources", 4, "ClaimResource"),),
    "ClaimResource": (("driver_name", 2, _STRING), ("device_name", 4, _STRING)),
}
_REPEATED_STRINGS = ("device_ids",)


@dataclass(frozen=True, slots=True)
class Allocation:
    """One device of one container; `resource` is the resource's name, or the DRA driver's."""

    namespace: str
    pod: str
    container: str
    resource: str
    device_id: str


Allocations = tuple[Allocation, ...] | Missing


class PodResources:
    """The client of one kubelet."""

    def __init__(self, directory: Path, timeout_seconds: float) -> None:
        self._socket = directory / SOCKET_NAME
        self._timeout = timeout_seconds
        self._channel: Channel | None = None
        self._socket_identity: tuple[int, int] | None = None
        self._lists = 0

    async def list(self) -> Allocations:
        """Every device that the kubelet has given away, or why that is not known."""
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._list_on(self._connected_channel())
        except TimeoutError:
            return self._lost(f"List did not return in {self._timeout:g} s")
        except grpclib.GRPCError as error:
            return self._lost(f"List: {error.status.name} {error.message or ''}".strip())
        except Exception as error:  # noqa: BLE001 - transport and codec each have errors of their own; none ends the agent
            return self._lost(f"List: {str(error) or type(error).__name__}")
        if not answer.pod_resources:
            # The agent is a pod itself, so an empty list cannot be the truth.
            return self._lost("List named no pod at all")
        return tuple(_allocations(answer))

    def close(self) -> None:
        """Drop the connection."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._socket_identity = None

    def _connected_channel(self) -> Channel:
        """The channel to the socket that is there now; a kubelet that restarts makes a new one."""
        status = self._socket.stat()
        identity = (status.st_ino, status.st_ctime_ns)
        if self._channel is None or identity != self._socket_identity or self._lists >= LISTS_PER_CONNECTION:
            self.close()
            self._channel = Channel(path=str(self._socket))
            self._socket_identity = identity
            self._lists = 0
        self._lists += 1
        return self._channel

    async def _list_on(self, channel: Channel) -> Any:
        method: UnaryUnaryMethod[Any, Any] = UnaryUnaryMethod(channel, LIST_METHOD, _REQUEST, _RESPONSE)
        return await method(_REQUEST(), timeout=self._timeout)

    def _lost(self, evidence: str) -> Missing:
        self.close()
        return Missing(Cause.FAILED, f"kubelet pod-resources: {evidence}")


def _allocations(answer: Any) -> list[Allocation]:
    found = []
    for pod in answer.pod_resources:
        for container in pod.containers:
            owner = (pod.namespace, pod.name, container.name)
            for devices in container.devices:
                found += [Allocation(*owner, devices.resource_name, i) for i in devices.device_ids]
            for dynamic in container.dynamic_resources:
                found += [Allocation(*owner, claim.driver_name, claim.device_name) for claim in dynamic.claim_resources]
    return found


def _message_classes() -> tuple[Any, Any]:
    """The request and the response, built without protoc."""
    file = descriptor_pb2.FileDescriptorProto(name="podresources/v1/api.proto", package="v1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            is_repeated = isinstance(kind, str) or field_name in _REPEATED_STRINGS
            field.label = field.LABEL_REPEATED if is_repeated else field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = field.TYPE_MESSAGE, f".v1.{kind}"
            else:
                field.type = _STRING
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return tuple(
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v1.{name}"))
        for name in ("ListPodResourcesRequest", "ListPodResourcesResponse")
    )  # type: ignore[return-value]


_REQUEST, _RESPONSE = _message_classes()

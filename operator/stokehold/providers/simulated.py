"""Nodes that exist only as objects: for demos, tests, and trying out a policy before it costs money.

Its memory is the Node objects themselves, so it forgets nothing when the operator dies. Which requests go wrong
follows from the request's id, so that asking again gives the same answer.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec

from stokehold.api.names import KEY_PREFIX
from stokehold.api.times import format_time
from stokehold.api.v1alpha1.providers import SimulatedProvider
from stokehold.cluster.client import KubeApi, PatchKind
from stokehold.cluster.errors import AlreadyExistsError, ApiError, ForbiddenError, NotFoundError
from stokehold.cluster.resources import NODES
from stokehold.model.capacity import Instance, NodeRequest
from stokehold.model.names import label_value
from stokehold.providers.base import AuthError, CapacityError, UnavailableError

POOL_LABEL = f"{KEY_PREFIX}simulated-pool"
OWNER_LABEL = f"{KEY_PREFIX}simulated-owner"
REQUEST = f"{KEY_PREFIX}request"
LAUNCHED = f"{KEY_PREFIX}launched"
GPUS = f"{KEY_PREFIX}simulated-gpus"
ZONE_LABEL = "topology.kubernetes.io/zone"
DEFAULT_RESOURCES = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "110"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Manifest = dict[str, Any]


class Simulated:
    """Creates Node objects, and makes them ready when their boot time is over: whenever it is asked what there is."""

    poll_seconds = 1.0

    def __init__(self, api: KubeApi, spec: SimulatedProvider) -> None:
        self._api = api
        self._spec = spec
        self._one_at_a_time = asyncio.Lock()

    async def launch(self, request: NodeRequest) -> Instance:
        """Create the node; more than `availableNodes` are refused, as are some by chance."""
        async with self._one_at_a_time:
            nodes = await self._list(request.pool, request.owner)
            known = [n for n in nodes if n["metadata"].get("annotations", {}).get(REQUEST) == request.request_id]
            if known:
                return _instance(known[0])
            limit = self._spec.available_nodes
            if limit is not None and len(nodes) >= limit:
                raise CapacityError(f"{limit} nodes can be had at one time")
            if _chance("failure", request.request_id) < self._spec.failure_percent:
                raise CapacityError("no capacity, by chance")
            node = await self._create(request, request.claim, "")
            if _chance("duplicate", request.request_id) < self._spec.duplicate_percent:
                await self._create(request, f"{request.claim}-dup", "-dup")
            return _instance(node)

    async def instances(self, pool: str, owner: str) -> tuple[Instance, ...]:
        """All nodes of the pool; those that have booted by now are made ready on the way."""
        nodes = await self._list(pool, owner)
        now = _now()
        for node in nodes:
            if not _is_ready(node) and now - _launched_at(node) >= self._boot_time(node):
                await self._boot(node, now)
        return tuple(_instance(node) for node in nodes)

    async def terminate(self, provider_id: str) -> None:
        """Delete the node."""
        pool = provider_id.removeprefix("simulated://").split("/")[0]
        for node in await self._list(pool, None):
            if node["spec"].get("providerID") != provider_id:
                continue
            meta = node["metadata"]
            try:
                await self._api.delete(NODES, meta["name"], uid=meta["uid"])
            except NotFoundError:
                return
            except ApiError as error:
                raise _translated(error) from error

    async def close(self) -> None:
        """Nothing to let go of: the client is the operator's."""

    async def _create(self, request: NodeRequest, name: str, suffix: str) -> Manifest:
        gpus_fail = _chance("gpu-missing", request.request_id) < self._spec.gpu_missing_percent
        gpus = {} if gpus_fail else {request.gpu_resource: str(request.gpus)}
        try:
            return await self._api.create(NODES, _node(request, name, suffix, gpus), field_manager="simulated")
        except AlreadyExistsError as error:
            raise UnavailableError(f"node {name} of an earlier request has not gone yet") from error
        except ApiError as error:
            raise _translated(error) from error

    def _boot_time(self, node: Manifest) -> timedelta:
        """Its own between the fastest and the slowest, the same whenever it is asked for."""
        fast = self._spec.boot_time.to_timedelta()
        slowest = self._spec.slowest_boot_time.to_timedelta() if self._spec.slowest_boot_time else fast
        request = node["metadata"].get("annotations", {}).get(REQUEST, "")
        return fast + max(slowest - fast, timedelta()) * _chance("boot", request) / 99

    async def _boot(self, node: Manifest, now: datetime) -> None:
        gpus = msgspec.json.decode(node["metadata"]["annotations"][GPUS], type=dict[str, str])
        amounts = {**node["status"]["allocatable"], **gpus}
        patch = {"status": {"capacity": amounts, "allocatable": amounts, "conditions": _conditions("True", now)}}
        name = node["metadata"]["name"]
        try:
            await self._api.patch(NODES, name, patch, kind=PatchKind.STRATEGIC, subresource="status")
        except NotFoundError:
            return
        except ApiError as error:
            raise _translated(error) from error

    async def _list(self, pool: str, owner: str | None) -> list[Manifest]:
        selector = f"{POOL_LABEL}={label_value(pool)}" + (f",{OWNER_LABEL}={owner}" if owner is not None else "")
        found: list[Manifest] = []
        token: str | None = None
        try:
            while True:
                page = await self._api.list_page(NODES, label_selector=selector, continue_token=token)
                decoded = msgspec.json.decode(page, type=dict[str, Any])
                found += decoded["items"]
                token = decoded["metadata"].get("continue")
                if not token:
                    return found
        except ApiError as error:
            raise _translated(error) from error


def _node(request: NodeRequest, name: str, suffix: str, gpus: dict[str, str]) -> Manifest:
    now = _now()
    wanted = {key: value for key, value in request.resources if key != request.gpu_resource}
    amounts = {**DEFAULT_RESOURCES, **wanted}
    own = {"kubernetes.io/hostname": name, POOL_LABEL: label_value(request.pool), OWNER_LABEL: request.owner}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **dict(request.labels), **own},
            "annotations": {
                REQUEST: request.request_id,
                LAUNCHED: format_time(now.replace(microsecond=0)),
                GPUS: msgspec.json.encode(gpus).decode(),
            },
        },
        "spec": {
            "providerID": f"simulated://{request.pool}/{request.request_id}{suffix}",
            "taints": [{"key": t.key, "value": t.value, "effect": t.effect} for t in request.taints],
        },
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": _conditions("False", now)},
    }


def _conditions(ready: str, now: datetime) -> list[Manifest]:
    at = format_time(now.replace(microsecond=0))
    reason = "KubeletReady" if ready == "True" else "Booting"
    told = {"type": "Ready", "status": ready, "reason": reason, "message": "simulated"}
    return [{**told, "lastHeartbeatTime": at, "lastTransitionTime": at}]


def _instance(node: Manifest) -> Instance:
    meta = node["metadata"]
    return Instance(
        provider_id=node["spec"].get("providerID", ""),
        request_id=meta.get("annotations", {}).get(REQUEST, ""),
        node_name=meta["name"],
        zone=meta.get("labels", {}).get(ZONE_LABEL, ""),
        instance_type="simulated",
        launched_at=_launched_at(node),
    )


def _launched_at(node: Manifest) -> datetime:
    text = node["metadata"].get("annotations", {}).get(LAUNCHED, "")
    return datetime.fromisoformat(text) if text else EPOCH


def _is_ready(node: Manifest) -> bool:
    told = node.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in told)


def _chance(of: str, request_id: str) -> int:
    """A number from 0 to 99 that is always the same for one request."""
    return int.from_bytes(sha256(f"{of} {request_id}".encode()).digest()[:4], "big") % 100


def _translated(error: ApiError) -> AuthError | UnavailableError:
    if isinstance(error, ForbiddenError):
        return AuthError(f"{error.message}; install the chart with simulatedProvider.enabled=true")
    return UnavailableError(str(error))


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the simulated machines have a clock of their own

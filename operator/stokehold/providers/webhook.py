"""Nodes from a service of the user's own, over HTTP: docs/reference/webhook-provider.md is the contract.

Every request names its id, carries the bearer token, and is signed with a key that never travels.
"""

import hmac
import ssl
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec

from stokehold.api.times import format_time
from stokehold.api.v1alpha1.providers import WebhookProvider
from stokehold.cluster.client import KubeApi
from stokehold.cluster.errors import ApiError, ForbiddenError, NotFoundError
from stokehold.cluster.resources import SECRETS
from stokehold.model.capacity import Instance, NodeRequest
from stokehold.providers.base import (
    AuthError,
    CapacityError,
    ConfigError,
    ProviderError,
    QuotaError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)

T = TypeVar("T")

LARGEST_ANSWER = 4 * 2**20
SECRET_SECONDS = 30.0
"""A changed Secret is seen after this."""

NOT_UNDERSTOOD = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding an answer may end with; the last one if it is nested without end."""

REFUSALS: dict[str, type[RefusedError]] = {
    "Capacity": CapacityError,
    "Quota": QuotaError,
    "Config": ConfigError,
    "Auth": AuthError,
}
BY_STATUS: dict[int, type[RefusedError]] = {
    400: ConfigError,
    401: AuthError,
    402: QuotaError,
    403: AuthError,
    404: ConfigError,
    422: ConfigError,
}
"""For refusals that give no reason."""


class _Machine(msgspec.Struct, rename="camel"):
    """A machine as the service describes it."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    request_id: str
    node_name: str = ""
    zone: str = ""
    instance_type: str = ""
    launched_at: datetime | None = None


class _Machines(msgspec.Struct):
    instances: list[_Machine]


class _Error(msgspec.Struct):
    """Why the service refuses."""

    reason: str = ""
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)


@dataclass(frozen=True, slots=True)
class Keys:
    """What the Secret holds; empty without one."""

    token: str = ""
    signing_key: str = ""


class Credentials:
    """Reads the pool's Secret, now and then; without one, `fixed` is all there is."""

    def __init__(self, api: KubeApi | None, namespace: str, name: str | None, fixed: Keys | None = None) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._keys = fixed or Keys()
        self._read_at = float("-inf")

    async def keys(self) -> Keys:
        """The token and the key; AuthError when the Secret cannot be read."""
        api, name = self._api, self._name
        if name is None or api is None or time.monotonic() - self._read_at < SECRET_SECONDS:
            return self._keys
        try:
            secret = await api.get(SECRETS, name, self._namespace)
            held = {key: b64decode(value).decode().strip() for key, value in secret.get("data", {}).items()}
        except (NotFoundError, ForbiddenError) as error:
            raise AuthError(f"Secret {self._namespace}/{name} cannot be read: {error.message}") from error
        except ApiError as error:
            raise UnavailableError(str(error)) from error
        except ValueError as error:
            raise AuthError(f"Secret {self._namespace}/{name} holds no text") from error
        token = held.get("token", "")
        if not token.isprintable():
            raise AuthError(f"the token of Secret {self._namespace}/{name} has more than one line")
        self._keys = Keys(token, held.get("signingKey", ""))
        self._read_at = time.monotonic()
        return self._keys

    def forget(self) -> None:
        """Read it again the next time."""
        self._read_at = float("-inf")


class Webhook:
    """One service."""

    poll_seconds = 5.0

    def __init__(
        self,
        spec: WebhookProvider,
        credentials: Credentials,
        clock: Callable[[], float] = time.time,  # noqa: TID251 - the operator gives its own
    ) -> None:
        self._spec = spec
        self._clock = clock
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None

    async def launch(self, request: NodeRequest) -> Instance:
        """POST /instances; the id of the request is its idempotency key."""
        body = msgspec.json.encode(_body(request))
        answer = await self._send("POST", "/instances", body, idempotency_key=request.request_id)
        machine = _decode(answer, _Machine)
        if machine.request_id != request.request_id:
            raise UnavailableError(f"asked for {request.request_id}, was told of {machine.request_id}")
        return _instance(machine)

    async def instances(self, pool: str, owner: str) -> tuple[Instance, ...]:
        """GET /instances."""
        answer = await self._send("GET", f"/instances?{urlencode({'owner': owner, 'pool': pool})}")
        return tuple(_instance(machine) for machine in _decode(answer, _Machines).instances)

    async def terminate(self, provider_id: str) -> None:
        """DELETE /instances/ID; 404 is as good as done."""
        await self._send("DELETE", f"/instances/{quote(provider_id, safe='')}")

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(self, method: str, path: str, body: bytes = b"", idempotency_key: str = "") -> bytes:
        url = self._spec.url.rstrip("/") + path
        headers = _signed(await self._credentials.keys(), method, _target(url), body, self._clock())
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        try:
            call = self._open().request(method, url, data=body or None, headers=headers, allow_redirects=False)
            async with call as response:
                answer = await _read(response)
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError: the session was closed under the call, because the pool's spec has changed.
            raise UnavailableError(f"{method} {path.split('?', maxsplit=1)[0]}: {error!r}") from error
        if status in (200, 201, 202, 204) or (method == "DELETE" and status == 404):
            return answer
        if status in (401, 403):
            self._credentials.forget()
        raise _refusal(status, answer, retry_after)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=_trusted(self._spec.ca_bundle), limit=16),
                timeout=aiohttp.ClientTimeout(total=self._spec.timeout.seconds),
            )
        return self._session


def _trusted(ca_bundle: str | None) -> ssl.SSLContext | bool:
    if not ca_bundle:
        return True
    try:
        return ssl.create_default_context(cadata=ca_bundle)
    except (ssl.SSLError, TypeError) as error:  # TypeError: it is not ASCII
        raise ConfigError(f"caBundle holds no certificate: {error}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, unless it is endless."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > LARGEST_ANSWER:
            raise UnavailableError(f"the answer is longer than {LARGEST_ANSWER} bytes")
        parts.append(part)
    return b"".join(parts)


def _signed(keys: Keys, method: str, target: str, body: bytes, now: float) -> dict[str, str]:
    """The headers that say who asks; the signature covers time, method, path, query and body."""
    headers = {"Content-Type": "application/json"}
    if keys.token:
        headers["Authorization"] = f"Bearer {keys.token}"
    if keys.signing_key:
        at = str(int(now))
        text = b"\n".join((at.encode(), method.encode(), target.encode(), body))
        headers["Stokehold-Timestamp"] = at
        headers["Stokehold-Signature"] = "v1=" + hmac.new(keys.signing_key.encode(), text, sha256).hexdigest()
    return headers


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _body(request: NodeRequest) -> dict[str, Any]:
    return {
        "requestId": request.request_id,
        "claim": request.claim,
        "pool": request.pool,
        "owner": request.owner,
        "gpuType": request.gpu_type,
        "gpus": request.gpus,
        "gpuResource": request.gpu_resource,
        "capacityClass": request.capacity_class,
        "zone": request.zone,
        "instanceType": request.instance_type,
        "labels": dict(request.labels),
        "taints": [{"key": t.key, "value": t.value, "effect": t.effect} for t in request.taints],
        "resources": dict(request.resources),
        "expiresAt": format_time(request.expires_at) if request.expires_at else None,
    }


def _decode(answer: bytes, form: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=form)
    except NOT_UNDERSTOOD as error:
        raise UnavailableError(f"the answer cannot be understood: {error}") from error


def _instance(machine: _Machine) -> Instance:
    at = machine.launched_at
    return Instance(
        provider_id=machine.id,
        request_id=machine.request_id,
        node_name=machine.node_name,
        zone=machine.zone,
        instance_type=machine.instance_type,
        launched_at=at if at is None or at.tzinfo is not None else None,
    )


def _refusal(status: int, answer: bytes, retry_after: str) -> ProviderError:
    try:
        error = msgspec.json.decode(answer, type=_Refusal).error
    except NOT_UNDERSTOOD:
        error = _Error(message=answer[:200].decode(errors="replace"))
    message = error.message or f"HTTP {status}"
    if status == 429:
        is_number = retry_after.isascii() and retry_after.isdecimal()  # it may be a date, too
        return RateLimitedError(message, float(retry_after) if is_number else 0.0)
    if status >= 500 or status < 400:
        return UnavailableError(f"HTTP {status}: {message}")
    known = REFUSALS.get(error.reason) or BY_STATUS.get(status)
    return known(message) if known is not None else UnavailableError(f"HTTP {status}: {message}")

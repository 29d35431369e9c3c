"""What the API server's refusals mean to a caller. No retries and no logging here.

    ApiError                    any other refusal
    ├── InvalidError            400, 422: malformed or against the schema; also a JSON patch whose `test` fails
    ├── ForbiddenError          401, 403: we may not; a person must change RBAC or credentials
    ├── NotFoundError           404: no such object (or no such kind: the CRD is missing)
    ├── AlreadyExistsError      409: the name exists; if it is deterministic, an earlier try made it
    ├── ConflictError           409: our resourceVersion, uid or field is stale; read again
    ├── GoneError               410: the resourceVersion or continue token is too old; list again
    ├── TooManyRequestsError    429: refused before it was acted on; `retry_after` seconds
    └── UnavailableError        5xx, timeout, lost connection: the outcome of a write is UNKNOWN

`ConnectError` stands apart: there is no usable configuration, so no server was asked.
"""

from __future__ import annotations

from typing import Final

import msgspec


class ConnectError(Exception):
    """No kubeconfig, no service account, or credentials that cannot be loaded."""


class ApiError(Exception):
    """The API server did not do what was asked; `status` 0 means that no answer came."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class InvalidError(ApiError):
    """The request is malformed, violates the schema, or the `test` of a JSON patch did not hold."""


class ForbiddenError(ApiError):
    """Our credentials do not allow it."""


class NotFoundError(ApiError):
    """The object, its namespace or its kind does not exist."""

    @property
    def is_of_object(self) -> bool:
        """Whether the API server serves the kind: of a path that it does not know it only says so in plain text."""
        return self.reason == "NotFound"


class AlreadyExistsError(ApiError):
    """An object of that name exists."""


class ConflictError(ApiError):
    """A precondition (resourceVersion, uid, field ownership) did not hold."""


class GoneError(ApiError):
    """The resourceVersion or continue token has been compacted away."""


class TooManyRequestsError(ApiError):
    """The server asked us to come back later, or a disruption budget refused an eviction."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(status, reason, message)
        self.retry_after = retry_after


class UnavailableError(ApiError):
    """No verdict: a write may or may not have happened."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    408: UnavailableError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
}


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float = 0


class _Status(msgspec.Struct):
    """The `Status` object that explains a refusal."""

    reason: str = ""
    message: str = ""
    code: int = 0
    details: _Details | None = None


def from_reply(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error for a refused request; `body` need not be a Status (proxies answer in HTML)."""
    told = _decode_status(body)
    return _build(status, told, _seconds(retry_after, told))


def from_watch_error(body: bytes) -> ApiError:
    """The error for an in-stream ERROR event, whose object is a Status."""
    told = _decode_status(body)
    return _build(told.code or 500, told, _seconds(None, told))


def _build(status: int, told: _Status, retry_after: float) -> ApiError:
    reason, message = told.reason or "Unknown", told.message
    if status == 429:
        return TooManyRequestsError(status, reason, message, retry_after)
    if status >= 500:
        return UnavailableError(status, reason, message)
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExistsError(status, reason, message)
    return _BY_STATUS.get(status, ApiError)(status, reason, message)


def _decode_status(body: bytes) -> _Status:
    try:
        return msgspec.json.decode(body, type=_Status)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _Status(message=body[:200].decode(errors="replace"))


def _seconds(header: str | None, told: _Status) -> float:
    """Retry-After in seconds; its date form needs a clock and Kubernetes never sends it."""
    if header and header.strip().isdigit():
        return float(header)
    if told.details and told.details.retry_after_seconds > 0:
        return told.details.retry_after_seconds
    return 1.0

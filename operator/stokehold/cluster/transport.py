"""One request to the API server: deadline, credentials, limiter, bounded retries. No resources' meaning.

Rules that callers rely on:
- every call ends: the request timeout bounds each try, and tries are counted;
- reads are repeated a few times on 5xx and lost connections, writes never: UnavailableError means
  that the outcome is unknown, and the next planning cycle repeats the write idempotently;
- 429 is honoured for any verb (the server refused before it acted), a bounded number of times;
- `guard_writes` has the last word before each try to write, after all waiting: a process that was
  stopped while it stood in the limiter's queue must not write when it wakes up as nobody's leader.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from stokehold.cluster import errors
from stokehold.cluster.connection import Connection
from stokehold.cluster.errors import (
    ApiError,
    ForbiddenError,
    TooManyRequestsError,
    UnavailableError,
)
from stokehold.cluster.limiter import TokenBucket
from stokehold.cluster.watching import split_lines

REQUEST_TIMEOUT_SECONDS = 15.0
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 100
MAX_TRIES = 4
MAX_RETRY_AFTER_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 0.2

# (verb, plural of the resource, HTTP status or 0 for no answer, seconds)
RequestObserver = Callable[[str, str, int, float], None]


# (its header Date, seconds since the request was sent)
DateObserver = Callable[[str, float], None]


def ignore_requests(verb: str, resource: str, code: int, seconds: float) -> None:
    """The observer for those who do not count."""


def ignore_dates(dated: str, seconds: float) -> None:
    """The observer for those who have a clock of their own."""


def allow() -> None:
    """The guard for those who need none."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to send; `verb` and `resource` are the labels under which it is counted."""

    verb: str
    resource: str
    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    honours_retry_after: bool = True


class Transport:
    """One aiohttp session to one API server."""

    def __init__(  # noqa: PLR0913 - settings, each with a default
        self,
        connection: Connection,
        limiter: TokenBucket,
        *,
        user_agent: str = "stokehold",
        observe: RequestObserver = ignore_requests,
        observe_date: DateObserver = ignore_dates,
        request_timeout: float = REQUEST_TIMEOUT_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._limiter = limiter
        self._observe = observe
        self._observe_date = observe_date
        self._request_timeout = request_timeout
        self._sleep = sleep
        self._check_write: Callable[[], None] = allow
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=connection.tls or True),
            # True would look for ~/.netrc and proxies at each request: 0.8 ms of CPU.
            trust_env=False,
            headers={
                "User-Agent": user_agent,
                "Accept": "application/json",
                # gzip costs both sides more CPU than the bytes are worth inside a cluster.
                "Accept-Encoding": "identity",
            },
        )

    def guard_writes(self, check: Callable[[], None]) -> None:
        """Call `check` right before anything that may change the cluster is sent; what it raises ends the call."""
        self._check_write = check

    async def close(self) -> None:
        """Close all connections, open streams included."""
        await self._session.close()

    async def send(self, request: Request) -> bytes:
        """The body of the reply; tries until there is a verdict or the tries are used up."""
        for tries_done in range(1, MAX_TRIES + 1):
            await self._limiter.wait_token()
            try:
                return await self._try(request)
            except ApiError as error:
                delay = _retry_delay(request, error, tries_done)
                if delay is None:
                    raise
            await self._sleep(delay)
        raise AssertionError("the last try returns or raises")

    async def stream(self, request: Request, *, idle_seconds: float) -> AsyncGenerator[bytes, None]:
        """The lines of an endless reply; one try, and an error after `idle_seconds` of silence."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=idle_seconds)
        await self._limiter.wait_token()
        with _lost_connections():
            async with self._reply(request, timeout) as reply:
                async for line in split_lines(reply.content.iter_any()):
                    yield line

    async def _try(self, request: Request) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._request_timeout, sock_connect=CONNECT_TIMEOUT_SECONDS)
        with _lost_connections():
            async with self._reply(request, timeout) as reply:
                return await reply.read()

    @asynccontextmanager
    async def _reply(self, request: Request, timeout: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply, if it is a success; a 401 is tried once more with fresh credentials."""
        authorization = await self._connection.authorization()
        try:
            reply = await self._exchange(request, timeout, authorization)
        except ForbiddenError as error:
            if error.status != 401 or authorization is None:
                raise
            await self._connection.refresh(refused=authorization)
            authorization = await self._connection.authorization()
            reply = await self._exchange(request, timeout, authorization)
        async with reply:
            yield reply

    def _url(self, request: Request) -> URL:
        """Quoted once, here: letting aiohttp join and quote it costs a tenth of the request."""
        query = f"?{urlencode(request.query)}" if request.query else ""
        return URL(f"{self._connection.server}{quote(request.path)}{query}", encoded=True)

    async def _exchange(
        self, request: Request, timeout: aiohttp.ClientTimeout, authorization: str | None
    ) -> aiohttp.ClientResponse:
        """Send once and read the status line; whatever happens is observed."""
        started = time.monotonic()
        code = 0
        headers = {"Content-Type": request.content_type} if request.body is not None else {}
        if authorization:
            headers["Authorization"] = authorization
        if request.method != "GET":
            self._check_write()
        try:
            async with asyncio.timeout(self._request_timeout):
                reply = await self._session.request(
                    request.method,
                    self._url(request),
                    data=request.body,
                    headers=headers,
                    timeout=timeout,
                    proxy=self._connection.proxy,
                    server_hostname=self._connection.server_hostname,
                    allow_redirects=False,
                )
                code = reply.status
                self._observe_date(reply.headers.get("Date", ""), time.monotonic() - started)
                if code < 300:
                    return reply
                async with reply:
                    body = await reply.read()
            raise errors.from_reply(code, body, reply.headers.get("Retry-After"))
        finally:
            self._observe(request.verb, request.resource, code, time.monotonic() - started)


@contextmanager
def _lost_connections() -> Iterator[None]:
    """Turn what a broken or silent connection raises into UnavailableError."""
    try:
        yield
    except TimeoutError as error:
        raise UnavailableError(0, "Timeout", str(error) or "no answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UnavailableError(0, "ConnectionLost", str(error) or repr(error)) from error


def _retry_delay(request: Request, error: ApiError, tries_done: int) -> float | None:
    """Seconds to wait before the next try; None means that the caller must decide."""
    if tries_done >= MAX_TRIES:
        return None
    jitter = random.uniform(1.0, 1.5)  # noqa: S311 - spreads retries, protects nothing
    if isinstance(error, TooManyRequestsError):
        if not request.honours_retry_after or error.retry_after > MAX_RETRY_AFTER_SECONDS:
            return None
        return max(error.retry_after, FIRST_BACKOFF_SECONDS) * jitter
    if isinstance(error, UnavailableError) and request.method == "GET":
        return FIRST_BACKOFF_SECONDS * 2.0 ** (tries_done - 1) * jitter
    return None

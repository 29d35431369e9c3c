"""Asks the Jupyter servers of workspaces what their kernels do; the answers go into the snapshot with their time.

A server belongs to its user: it may hang, lie, redirect or send gigabytes. Each question has a deadline and a bound,
redirects are not followed, and whatever goes wrong is an answer without knowledge, never one that says idle.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from stokehold.cluster.store import Key
from stokehold.model import names
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Notebook, Workspace

SERVICE_URL = "http://{service}.{namespace}.svc:{port}"
"""Where a workspace's server is; the operator outside of the cluster needs another way."""
DEADLINE_SECONDS = 5.0
LARGEST_ANSWER = 1 << 20
MOST_AT_ONCE = 64
TOKEN_VARIABLE = "JUPYTER_TOKEN"  # noqa: S105 - the name of a variable
QUIET_STATES = ("idle", "dead")
"""Execution states of kernels that do nothing; all others, and those that we do not know, are work."""


class Kernel(msgspec.Struct):
    """One kernel, as /api/kernels lists it."""

    last_activity: datetime
    execution_state: str = ""
    connections: int = 0


class Terminal(msgspec.Struct):
    """One terminal, as /api/terminals lists it."""

    last_activity: datetime


class ServerStatus(msgspec.Struct):
    """The answer of /api/status."""

    started: datetime


class _NoAnswerError(Exception):
    """The server did not say; the message says why, for its owner."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask."""

    key: Key
    pod_uid: str
    url: str
    token: str


class NotebookProber:
    """Asks all servers once a round, and remembers what each said last."""

    def __init__(
        self,
        answers: dict[Key, Notebook],
        clock: Callable[[], datetime],
        url: str = SERVICE_URL,
        at_once: int = MOST_AT_ONCE,
    ) -> None:
        self._answers = answers
        self._clock = clock
        self._url = url
        self._slots = asyncio.Semaphore(at_once)

    async def round(self, workspaces: Iterable[Workspace]) -> list[Notebook]:
        """Ask each workspace that wants to be asked and has a pod that runs; forget the others."""
        targets = [target for w in workspaces if (target := target_of(w, self._url)) is not None]
        wanted = {target.key for target in targets}
        for key in [key for key in self._answers if key not in wanted]:
            del self._answers[key]
        if not targets:
            return []
        targets.sort(key=self._failed_last)
        timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            return await asyncio.gather(*(self._ask(session, target) for target in targets))

    def _failed_last(self, target: Target) -> bool:
        """Whether it gave no knowledge the last time; such servers wait for the others, not the others for them."""
        before = self._answers.get(target.key)
        return before is not None and bool(before.error)

    async def _ask(self, session: aiohttp.ClientSession, target: Target) -> Notebook:
        async with self._slots:
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    answer = await _read_server(session, target, self._clock)
            except Exception as error:  # noqa: BLE001 - whatever one server provokes, the others are asked all the same
                told = f"the Jupyter server at {target.url}: {_why(error)}"
                answer = Notebook(self._clock(), target.pod_uid, error=told[:300])
        self._answers[target.key] = answer
        return answer


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"it did not answer in {DEADLINE_SECONDS:g} s"
    if isinstance(error, _NoAnswerError | aiohttp.ClientError | OSError):
        return str(error) or type(error).__name__
    return f"its answer makes no sense: {error}"


def target_of(workspace: Workspace, url: str) -> Target | None:
    """The server of a workspace that names one in its idle signals and has a ready pod."""
    signals = workspace.spec.idle.signals if workspace.spec.idle else None
    pod = _running_pod(workspace.pods)
    if signals is None or signals.jupyter is None or pod is None or not workspace.spec.running:
        return None
    address = url.format(
        service=names.workspace_name(workspace.name), namespace=workspace.namespace, port=signals.jupyter.port
    )
    token = next((v.value or "" for v in workspace.spec.env if v.name == TOKEN_VARIABLE), "")
    return Target(workspace.key, pod.uid, address, token)


def _running_pod(pods: Iterable[Pod]) -> Pod | None:
    fit = (p for p in pods if p.ready and p.bound and p.is_active)
    return next(fit, None)


async def _read_server(session: aiohttp.ClientSession, target: Target, clock: Callable[[], datetime]) -> Notebook:
    """The answer holds for the moment before the first question: what starts meanwhile is seen the next time."""
    asked_at = clock()
    kernels, ahead = await _get(session, target, "/api/kernels?no_track_activity=1", list[Kernel], clock)
    terminals = await _terminals(session, target, clock)
    status, _ = await _get(session, target, "/api/status", ServerStatus, clock)
    times = [status.started, *(k.last_activity for k in kernels), *(t.last_activity for t in terminals)]
    return Notebook(
        time=asked_at,
        pod_uid=target.pod_uid,
        busy_kernels=sum(kernel.execution_state not in QUIET_STATES for kernel in kernels),
        kernels=len(kernels),
        connections=sum(kernel.connections for kernel in kernels),
        last_activity=max(_aware(time) for time in times) - ahead,
    )


async def _terminals(session: aiohttp.ClientSession, target: Target, clock: Callable[[], datetime]) -> list[Terminal]:
    """A server without terminals says that there is no such page."""
    found: list[Terminal]
    try:
        found, _ = await _get(session, target, "/api/terminals?no_track_activity=1", list[Terminal], clock)
    except _NotThereError:
        return []
    return found


class _NotThereError(_NoAnswerError):
    """404."""


async def _get(
    session: aiohttp.ClientSession, target: Target, path: str, form: Any, clock: Callable[[], datetime]
) -> tuple[Any, timedelta]:
    """The answer, and how far the server's clock is ahead of ours."""
    headers = {"Authorization": f"token {target.token}"} if target.token else {}
    page = path.partition("?")[0]
    async with session.get(target.url + path, headers=headers, allow_redirects=False) as answer:
        if answer.status == 404:
            raise _NotThereError(f"{page} is not there; is it a Jupyter server?")
        if answer.status in (401, 403):
            raise _NoAnswerError(f"it refuses ({answer.status}); set {TOKEN_VARIABLE} in spec.env to its token")
        if 300 <= answer.status < 400:
            raise _NoAnswerError(f"{page} answered {answer.status}: it sends us elsewhere, where we do not follow")
        if answer.status != 200:
            raise _NoAnswerError(f"{page} answered {answer.status}")
        body = await _bounded(answer.content)
        try:
            return msgspec.json.decode(body, type=form), _ahead(answer.headers, clock())
        except msgspec.DecodeError as error:
            kind = answer.content_type
            raise _NoAnswerError(f"{page} gave {kind} that no Jupyter server gives: {error}") from error


async def _bounded(stream: aiohttp.StreamReader) -> bytes:
    body = b""
    async for chunk in stream.iter_chunked(1 << 16):
        body += chunk
        if len(body) > LARGEST_ANSWER:
            raise _NoAnswerError(f"the answer is longer than {LARGEST_ANSWER} bytes")
    return body


def _ahead(headers: Mapping[str, str], now: datetime) -> timedelta:
    """Its Date has whole seconds: less than two is no difference. Without one nobody can read its times."""
    try:
        told = _aware(parsedate_to_datetime(headers["Date"]))
    except (KeyError, ValueError, OverflowError) as error:
        raise _NoAnswerError("it does not tell its time: the header Date is missing or unreadable") from error
    ahead = told - now
    return ahead if abs(ahead) >= timedelta(seconds=2) else timedelta()


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)

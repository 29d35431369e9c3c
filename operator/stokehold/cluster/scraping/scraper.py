"""The loop that asks: every replica and every query once in an interval, none for longer than the deadline.

What a tenant runs is not trusted: answers are bounded in time and size, redirects are not followed, and the address
is the pod's IP as its kubelet wrote it. A replica that hangs or lies costs its own pool its metrics and nobody else.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

import aiohttp

from stokehold.cluster.scraping.exposition import UnreadableError, read_metrics
from stokehold.cluster.scraping.rates import History
from stokehold.cluster.snapshots import Cluster
from stokehold.cluster.store import Key
from stokehold.model.engines import ENGINES
from stokehold.model.load import PoolLoad, Reading, Signal, Source
from stokehold.model.pods import Pod
from stokehold.model.snapshot import ServingPool
from stokehold.observability import logs

T = TypeVar("T")

log = logs.get("scraper")

CHUNK_BYTES = 64 * 1024
# Plain text keeps the colons in the engines' names; as OpenMetrics they become underscores.
ACCEPT = "text/plain;version=0.0.4"
LONGEST_COMPLAINT = 300


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """How often is asked, for how long, how much at once, and whom."""

    interval_seconds: float = 15.0
    deadline_seconds: float = 5.0
    most_at_once: int = 128
    most_at_once_of_one_pool: int = 16
    largest_answer_bytes: int = 2 * 2**20
    prometheus_url: str = ""
    """The base URL for queries; empty: queries are not asked."""
    scrape_via: str = ""
    """An address in place of the pods' own, with {namespace} and {pod} in it: for clusters whose pods have none."""


class AnswerError(Exception):
    """A source gave no usable answer; the message says why, in the same words each time."""


Observer = Callable[[str, str], None]
"""Told of each answer: the source (pod, prometheus) and the result (ok, failed)."""


class Scraper:
    """Keeps `Cluster.loads` fresh while this process leads."""

    def __init__(
        self,
        cluster: Cluster,
        settings: ScrapeSettings,
        clock: Callable[[], datetime],
        wake: Callable[[], None],
        observe: Observer,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self._observe = observe
        self._slots = asyncio.Semaphore(settings.most_at_once)
        self._histories: dict[str, History] = {}
        self._asking: set[Key] = set()

    async def run(self) -> None:
        """Until cancelled. A pool that is slow to answer is late by itself; the others are asked in time."""
        async with self._session() as session, asyncio.TaskGroup() as group:
            while True:
                for pool in self._due():
                    group.create_task(self._gather(pool, session), name=f"scrape {pool.namespace}/{pool.name}")
                await asyncio.sleep(self._settings.interval_seconds)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._settings.deadline_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # A few compressed bytes may stand for gigabytes: what is not asked for is not unpacked either.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    def _due(self) -> list[ServingPool]:
        """The pools that are to be asked now; what was known of those that are gone is forgotten."""
        pools = [pool for pool in self._cluster.pools_with_pods() if _is_measured(pool)]
        keys = {pool.key for pool in pools}
        self._cluster.loads = {key: load for key, load in self._cluster.loads.items() if key in keys}
        alive = {pod.uid for pool in pools for pod in pool.pods}
        self._histories = {uid: history for uid, history in self._histories.items() if uid in alive}
        return [pool for pool in pools if pool.key not in self._asking]

    async def _gather(self, pool: ServingPool, session: aiohttp.ClientSession) -> None:
        self._asking.add(pool.key)
        try:
            self._cluster.loads[pool.key] = await self._pool(pool, session)
        except Exception:
            log.exception("scraping failed", pool=f"{pool.namespace}/{pool.name}")
        finally:
            self._asking.discard(pool.key)
        self._wake()

    async def _pool(self, pool: ServingPool, session: aiohttp.ClientSession) -> PoolLoad:
        before = self._cluster.loads.get(pool.key) or PoolLoad(self._clock())
        slots = asyncio.Semaphore(self._settings.most_at_once_of_one_pool)
        pods = [pod for pod in pool.pods if _is_asked(pod, pool)]
        metrics = pool.spec.scaling.metrics if pool.spec.scaling else ()
        queries = sorted({metric.query for metric in metrics if metric.query})
        replicas = await asyncio.gather(
            *(_one_of(slots, self._replica(pool, pod, before.replicas.get(pod.uid), session)) for pod in pods)
        )
        answers = await asyncio.gather(*(self._query(q, before.queries.get(q), session) for q in queries))
        return PoolLoad(
            before.watched_since,
            dict(zip((pod.uid for pod in pods), replicas, strict=True)),
            dict(zip(queries, answers, strict=True)),
        )

    async def _replica(
        self, pool: ServingPool, pod: Pod, before: Source | None, session: aiohttp.ClientSession
    ) -> Source:
        address = self._address(pool, pod)
        engine = pool.spec.scaling.engine if pool.spec.scaling else "vllm"

        async def ask() -> Reading:
            text = await self._get(session, address, {"Accept": ACCEPT})
            values = read_metrics(text, engine)
            return self._histories.setdefault(pod.uid, History()).take(self._clock(), values)

        return await self._ask("pod", Source(address, before.reading if before else None), ask)

    async def _query(self, query: str, before: Source | None, session: aiohttp.ClientSession) -> Source:
        base = self._settings.prometheus_url.rstrip("/")

        async def ask() -> Reading:
            if not base:
                raise AnswerError("no address of Prometheus is set (stokehold run --prometheus-url)")
            text = await self._get(session, f"{base}/api/v1/query", {}, {"query": query})
            return Reading(self._clock(), {Signal.TOTAL: read_answer(text)})

        return await self._ask("prometheus", Source(base, before.reading if before else None), ask)

    async def _ask(self, kind: str, source: Source, ask: Callable[[], Awaitable[Reading]]) -> Source:
        try:
            reading = await ask()
        except (AnswerError, UnreadableError) as error:
            self._observe(kind, "failed")
            return replace(source, problem=str(error))
        self._observe(kind, "ok")
        return replace(source, reading=reading)

    async def _get(
        self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], query: dict[str, str] | None = None
    ) -> str:
        async with self._slots:
            try:
                async with session.get(url, headers=headers, params=query, allow_redirects=False) as answer:
                    body = await self._body(answer)
            except TimeoutError as error:
                raise AnswerError(f"no answer within {self._settings.deadline_seconds:g} s") from error
            except (aiohttp.ClientError, ValueError, OSError) as error:
                raise AnswerError(_words(error)) from error
        if answer.status != 200:
            raise AnswerError(f"answers with status {answer.status}")
        return body.decode(errors="replace")

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
            body += chunk
            if len(body) > self._settings.largest_answer_bytes:
                raise AnswerError(f"answers with more than {self._settings.largest_answer_bytes} bytes")
        return bytes(body)

    def _address(self, pool: ServingPool, pod: Pod) -> str:
        if self._settings.scrape_via:
            return self._settings.scrape_via.format(namespace=pod.namespace, pod=pod.name)
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        return f"http://{host}:{pool.spec.port}/metrics"


def read_answer(text: str) -> float:
    """The one number of a query's answer; AnswerError when there is none, or more than one."""
    try:
        answer = json.loads(text)
        if answer["status"] != "success":
            raise AnswerError(str(answer.get("error", "the query failed"))[:LONGEST_COMPLAINT])
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind == "scalar":
            return _number(result[1])
        if kind != "vector":
            raise AnswerError(f"the result is a {kind}, not one number")
        if len(result) != 1:
            told = "is empty" if not result else f"has {len(result)} series: wrap the query in sum()"
            raise AnswerError(f"the result {told}")
        return _number(result[0]["value"][1])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise AnswerError("the answer is not that of Prometheus") from error


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise AnswerError(f"the result is {str(text)[:40]}")
    return value


async def _one_of(slots: asyncio.Semaphore, asking: Awaitable[T]) -> T:
    async with slots:
        return await asking


def _is_measured(pool: ServingPool) -> bool:
    others = pool.autoscaler is not None or (pool.spec.scaling is not None and pool.spec.scaling.mode == "External")
    return not pool.deleting and not others


def _is_asked(pod: Pod, pool: ServingPool) -> bool:
    engine = pool.spec.scaling.engine if pool.spec.scaling else "vllm"
    return bool(ENGINES[engine]) and pod.ready and pod.terminating_since is None and bool(pod.address)


def _words(error: Exception) -> str:
    """What went wrong without ports and addresses of our own side, which differ each time."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.strerror or type(error.os_error).__name__}"
    return f"no answer: {type(error).__name__}"

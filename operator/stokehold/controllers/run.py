"""Composition root of the operator: builds everything, starts it in order, and ends it in order.

informers sync -> admission -> ready (standbys too) -> Lease won -> planning cycles -> Lease lost or signal -> exit
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from stokehold.cluster.apply import OUTCOMES, Applier, Writer, Writes
from stokehold.cluster.client import KubeApi
from stokehold.cluster.connection import blocking_http
from stokehold.cluster.leases import LeaseElector, NotLeaderError
from stokehold.cluster.notebooks import NotebookProber
from stokehold.cluster.scraping.scraper import Scraper
from stokehold.cluster.snapshots import Cluster
from stokehold.controllers import (
    admission,
    autoscaling,
    culling,
    fleet,
    memory,
    news,
    notebooks,
    provisioning,
    scheduling,
)
from stokehold.controllers.clock import Clock
from stokehold.controllers.cycle import Cycle, Pace
from stokehold.controllers.provider_calls import ProviderCalls
from stokehold.controllers.provisioning import Provisioner
from stokehold.controllers.settings import Settings
from stokehold.controllers.watches import Watches
from stokehold.model.actions import Action
from stokehold.model.snapshot import Snapshot
from stokehold.observability import logs, metrics
from stokehold.observability.health import HealthServer
from stokehold.planning.autoscaling.plan import plan_autoscaling
from stokehold.planning.culling.plan import plan_culling
from stokehold.planning.scheduling.plan import next_due, plan_scheduling
from stokehold.providers.registry import Registry

log = logs.get("run")

LEASE_LOST = "the Lease was lost"
UNHURRIED_SECONDS = 0.5
"""After a wake-up, for planners whose work is not waited for: a snapshot of a large cluster is not free."""


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings, api: KubeApi, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._stop = asyncio.Event()
        self._leads = asyncio.Event()
        self._admits = asyncio.Event()
        self._failure: str | None = None
        self._loop = asyncio.get_running_loop()
        self._cluster = Cluster(self._wake, self._clock.now, settings.settle_time, self._hurry)
        self._watches = Watches(api, self._cluster)
        self._elector = self._make_elector()
        self._cluster.outside.term = lambda: self._elector.transitions
        api.guard_writes(self._elector.check)
        is_closed = self._cluster.is_closed
        writer = Writer(settings.identity, self._elector.check, lambda: self._elector.transitions, is_closed)
        self._writes = Writes(api, self._watches, writer, self._clock.now)
        self._applier = Applier(self._writes, self._cluster, self._count_action, _count_refusal)
        registry = Registry(api, settings.namespace, self._clock.now)
        self._calls = ProviderCalls(registry, self._cluster, self._elector.check, self._clock.now)
        self._provisioner = Provisioner(settings.provisioning, self._calls, self._applier.apply)
        self._seen = self._cluster.snapshot()
        self._autoscaling = self._cycle("autoscaling", self._plan_autoscaling)
        self._culling = self._cycle("culling", self._plan_culling, debounce=UNHURRIED_SECONDS)
        self._cycles = (
            self._cycle(
                "scheduling",
                self._plan_scheduling,
                due=lambda snapshot: next_due(snapshot, settings.scheduling),
            ),
            self._cycle(
                "provisioning",
                self._provisioner.plan,
                self._provisioner.carry_out,
                settings.provisioning_debounce_seconds,
                self._provisioner.due,
            ),
            self._autoscaling,
            self._culling,
        )
        self._prober = NotebookProber(self._cluster.notebooks, self._clock.now, settings.notebook_url)
        self._scraper = Scraper(
            self._cluster, settings.scraping, self._clock.now, self._autoscaling.wake, autoscaling.count_scrape
        )
        self._health = HealthServer(metrics.REGISTRY, alive=list, ready=self._problems, refresh=self._refresh_metrics)

    async def run(self) -> int:
        """Until a signal, a lost Lease or a failure; returns the exit code."""
        settings = self._settings
        port = await self._health.start(settings.metrics_address, settings.metrics_port)
        if settings.port_file:
            await asyncio.to_thread(Path(settings.port_file).write_text, str(port))
        log.info("starting", identity=settings.identity, metrics_port=port)
        tasks = [
            asyncio.create_task(self._guard("watches", self._watches.run())),
            asyncio.create_task(self._guard("planning", self._lead())),
        ]
        try:
            await self._serve_admission()
        except NotLeaderError:  # kopf raises what any task that began after it has ended with
            self._failure = self._failure or LEASE_LOST
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._elector.stop)
            await self._health.close()
        if self._failure:
            log.error("stopped", why=self._failure)
            return 1
        log.info("stopped", why="asked to")
        return 0

    async def _serve_admission(self) -> None:
        """kopf looks once at its start which kinds there are, and rules need full caches: so it waits for them."""
        for number in (signal.SIGTERM, signal.SIGINT):  # until kopf takes them over
            self._loop.add_signal_handler(number, self._stop.set)
        first = [asyncio.create_task(wait) for wait in (self._watches.wait_synced(), self._stop.wait())]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        for task in first:
            task.cancel()
        if self._stop.is_set():
            return
        cluster = self._cluster
        around = admission.Surroundings(
            queues=cluster.queues.values,
            namespaces=cluster.namespaces.values,
            priority_classes=cluster.priority_classes.values,
            node_pools=cluster.node_pools.values,
            claims=cluster.claims.values,
            now=self._clock.now,
        )
        await admission.serve(self._settings, around, self._stop, self._admits)

    async def _lead(self) -> None:
        await self._watches.wait_synced()
        memory.settle()
        log.info("caches are in sync")
        self._elector.start()
        await self._leads.wait()
        metrics.LEADER.set(1)
        log.info("leading", transitions=self._elector.transitions)
        self._wake()
        async with asyncio.TaskGroup() as group:
            for cycle in self._cycles:
                group.create_task(cycle.run(), name=cycle.name)
            group.create_task(self._calls.run(), name="providers")
            group.create_task(self._scraper.run(), name="scraper")
            group.create_task(news.tell(self._news, self._writes), name="news")
            asking = notebooks.ask(
                self._prober, self._cluster.snapshot, self._wake, self._settings.notebook_interval_seconds
            )
            group.create_task(asking, name="notebooks")

    async def _guard(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """The end of any part is the end of the process; a new one starts from what the API server holds."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was, the process ends and says so
            # Each part of planning notices by itself, and often before the elector's thread has told us.
            is_replaced = isinstance(error, BaseExceptionGroup) and error.split(NotLeaderError)[1] is None
            self._failure = LEASE_LOST if is_replaced else f"{name}: {error!r}"
            self._stop.set()

    def _make_elector(self) -> LeaseElector:
        settings = self._settings
        return LeaseElector(
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.identity,
            connect=lambda: blocking_http(settings.kubeconfig),
            wall_clock=self._clock.now,
            on_started=self._from_thread(self._leads.set),
            on_lost=self._from_thread(self._lost),
        )

    def _from_thread(self, call: Callable[[], None]) -> Callable[[], None]:
        """The elector runs in a thread of its own, so that no plan can starve it."""

        def hand_over() -> None:
            self._loop.call_soon_threadsafe(call)

        return hand_over

    def _lost(self) -> None:
        self._failure = self._failure or LEASE_LOST
        metrics.LEADER.set(0)
        self._stop.set()

    def _wake(self) -> None:
        for cycle in self._cycles:
            cycle.wake()

    def _hurry(self) -> None:
        self._culling.wake(at_once=True)  # a StatefulSet makes pods as fast as a kubelet refuses them

    def _cycle(
        self,
        name: str,
        plan: Callable[[Snapshot], Iterable[Action]],
        carry_out: Callable[[list[Action]], Awaitable[Counter[str]]] | None = None,
        debounce: float | None = None,
        due: Callable[[Snapshot], datetime | None] = lambda _: None,
    ) -> Cycle:
        """One planner's loop; all read the same cluster and write through the same applier."""
        pace = Pace(debounce or self._settings.debounce_seconds, self._settings.resync_seconds)
        return Cycle(name, self._cluster.snapshot, plan, carry_out or self._applier.apply, pace, due)

    def _plan_scheduling(self, snapshot: Snapshot) -> Iterable[Action]:
        self._seen = snapshot
        return plan_scheduling(snapshot, self._settings.scheduling)

    def _plan_autoscaling(self, snapshot: Snapshot) -> Iterable[Action]:
        return plan_autoscaling(snapshot, self._settings.autoscaling)

    def _plan_culling(self, snapshot: Snapshot) -> Iterable[Action]:
        return plan_culling(snapshot, self._settings.culling)

    def _count_action(self, action: Action, outcome: str) -> None:
        name = type(action).__name__
        for possible in OUTCOMES:  # a series that starts at 1 hides its first increase
            metrics.ACTIONS.labels(name, possible)
        metrics.ACTIONS.labels(name, outcome).inc()
        if outcome == "done":
            scheduling.count_done(action, self._seen)
            autoscaling.count_done(action)
            culling.count_done(action)

    def _news(self) -> Iterable[news.News]:
        yield from news.of_unreadable(self._watches.unreadable())
        yield from news.of_strays(tuple(self._cluster.pods.strays.values()))
        yield from news.of_corpses(tuple(self._cluster.pods.leaving.values()), self._clock.now())

    def _problems(self) -> list[str]:
        deaf = self._settings.webhook is not None and not self._admits.is_set()
        stale = self._watches.problems(self._settings.stale_watch_seconds)
        return [*stale, *(["admission: not listening yet"] if deaf else [])]

    def _refresh_metrics(self) -> None:
        self._problems()
        metrics.LEASE_TRANSITIONS.set(self._elector.transitions)
        metrics.CLOCK_DEVIATION_SECONDS.set(self._clock.deviation())
        news.count_unreadable(self._watches.unreadable())
        snapshot = self._cluster.snapshot()
        scheduling.count_state(snapshot)
        provisioning.count_state(snapshot)
        autoscaling.count_state(snapshot)
        fleet.count_fleet(snapshot, self._settings.culling.agent_silent_after)
        culling.count_state(snapshot)


def _count_refusal(kind: str, reason: str) -> None:
    metrics.WRITES_REFUSED.labels(kind, reason).inc()


def _count_request(verb: str, resource: str, code: int, seconds: float) -> None:
    metrics.REQUEST_SECONDS.labels(verb, resource, str(code)).observe(seconds)


async def run_operator(settings: Settings) -> int:
    """Connect, run, and return the exit code."""
    clock = Clock()
    api = await KubeApi.connect(
        kubeconfig=settings.kubeconfig,
        qps=settings.api_qps,
        burst=settings.api_burst,
        user_agent=f"stokehold/{settings.identity}",
        observe=_count_request,
        observe_date=clock.heard,
    )
    try:
        return await Operator(settings, api, clock).run()
    finally:
        await api.close()

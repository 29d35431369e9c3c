"""Calls to providers of nodes: in the background, one at a time for each machine, each with a deadline.

A provider that hangs holds up its own calls alone. What it answers is put into the snapshot; the planner decides what
it means. Nothing here decides anything but when to ask again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import LaunchNode, ProviderCall, TerminateNode, TerminateOrphan
from stokehold.model.capacity import Instance, Listing, Refusal, Terminated
from stokehold.model.snapshot import Claim, NodePool
from stokehold.observability import logs, metrics
from stokehold.planning.provisioning.world import pool_as_it_was
from stokehold.providers.base import Provider, ProviderError, RefusedError, RetryLaterError
from stokehold.providers.registry import PoolKey

log = logs.get("providers")

CALL_SECONDS = 60.0
MOST_AT_ONCE = 16
"""Calls to one pool's provider at the same time."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
MOST_ASKED_PAUSE_SECONDS = 300.0
"""A provider that asks for a longer pause is asked again after this: the machine may have to be given back by then."""
QUIET_POLL_SECONDS = 30.0
"""How often a provider is asked for its machines while no claim stands: only orphans could be there."""
TICK_SECONDS = 0.5

T = TypeVar("T")


class Providers(Protocol):
    """Finds the provider of a pool."""

    def of(self, pool: NodePool) -> Provider:
        """The pool's provider; RefusedError when there is none."""

    async def close(self, keep: Collection[PoolKey] = (), asked: Collection[Provider] = ()) -> None:
        """Close all but those of these pools, and those that are being asked something."""


class ProviderCalls:
    """Starts calls, and remembers which are under way and which must wait before they are tried again."""

    def __init__(
        self,
        registry: Providers,
        cluster: Cluster,
        check_leader: Callable[[], None],
        clock: Callable[[], datetime],
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        """`call_seconds` is the deadline of each call, whatever the provider's own time-outs are."""
        self._call_seconds = call_seconds
        self._registry = registry
        self._cluster = cluster
        self._check_leader = check_leader
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._asked: list[Provider] = []
        """One for each call that is under way."""
        self._pauses: dict[str, tuple[float, float]] = {}
        """By call: until when it waits, and for how long it waited."""
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._polled: dict[str, float] = {}
        self._given_back: dict[str, float] = {}
        """By machine: when. A list that was asked for before may still come, within its deadline, and knows it."""

    def can_start(self, call: ProviderCall) -> bool:
        """Whether nothing is under way for the same machine, and it need not wait."""
        key = _key(call)
        until, _ = self._pauses.get(key, (0.0, 0.0))
        return key not in self._running and time.monotonic() >= until

    def start(self, call: ProviderCall) -> None:
        """Carry it out in the background; its answer wakes the cycle."""
        if self.can_start(call):
            self._spawn(_key(call), self._carry_out(call))

    async def run(self) -> None:
        """Ask all providers again and again which machines they run, until cancelled."""
        try:
            while True:
                self._check_leader()
                await self._poll()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for task in list(self._running.values()):
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)
            await self._registry.close()

    async def _poll(self) -> None:
        cluster, owner = self._cluster, self._cluster.owner()
        pools = {name: pool for name, pool in cluster.node_pools.values.items() if pool.spec.provider is not None}
        for gone in self._polled.keys() - pools.keys():
            del self._polled[gone]
            cluster.note_listing(gone, None)
        busy = {claim.spec.pool_name for claim in cluster.claims.values.values()}
        await self._registry.close(keep=_needed(pools, cluster.claims.values.values()), asked=self._asked)
        self._forget_pauses()
        for name, pool in pools.items():
            key = f"list {name}"
            if not owner or key in self._running or not self._is_due(pool, is_busy=name in busy):
                continue
            self._polled[name] = time.monotonic()
            self._spawn(key, self._list(pool, owner))

    def _is_due(self, pool: NodePool, *, is_busy: bool) -> bool:
        try:
            every = self._registry.of(pool).poll_seconds if is_busy else QUIET_POLL_SECONDS
        except RefusedError:
            return False  # a launch will say so
        return time.monotonic() - self._polled.get(pool.name, float("-inf")) >= every

    async def _list(self, pool: NodePool, owner: str) -> None:
        asked_at, began = self._clock(), time.monotonic()
        try:
            with self._asking(self._registry.of(pool)) as provider:
                instances = await self._timed(pool.name, "list", provider.instances(pool.name, owner))
        except (ProviderError, TimeoutError) as error:
            log.warning("provider not heard", pool=pool.name, call="list", error=str(error) or "timeout")
            known = self._cluster.listing(pool.name)
            # What was listed before is as old as it was: nothing may be taken for gone because nobody answered.
            listing = Listing(known.asked_at if known else asked_at, known.instances if known else None, str(error))
            self._cluster.note_listing(pool.name, listing)
            return
        known = self._cluster.listing(pool.name)
        seen = {machine.provider_id: machine.launched_at for machine in (known.instances if known else None) or ()}
        dated = (
            _dated(machine, seen.get(machine.provider_id) or asked_at)
            for machine in instances
            if self._given_back.get(machine.provider_id, float("-inf")) < began
        )
        self._cluster.note_listing(pool.name, Listing(asked_at, tuple(dated)))

    async def _carry_out(self, call: ProviderCall) -> None:
        key, pool = _key(call), call.pool.name
        slots = self._slots.setdefault(pool, asyncio.Semaphore(MOST_AT_ONCE))
        try:
            async with slots:
                self._check_leader()
                with self._asking(self._registry.of(call.pool)) as provider:
                    await self._ask(call, provider)
            self._pauses.pop(key, None)
        except RefusedError as error:
            self._refused(call, error)
        except (RetryLaterError, TimeoutError) as error:
            self._pause(key, error.retry_after if isinstance(error, RetryLaterError) else 0.0)
            log.warning("provider not heard", pool=pool, call=key, error=str(error) or "timeout")

    @contextmanager
    def _asking(self, provider: Provider) -> Iterator[Provider]:
        self._asked.append(provider)
        try:
            yield provider
        finally:
            self._asked.remove(provider)

    async def _ask(self, call: ProviderCall, provider: Provider) -> None:
        pool = call.pool.name
        match call:
            case LaunchNode(claim=claim, request=request):
                instance = await self._timed(pool, "launch", provider.launch(request))
                log.info("machine launched", claim=claim.name, pool=pool, machine=instance.provider_id)
                self._cluster.note_answer(claim, instance)
            case TerminateNode(claim=claim):
                await self._terminate_all(call, provider)
                self._cluster.note_answer(claim, Terminated(self._clock()))
            case TerminateOrphan(instance=instance, why=why):
                await self._terminate(pool, provider, instance.provider_id)
                metrics.ORPHANS.labels(pool).inc()
                log.warning("orphan given back", pool=pool, machine=instance.provider_id, why=why)

    async def _terminate_all(self, call: TerminateNode, provider: Provider) -> None:
        """The machine that the claim knows, and all that were started under its id: an answer may have been lost."""
        claim, pool = call.claim, call.pool.name
        owner = self._cluster.owner()
        listed = await self._timed(pool, "list", provider.instances(pool, owner))
        machines = {machine.provider_id for machine in listed if machine.request_id == claim.uid}
        if claim.status.provider_id:
            machines.add(claim.status.provider_id)
        for machine in sorted(machines):
            await self._terminate(pool, provider, machine)
            log.info("machine given back", claim=claim.name, pool=pool, machine=machine)

    async def _terminate(self, pool: str, provider: Provider, machine: str) -> None:
        await self._timed(pool, "terminate", provider.terminate(machine))
        now = time.monotonic()
        self._given_back = {one: at for one, at in self._given_back.items() if now - at < 2 * self._call_seconds}
        self._given_back[machine] = now
        self._cluster.note_given_back(pool, machine)

    async def _timed(self, pool: str, name: str, answer: Awaitable[T]) -> T:
        began, outcome = time.monotonic(), "done"
        try:
            async with asyncio.timeout(self._call_seconds):
                return await answer
        except TimeoutError:
            outcome = "timeout"
            raise
        except ProviderError as error:
            outcome = error.outcome
            raise
        except Exception:
            outcome = "error"
            raise
        finally:
            metrics.PROVIDER_CALLS.labels(pool, name, outcome).inc()
            metrics.PROVIDER_SECONDS.labels(pool, name).observe(time.monotonic() - began)

    def _refused(self, call: ProviderCall, error: RefusedError) -> None:
        if isinstance(call, LaunchNode):
            self._cluster.note_answer(call.claim, Refusal(error.reason, str(error), self._clock()))
        else:
            self._pause(_key(call), 0.0)  # a machine must go, whatever the provider says
        log.warning("provider refused", pool=call.pool.name, call=_key(call), reason=error.reason, error=str(error))

    def _pause(self, key: str, at_least: float) -> None:
        _, last = self._pauses.get(key, (0.0, FIRST_PAUSE_SECONDS / 2))
        pause = max(min(at_least, MOST_ASKED_PAUSE_SECONDS), min(last * 2, LONGEST_PAUSE_SECONDS))
        self._pauses[key] = (time.monotonic() + pause, pause)

    def _forget_pauses(self) -> None:
        """Of machines that nobody has asked about for long."""
        long_ago = time.monotonic() - 10 * LONGEST_PAUSE_SECONDS
        self._pauses = {key: pause for key, pause in self._pauses.items() if pause[0] > long_ago}
        self._given_back = {machine: at for machine, at in self._given_back.items() if at > long_ago}

    def _spawn(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                self._pause(key, 0.0)
                log.exception("provider call failed", call=key)
            finally:
                self._running.pop(key, None)

        self._running[key] = asyncio.create_task(guarded(), name=key)


def _needed(pools: Mapping[str, NodePool], claims: Iterable[Claim]) -> set[PoolKey]:
    """The pools that are there, and those that are gone as the claims of their machines remember them."""
    lost = (pool_as_it_was(claim) for claim in claims if claim.spec.pool_name not in pools)
    return {(pool.name, pool.uid) for pool in (*pools.values(), *lost) if pool is not None}


def _dated(machine: Instance, seen: datetime) -> Instance:
    """When it was launched; seen first, if it says nothing or a time to come: in another zone, or by another clock."""
    told = machine.launched_at
    return machine if told is not None and told <= seen else replace(machine, launched_at=seen)


def _key(call: ProviderCall) -> str:
    """One call at a time for one machine: a launch is over before its termination begins."""
    match call:
        case LaunchNode() | TerminateNode():
            return f"claim {call.claim.uid}"
        case TerminateOrphan():
            return f"orphan {call.pool.name} {call.instance.provider_id}"

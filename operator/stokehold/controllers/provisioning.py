"""The provisioning cycle: GPUNodeClaims and GPUNodePools, from what waits to nodes that are bought and given back."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from stokehold.api.v1alpha1 import gpu_node_claim as api
from stokehold.controllers.provider_calls import ProviderCalls
from stokehold.model.actions import Action, LaunchNode, ProviderCall, TerminateNode, TerminateOrphan, WriteStatus
from stokehold.model.snapshot import Claim, NodePool, Snapshot
from stokehold.observability import metrics
from stokehold.planning.placement.prices import node_price
from stokehold.planning.provisioning.plan import plan_provisioning
from stokehold.planning.provisioning.settings import ProvisioningSettings
from stokehold.planning.provisioning.shortage import next_trigger

LAZY_WRITE_SECONDS = 20.0
"""How often the status of a pool is written while only the use of its GPUs has changed."""
USES = ("booting", "idle", "busy")
"""What a node can be paid for, in the metric of paid seconds."""


class Provisioner:
    """Plans, and splits what was planned: writes go to the API server, calls to providers."""

    def __init__(
        self,
        settings: ProvisioningSettings,
        calls: ProviderCalls,
        write: Callable[[Iterable[Action]], Awaitable[Counter[str]]],
    ) -> None:
        self._settings = settings
        self._calls = calls
        self._write = write
        self._lazily_written: dict[str, float] = {}

    def plan(self, snapshot: Snapshot) -> list[Action]:
        """What is to be done now and is not being done already."""
        return [action for action in plan_provisioning(snapshot, self._settings) if self._is_news(action)]

    def due(self, snapshot: Snapshot) -> datetime | None:
        """When the next purchase is due although nothing else happens."""
        return next_trigger(snapshot, self._settings)

    async def carry_out(self, actions: list[Action]) -> Counter[str]:
        """Start the calls, then write; nothing here waits for a provider."""
        writes: list[Action] = []
        for action in actions:
            if isinstance(action, ProviderCall):
                self._calls.start(action)
            else:
                writes.append(action)
                self._note(action)
        return await self._write(writes)

    def _is_news(self, action: Action) -> bool:
        match action:
            case LaunchNode() | TerminateNode() | TerminateOrphan():
                return self._calls.can_start(action)
            case WriteStatus(can_wait=True):
                last = self._lazily_written.get(action.subject.name, float("-inf"))
                return time.monotonic() - last >= LAZY_WRITE_SECONDS
            case _:
                return True

    def _note(self, action: Action) -> None:
        match action:
            case WriteStatus(subject=Claim() as claim):
                _count_step(claim, action.status)
            case WriteStatus(can_wait=True):
                self._lazily_written[action.subject.name] = time.monotonic()
            case _:
                pass


def count_state(snapshot: Snapshot) -> None:
    """Metrics of how things stand: claims by phase, and which providers are left alone."""
    phases = Counter((c.spec.pool_name, c.status.phase or api.REQUESTED) for c in snapshot.claims.values())
    metrics.CLAIMS.clear()
    for labels, count in phases.items():
        metrics.CLAIMS.labels(*labels).set(count)
    metrics.BREAKER_OPEN.clear()
    for name, pool in snapshot.node_pools.items():
        if pool.spec.provider is not None:
            _begin_series(pool)
        for offering in pool.status.offerings:
            if offering.blocked_until is not None and offering.blocked_until > snapshot.taken_at:
                metrics.BREAKER_OPEN.labels(name, offering.reason).inc()


def _begin_series(pool: NodePool) -> None:
    """At 0, for a series that starts at 1 hides its first increase."""
    metrics.ORPHANS.labels(pool.name)
    metrics.NODE_BOOT_SECONDS.labels(pool.name)
    for use in USES:
        metrics.NODE_PAID_SECONDS.labels(pool.name, use)
    if price := node_price(pool):
        metrics.NODE_COST.labels(pool.name, price.currency)


def _count_step(claim: Claim, status: dict[str, object]) -> None:
    """A claim that takes a step for the first time: counted as it is written, which a conflict may repeat."""
    pool, phase = claim.spec.pool_name, status.get("phase")
    if phase == claim.status.phase:
        return
    written = api.GPUNodeClaimStatus.model_validate(status)
    if phase == api.READY and claim.status.ready_at is None and written.launched_at and written.ready_at:
        metrics.NODE_BOOT_SECONDS.labels(pool).observe((written.ready_at - written.launched_at).total_seconds())
    elif phase == api.FAILED and written.last_failure:
        metrics.NODE_FAILURES.labels(pool, written.last_failure.reason).inc()
    elif phase == api.RELEASED and written.paid:
        paid = written.paid
        for use, seconds in zip(USES, (paid.booting_seconds, paid.idle_seconds, paid.busy_seconds), strict=True):
            metrics.NODE_PAID_SECONDS.labels(pool, use).inc(seconds or 0)
        if written.cost is not None and written.currency:
            metrics.NODE_COST.labels(pool, written.currency).inc(float(written.cost))

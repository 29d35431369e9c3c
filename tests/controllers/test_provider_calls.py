"""Calls to providers: one at a time for each machine, each with a deadline, and nobody waits for somebody else's."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

import pytest

from builders import NOW, a_snapshot
from kit.provisioning import KUBE_SYSTEM, World, a_cloud, a_waiting_job
from stokehold.api.v1alpha1.providers import Provider as ProviderSpec
from stokehold.cluster.client import KubeApi
from stokehold.cluster.snapshots import Cluster
from stokehold.controllers.provider_calls import MOST_ASKED_PAUSE_SECONDS, ProviderCalls
from stokehold.model.actions import LaunchNode, TerminateNode
from stokehold.model.capacity import Instance, NodeRequest, Refusal, Terminated
from stokehold.model.snapshot import NodePool
from stokehold.planning.provisioning.world import pool_as_it_was
from stokehold.providers.base import CapacityError, Provider, RateLimitedError, UnavailableError
from stokehold.providers.registry import PoolKey, Registry


class Answers:
    """A provider that answers as it was told: with a machine, an error, or never."""

    poll_seconds = 0.1

    def __init__(self, *script: Exception | str) -> None:
        self.script = list(script)
        self.asked: list[str] = []
        self.terminated: list[str] = []
        self.pause: asyncio.Event | None = None
        """Lists made meanwhile take until it is set."""
        self.closed = False
        self.launched_at: datetime | None = None
        """Of all machines that it lists."""

    async def launch(self, request: NodeRequest) -> Instance:
        self.asked.append(request.request_id)
        answer = self.script.pop(0) if self.script else "machine"
        if isinstance(answer, Exception):
            raise answer
        if answer == "never":
            await asyncio.sleep(3600)
        return Instance(f"m-{request.request_id}", request.request_id)

    async def instances(self, pool: str, owner: str) -> tuple[Instance, ...]:
        if self.pause is not None:
            await self.pause.wait()
        at = self.launched_at
        return tuple(Instance(f"m-{i}-{n}", i, launched_at=at) for i in self.asked for n in range(2))

    async def terminate(self, provider_id: str) -> None:
        self.terminated.append(provider_id)

    async def close(self) -> None:
        self.closed = True


class Shelf:
    def __init__(self, **providers: Provider) -> None:
        self.providers = providers

    def of(self, pool: NodePool) -> Provider:
        return self.providers[pool.name]

    async def close(self, keep: Collection[PoolKey] = (), asked: Collection[Provider] = ()) -> None:
        pass


class Makes(Registry):
    """Its providers answer from a script."""

    def __init__(self) -> None:
        super().__init__(cast(KubeApi, None), "stokehold", lambda: NOW)

    def _make(self, pool: NodePool) -> Provider:
        return Answers()


def launches(pool: str = "cloud", nodes: int = 1) -> list[LaunchNode]:
    """What the planner asks for a gang of so many nodes."""
    world = World(a_snapshot(jobs=[a_waiting_job(numNodes=nodes)], node_pools=[a_cloud(pool)]))
    world.step()
    return [action for action in world.plan() if isinstance(action, LaunchNode)]


def a_cluster(*calls: LaunchNode) -> Cluster:
    cluster = Cluster(lambda: None, lambda: NOW)
    cluster.namespaces.on_upsert(("", "kube-system"), None, KUBE_SYSTEM)
    for call in calls:
        cluster.claims.on_upsert(("", call.claim.name), None, call.claim)
    return cluster


def started(cluster: Cluster, shelf: Shelf) -> ProviderCalls:
    return ProviderCalls(shelf, cluster, lambda: None, lambda: NOW, call_seconds=0.3)


async def idle(calls: ProviderCalls) -> None:
    async with asyncio.timeout(5):
        await asyncio.gather(*calls._running.values())


async def test_provider_that_hangs_holds_up_nobody_else():
    (slow,), (fast,) = launches("slow"), launches("fast")
    slow = replace(slow, claim=replace(slow.claim, uid="claim-slow"))
    cluster = a_cluster(fast)
    calls = started(cluster, Shelf(slow=Answers("never"), fast=Answers()))

    calls.start(slow)
    calls.start(fast)
    await asyncio.sleep(0.1)

    assert isinstance(cluster.snapshot().answers[fast.claim.uid], Instance)
    await idle(calls)
    assert not calls.can_start(slow), "after its deadline it waits before it asks again"


async def test_launch_under_way_is_not_started_again():
    (launch,) = launches()
    provider = Answers("never")
    calls = started(a_cluster(launch), Shelf(cloud=provider))

    calls.start(launch)
    calls.start(launch)
    await asyncio.sleep(0.05)

    assert provider.asked == [launch.claim.uid]
    await idle(calls)


async def test_refusal_becomes_an_answer_and_silence_does_not():
    refused, silent = launches(nodes=2)
    cluster = a_cluster(refused, silent)
    calls = started(cluster, Shelf(cloud=Answers(CapacityError("none left"), UnavailableError("reset"))))

    calls.start(refused)
    await idle(calls)
    calls.start(silent)
    await idle(calls)

    answers = cluster.snapshot().answers
    assert answers == {refused.claim.uid: Refusal(CapacityError.reason, "none left", NOW)}


async def test_all_machines_of_a_claim_are_taken_away_the_unknown_ones_too():
    (launch,) = launches()
    provider, cluster = Answers(), a_cluster(launch)
    calls = started(cluster, Shelf(cloud=provider))
    calls.start(launch)
    await idle(calls)

    calls.start(TerminateNode(launch.claim, launch.pool))
    await idle(calls)

    uid = launch.claim.uid
    assert provider.terminated == [f"m-{uid}-0", f"m-{uid}-1"]
    assert cluster.snapshot().answers[uid] == Terminated(NOW)


async def test_providers_that_claims_of_one_lost_pool_remember_stay_apart_and_are_closed_once_nobody_needs_them():
    """Its URL was changed between two purchases: each machine is given back where it was bought."""
    calls = launches(nodes=2)
    claims = [
        replace(call.claim, provider=ProviderSpec.model_validate({"webhook": {"url": url, "secretRef": "cloud"}}))
        for call, url in zip(calls, ("https://old.example", "https://new.example"), strict=True)
    ]
    remembering = (replace(call, claim=claim) for call, claim in zip(calls, claims, strict=True))
    cluster, registry = a_cluster(*remembering), Makes()
    running = ProviderCalls(registry, cluster, lambda: None, lambda: NOW, call_seconds=5)
    pools = [pool for claim in claims if (pool := pool_as_it_was(claim))]
    old, new = (registry.of(pool) for pool in pools)
    assert isinstance(old, Answers)
    assert isinstance(new, Answers)
    assert old is not new
    assert [registry.of(pool) for pool in pools] == [old, new], "the one does not replace the other"

    old.pause = asyncio.Event()
    running.start(TerminateNode(claims[0], pools[0]))
    await asyncio.sleep(0)
    await running._poll()
    assert (old.closed, new.closed) == (False, False), "claims need both"
    for claim in claims:
        cluster.claims.on_delete(("", claim.name), claim)
    await running._poll()
    assert (old.closed, new.closed) == (False, True), "a call is under way"
    old.pause.set()
    await idle(running)
    await running._poll()
    assert old.closed


async def test_machine_that_was_given_back_is_nobodys_orphan_by_a_list_that_is_older():
    (launch,) = launches()
    provider, cluster = Answers(), a_cluster(launch)
    calls = started(cluster, Shelf(cloud=provider))
    calls.start(launch)
    await idle(calls)
    await calls._list(launch.pool, "cluster-1")
    assert len(machines(cluster)) == 2
    listed, provider.pause = asyncio.create_task(calls._list(launch.pool, "cluster-1")), asyncio.Event()
    await asyncio.sleep(0)
    pause, provider.pause = provider.pause, None

    calls.start(TerminateNode(launch.claim, launch.pool))
    await idle(calls)
    assert machines(cluster) == ()
    pause.set()
    await listed

    assert machines(cluster) == ()
    await calls._list(launch.pool, "cluster-1")
    assert len(machines(cluster)) == 2, "whoever lists it later still charges for it"


@pytest.mark.parametrize("told", [None, NOW + timedelta(hours=2)])
async def test_machine_that_claims_to_come_from_the_future_is_as_old_as_our_knowledge_of_it(told: datetime | None):
    """Else an orphan would be paid for until then: a local time that is sent as UTC is enough."""
    (launch,) = launches()
    provider, cluster, now = Answers(), a_cluster(launch), NOW
    provider.launched_at = told
    provider.asked.append("nobody")
    calls = ProviderCalls(Shelf(cloud=provider), cluster, lambda: None, lambda: now)
    await calls._list(launch.pool, "cluster-1")
    now += timedelta(minutes=1)
    await calls._list(launch.pool, "cluster-1")

    assert {machine.launched_at for machine in machines(cluster) or ()} == {NOW}


async def test_provider_that_asks_for_a_day_of_silence_is_asked_again_in_minutes(monkeypatch: pytest.MonkeyPatch):
    """The machine that it may have made must be given back meanwhile."""
    (launch,) = launches()
    calls = started(a_cluster(launch), Shelf(cloud=Answers(RateLimitedError("later", 86_400.0))))
    calls.start(launch)
    await idle(calls)
    assert not calls.can_start(launch)

    later = time.monotonic() + MOST_ASKED_PAUSE_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert calls.can_start(TerminateNode(launch.claim, launch.pool))


def machines(cluster: Cluster) -> tuple[Instance, ...] | None:
    return cluster.snapshot().listings["cloud"].instances

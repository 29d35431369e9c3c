"""Nodes that are bought for one gang, with spare ones that it takes over: its own until it runs, on all or on none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stokehold.api.v1alpha1 import gpu_node_claim as api
from stokehold.api.v1alpha1.training_job import FAILED, SUCCEEDED
from stokehold.model.demand import Demand
from stokehold.model.snapshot import Claim, Job, Snapshot

WRITTEN_OFF_AFTER = timedelta(minutes=5)
"""How long nodes whose pool is gone are waited for: who makes a pool anew needs a minute, and has paid for them."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """The claims of one attempt of one job, by name; `size` belong together."""

    job: Job
    attempt: int
    size: int
    claims: tuple[Claim, ...]

    @property
    def pool(self) -> str:
        """The pool whose provider is asked."""
        return self.claims[0].spec.pool_name

    @property
    def zone(self) -> str:
        """The zone that all nodes are asked in; empty when the provider chooses."""
        return self.claims[0].spec.zone or ""

    @property
    def bought(self) -> int:
        """How many of the nodes are asked for anew; the others were spare."""
        return self.size - sum(claim.status.reused_for is not None for claim in self.claims)

    @property
    def ready(self) -> int:
        """How many of the nodes can be used."""
        return sum(claim.status.phase == api.READY and not claim.deleting for claim in self.claims)

    @property
    def is_ready(self) -> bool:
        """Whether all of them can."""
        return len(self.claims) == self.size and self.ready == self.size

    @property
    def is_failing(self) -> bool:
        """Whether one of them will not come, so that the others are of no use."""
        return any(claim.deleting or claim.status.phase == api.FAILED for claim in self.claims)

    @property
    def ready_by(self) -> datetime:
        """When those that were asked for are given up if they are not ready."""
        asked = [claim for claim in self.claims if claim.status.phase != api.READY] or self.claims
        return max(claim.created_at + claim.spec.ready_within.to_timedelta() for claim in asked)


def attempt_of(job: Job) -> int:
    """The number of the attempt that the job is in, or that would start next."""
    return max([job.status.attempt or 1, *(pod.worker.attempt for pod in job.pods if pod.worker)])


def waits(job: Job, snapshot: Snapshot) -> bool:
    """Whether the job wants to start and has no pods for it yet."""
    if snapshot.is_going(job) or job.spec.suspend:
        return False
    if job.proof is not None or job.status.phase in (SUCCEEDED, FAILED):
        return False
    attempt = attempt_of(job)
    return not any(pod.worker and pod.worker.attempt == attempt for pod in job.pods)


def is_known(pool: str, snapshot: Snapshot) -> bool:
    """Whether somebody can be asked for nodes of this pool: it is there, can be read and has a provider."""
    known = snapshot.node_pools.get(pool)
    return known is not None and known.spec.provider is not None


def is_lost(pool: str, snapshot: Snapshot) -> bool:
    """Whether the nodes that were bought of this pool have nobody who keeps them: it is gone, or has no provider.

    One that only cannot be read still has whatever it had.
    """
    return not is_known(pool, snapshot) and pool not in snapshot.unread_pools


def written_off(snapshot: Snapshot) -> dict[str, tuple[Claim, ...]]:
    """By uid of the job: nodes of lost pools that are not waited for any more, for one of them is deleted, or others
    have been bought of a pool that is there.

    Their machines are given back by the provider that they remember; without one the records stay until the pool is
    there again.
    """
    lost = [c for _, c in sorted(snapshot.claims.items()) if is_lost(c.spec.pool_name, snapshot)]
    if not lost:
        return {}
    given_up = {_purchase_of(claim) for claim in lost if claim.deleting}
    there = (c for c in snapshot.claims.values() if not c.deleting and not is_lost(c.spec.pool_name, snapshot))
    elsewhere = {(claim.work.uid, claim.work.attempt) for claim in there if claim.work is not None}
    found: dict[str, tuple[Claim, ...]] = {}
    for claim in lost:
        work = claim.work
        if work is not None and (_purchase_of(claim) in given_up or (work.uid, work.attempt) in elsewhere):
            found[work.uid] = (*found.get(work.uid, ()), claim)
    return found


def all_purchases(snapshot: Snapshot) -> tuple[Purchase, ...]:
    """Those of jobs that exist, whether they still wait or not; without what is written off."""
    jobs = {job.uid: job for job in snapshot.jobs.values()} if snapshot.claims else {}
    gone = {claim.name for claims in written_off(snapshot).values() for claim in claims}
    groups: dict[tuple[str, int], list[Claim]] = {}
    for _, claim in sorted(snapshot.claims.items()):
        work = claim.work
        if work is not None and work.uid in jobs and claim.name not in gone:
            groups.setdefault((work.uid, work.attempt), []).append(claim)
    return tuple(
        Purchase(jobs[uid], attempt, _size(members[0]), members)
        for (uid, attempt), claims in groups.items()
        for members in (_members(claims),)
    )


def standing_purchases(snapshot: Snapshot) -> dict[str, Purchase]:
    """By uid of the job: those whose gang still waits for them."""
    return {
        purchase.job.uid: purchase
        for purchase in all_purchases(snapshot)
        if purchase.attempt == attempt_of(purchase.job) and waits(purchase.job, snapshot)
    }


def held_nodes(purchases: Iterable[Purchase]) -> dict[str, str]:
    """The nodes that are kept for the gang they were bought for: its job's uid by node."""
    return {
        claim.status.node_name: purchase.job.uid
        for purchase in purchases
        for claim in purchase.claims
        if claim.status.node_name
    }


def demand_of(job: Job, purchases: Mapping[str, Purchase]) -> Demand:
    """The job's demand, with its bought nodes open to it once all of them are ready."""
    purchase = purchases.get(job.uid)
    if purchase is None or not purchase.is_ready or purchase.is_failing:
        return job.demand
    return replace(job.demand, buyer=job.uid)


def _members(claims: list[Claim]) -> tuple[Claim, ...]:
    """Those of one plan, by name. What a leader wrote before it was replaced may arrive beside what its successor
    decided instead: of what nobody was asked for yet, only what completes the purchase belongs to it."""
    claims = sorted(claims, key=_standing)
    alike = [claim for claim in claims if _terms(claim) == _terms(claims[0])]
    return tuple(sorted(alike[: _size(claims[0])], key=lambda claim: claim.name))


def _standing(claim: Claim) -> tuple[bool, bool, bool, int, str]:
    """Asked for before unasked, wanted before written off, bought before taken over; a successor's names begin with
    the lowest number."""
    reused = claim.status.reused_for is not None
    return claim.status.requested_at is None, claim.deleting, reused, len(claim.name), claim.name


def _purchase_of(claim: Claim) -> tuple[str, int, str] | None:
    work = claim.work
    return (work.uid, work.attempt, claim.spec.pool_name) if work is not None else None


def _terms(claim: Claim) -> tuple[str, str, int]:
    return claim.spec.pool_name, claim.spec.zone or "", _size(claim)


def _size(claim: Claim) -> int:
    return claim.work.nodes if claim.work else 1

"""A provider that failed is left alone for a while, by pool and zone; `status.offerings` of the pool remembers it."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from stokehold.api.v1alpha1.gpu_node_claim import FAILED
from stokehold.api.v1alpha1.gpu_node_claim import ClaimFailure as ClaimFailureStatus
from stokehold.api.v1alpha1.gpu_node_pool import Offering
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Claim, NodePool
from stokehold.planning.provisioning.settings import ProvisioningSettings

WHOLE_POOL = (ClaimFailure.QUOTA, ClaimFailure.CONFIG, ClaimFailure.AUTH, ClaimFailure.UNFIT)
"""Failures that another zone would not change."""
UNTIL_CHANGED = (ClaimFailure.CONFIG, ClaimFailure.UNFIT)
"""Failures that are forgotten when the pool's spec changes."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FORGET_AFTER = timedelta(hours=1)
"""This long after a zone could be asked again its failures count no more."""


def is_unrecorded(claim: Claim, pool: NodePool | None) -> bool:
    """Whether the claim failed, and its pool's status does not say so yet."""
    failure = claim.status.last_failure
    if claim.status.phase != FAILED or failure is None or failure.time is None or pool is None:
        return False
    if claim.status.ready_at is not None and failure.reason == ClaimFailure.GONE:
        return False  # it worked until it was taken away: the zone may have more of them
    known = _find(pool.status.offerings, zone_of(claim))
    return known is None or known.blocked_until is None or known.blocked_until <= failure.time


def offerings(pool: NodePool, claims: Iterable[Claim], now: datetime, settings: ProvisioningSettings) -> list[Offering]:
    """What the pool's status should remember: what it did, less what is forgotten, with what has failed since."""
    known = {offering.zone: offering for offering in remembered(pool) if _is_fresh(offering, now)}
    failed = [(claim.status.last_failure, zone_of(claim)) for claim in claims if is_unrecorded(claim, pool)]
    for failure, zone in sorted(failed, key=_latest_first):
        at, before = _time_of(failure), known.get(zone)
        if failure is None or (before is not None and before.failed_at is not None and before.failed_at >= at):
            continue  # several nodes of one gang fail together: that counts once
        reason = ClaimFailure(failure.reason)
        failures = (before.failures or 0) + 1 if before else 1
        known[zone] = Offering(
            zone=zone,
            reason=reason,
            message=failure.message,
            blocked_until=at + settings.backoff(reason, failures),
            failed_at=at,
            failures=failures,
        )
    return [offering for _, offering in sorted(known.items())]


def blocking(pool: NodePool, zone: str, claims: Iterable[Claim], now: datetime) -> Offering | None:
    """What keeps the pool's provider from being asked for nodes in the zone now."""
    for offering in remembered(pool):
        until = offering.blocked_until
        if offering.zone in ("", zone) and until is not None and until > now:
            return offering
    for claim in claims:
        failure = claim.status.last_failure
        if failure is not None and zone_of(claim) in ("", zone) and is_unrecorded(claim, pool):
            return Offering(zone=zone_of(claim), reason=failure.reason, message=failure.message)
    return None


def remembered(pool: NodePool) -> list[Offering]:
    """What the status remembers; a changed spec makes it forget what was wrong with the old one."""
    same = pool.status.observed_generation == pool.generation
    return [offering for offering in pool.status.offerings if same or offering.reason not in UNTIL_CHANGED]


def zone_of(claim: Claim) -> str:
    """The zone that a claim's failure speaks of; empty for all."""
    failure = claim.status.last_failure
    if failure is None or failure.reason in WHOLE_POOL:
        return ""
    return claim.spec.zone or ""


def _find(known: Iterable[Offering], zone: str) -> Offering | None:
    return next((offering for offering in known if offering.zone == zone), None)


def _is_fresh(offering: Offering, now: datetime) -> bool:
    return offering.blocked_until is not None and now < offering.blocked_until + FORGET_AFTER


def _time_of(failure: ClaimFailureStatus | None) -> datetime:
    return failure.time if failure is not None and failure.time is not None else EPOCH


def _latest_first(failed: tuple[ClaimFailureStatus | None, str]) -> tuple[float, str]:
    return (-_time_of(failed[0]).timestamp(), failed[1])

"""What the statuses of claims, and the condition of the jobs they are for, say. Built whole from the recorded ones."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.v1alpha1 import gpu_node_claim as api
from stokehold.model import reasons
from stokehold.model.actions import Note, WriteStatus
from stokehold.model.capacity import Instance
from stokehold.model.reasons import Burst, ClaimFailure
from stokehold.model.snapshot import Claim, Job, Node, NodePool
from stokehold.model.statuses import dump, told_conditions, whole

LAUNCHED, REGISTERED, STRANDED = "Launched", "Registered", "Stranded"
CENT = Decimal("0.0001")


def requested(claim: Claim, now: datetime) -> WriteStatus:
    """The provider is being asked."""
    update = {"phase": api.REQUESTED, "request_id": claim.uid, "requested_at": whole(now)}
    return WriteStatus(claim, render(claim, update, now))


def launched(claim: Claim, instance: Instance, now: datetime) -> WriteStatus:
    """The provider has a machine for it, and charges: since it was asked, whatever its clock says."""
    since = min(now, max(claim.created_at, instance.launched_at or now))
    update = {
        "phase": api.LAUNCHED,
        "request_id": claim.uid,
        "requested_at": claim.status.requested_at or whole(now),
        "provider_id": instance.provider_id,
        "instance_type": instance.instance_type,
        "zone": instance.zone,
        "launched_at": whole(since),
        "conditions": told_conditions(
            claim, now, (LAUNCHED, True, reasons.Claim.LAUNCHED, f"machine {instance.provider_id}")
        ),
    }
    return WriteStatus(claim, render(claim, update, now))


def registered(claim: Claim, node: Node, now: datetime) -> WriteStatus:
    """Its node has joined."""
    update = {
        "phase": api.REGISTERED,
        "node_name": node.name,
        "registered_at": whole(now),
        "conditions": told_conditions(claim, now, (REGISTERED, True, reasons.Claim.REGISTERED, f"node {node.name}")),
    }
    return WriteStatus(claim, render(claim, update, now))


def without_gpus(claim: Claim, has: int, now: datetime) -> WriteStatus:
    """Its node is Ready and does not offer its GPUs yet: the clock for them starts."""
    message = f"the node is Ready and offers {has} of {claim.spec.gpus_per_node} GPUs"
    news = told_conditions(claim, now, (conditions.READY, False, ClaimFailure.GPU_MISSING, message))
    return WriteStatus(claim, render(claim, {"conditions": news}, now))


def ready(claim: Claim, node: Node, now: datetime) -> WriteStatus:
    """All its GPUs can be used."""
    update = {
        "phase": api.READY,
        "node_name": node.name,
        "registered_at": claim.status.registered_at or whole(now),
        "ready_at": claim.status.ready_at or whole(now),
        "idle_since": whole(now),
        "conditions": told_conditions(
            claim,
            now,
            (REGISTERED, True, reasons.Claim.REGISTERED, f"node {node.name}"),
            (conditions.READY, True, reasons.Claim.GPUS_READY, f"{claim.spec.gpus_per_node} GPUs can be used"),
        ),
    }
    return WriteStatus(claim, render(claim, update, now))


def reused(claim: Claim, work: api.Beneficiary | None, now: datetime) -> WriteStatus:
    """The spare node is kept for other work than it was bought for, or, without `work`, no longer is."""
    return WriteStatus(claim, render(claim, {"reused_for": work}, now))


def busy(claim: Claim, holder: str, now: datetime) -> WriteStatus:
    """Somebody is on it, by NAMESPACE/NAME of the pod: the idle time so far is added up."""
    news = told_conditions(claim, now, (conditions.IDLE, False, reasons.Claim.IN_USE, f"{holder} is on it"))
    return WriteStatus(claim, render(claim, {"idle_since": None, "conditions": news}, now))


def told_holder(claim: Claim) -> str:
    """Who is on it, as the status says."""
    told = find_condition(claim.status.conditions, conditions.IDLE)
    return told.message.split()[0] if told is not None and told.status == conditions.FALSE and told.message else ""


def idle(claim: Claim, now: datetime) -> WriteStatus:
    """Nothing runs on it any more."""
    news = told_conditions(claim, now, (conditions.IDLE, True, reasons.Claim.EMPTY, "nobody is on it"))
    return WriteStatus(claim, render(claim, {"idle_since": whole(now), "conditions": news}, now))


def refreshed(claim: Claim, now: datetime) -> WriteStatus:
    """Nothing new but the cost."""
    return WriteStatus(claim, render(claim, {}, now))


def draining(claim: Claim, why: str, now: datetime) -> WriteStatus:
    """It is closed for new work, and given back once nobody is found on it."""
    news = told_conditions(claim, now, (conditions.READY, False, reasons.Claim.DRAINING, why))
    return WriteStatus(claim, render(claim, {"phase": api.DRAINING, "conditions": news}, now))


def failed(claim: Claim, reason: ClaimFailure, message: str, now: datetime) -> WriteStatus:
    """It will not come, or has gone."""
    failure = api.ClaimFailure(time=whole(now), reason=reason, message=message[:1024])
    update = {
        "phase": api.FAILED,
        "last_failure": failure,
        "conditions": told_conditions(claim, now, (conditions.READY, False, reason, message[:1024])),
    }
    note = Note(reason, message, f"failed {reason}", warning=True)
    return WriteStatus(claim, render(claim, update, now), (note,))


def released(claim: Claim, at: datetime, now: datetime) -> WriteStatus:
    """The machine is gone, and so are its costs; the last thing that the record says."""
    news = told_conditions(claim, now, (conditions.READY, False, reasons.Claim.RELEASED, "the machine was given back"))
    ended = {"phase": api.RELEASED, "released_at": whole(at), "conditions": news}
    return WriteStatus(claim, render(claim, ended, now, until=whole(at)))


def stranded(claim: Claim, pool: NodePool | None, now: datetime) -> WriteStatus | None:
    """That its pool is gone, so nobody knows whom to give the machine back to, or is back; None if that is told."""
    told = find_condition(claim.status.conditions, STRANDED)
    if (told is not None and told.status == conditions.TRUE) == (pool is None):
        return None
    if pool is not None:
        news = told_conditions(
            claim, now, (STRANDED, False, reasons.Claim.POOL_FOUND, f"GPUNodePool {pool.name} is there again")
        )
        return WriteStatus(claim, render(claim, {"conditions": news}, now))
    mend = "make it again, or delete the claim" if claim.provider else "make it again"
    message = f"GPUNodePool {claim.spec.pool_name} does not exist any more: {mend} to give the machine back"
    news = told_conditions(claim, now, (STRANDED, True, reasons.Claim.POOL_MISSING, message))
    note = Note(reasons.Claim.POOL_MISSING, message, "stranded", warning=True)
    return WriteStatus(claim, render(claim, {"conditions": news}, now), (note,))


def provisioned(job: Job, reason: Burst, message: str, now: datetime, passing: str = "") -> WriteStatus | None:
    """The job's condition CapacityProvisioned; None when it says so already. What is `passing` is told beside it, and
    makes no Event of its own when it comes or goes."""
    key, message = f"{reason} {message}", f"{message}{passing}"
    holds = reason == Burst.PROVISIONED
    told = find_condition(job.status.conditions, conditions.CAPACITY_PROVISIONED)
    if told is not None and (told.reason, told.message) == (reason, message):
        return None
    news = told_conditions(job, now, (conditions.CAPACITY_PROVISIONED, holds, reason, message))
    status = job.status.model_copy(update={"conditions": news})
    note = Note(reasons.Event.CAPACITY_REQUESTED, message, key) if reason == Burst.REQUESTED else None
    return WriteStatus(job, dump(status), (note,) if note else ())


def render(claim: Claim, update: dict[str, Any], now: datetime, until: datetime | None = None) -> dict[str, Any]:
    """The claim's whole status with the update laid over it, and what it has cost by then."""
    status = claim.status
    end = until or status.released_at or whole(now)
    bill: dict[str, Any] = {}
    start = update.get("launched_at", status.launched_at)
    if start is not None:
        paid = _paid(claim, update, start, end)
        price = claim.spec.price_per_hour
        bill = {"paid": paid}
        if price is not None:
            hours = Decimal(max(0, round((end - start).total_seconds()))) / 3600
            bill |= {"cost": (price.amount * hours).quantize(CENT), "currency": price.currency}
    return dump(status.model_copy(update={"observed_generation": claim.generation, **bill, **update}))


def _paid(claim: Claim, update: dict[str, Any], start: datetime, end: datetime) -> api.PaidTime:
    """For what each second since the launch was paid: booting until ready, idle by our own watch, busy the rest."""
    status = claim.status
    total = max(0, round((end - start).total_seconds()))
    ready_at = update.get("ready_at", status.ready_at)
    booting = total if ready_at is None else min(total, max(0, round((ready_at - start).total_seconds())))
    before = (status.paid.idle_seconds or 0) if status.paid else 0
    counted_until = _idle_counted_until(claim)
    idle_now = 0 if counted_until is None else max(0, round((end - counted_until).total_seconds()))
    spent_idle = min(total - booting, before + idle_now)
    return api.PaidTime(booting_seconds=booting, idle_seconds=spent_idle, busy_seconds=total - booting - spent_idle)


def _idle_counted_until(claim: Claim) -> datetime | None:
    """Up to when the present idle time is in `paid.idleSeconds` already; None while it is not idle."""
    status = claim.status
    if status.idle_since is None or status.ready_at is None or status.launched_at is None:
        return None
    paid = status.paid
    if paid is None:
        return status.idle_since
    seconds = (paid.booting_seconds or 0) + (paid.idle_seconds or 0) + (paid.busy_seconds or 0)
    known = status.launched_at.timestamp() + seconds
    return max(status.idle_since, datetime.fromtimestamp(known, tz=status.idle_since.tzinfo))

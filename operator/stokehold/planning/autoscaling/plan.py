"""What to do about serving pools now.

    decide    how many replicas, from the bounds, the schedule, the load or an external autoscaler
    shape     what the replicas look like, and whether that may be changed
    write     the Deployment, when its number or its shape is another one; the only writer of both
    report    what users should know

Where each replica runs is decided by scheduling: its pod stands behind our gate until the ledger has a node for it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.model import reasons
from stokehold.model.actions import Action, Note, WriteDeployment, WriteStatus
from stokehold.model.pods import Pod
from stokehold.model.snapshot import ServingPool, Snapshot
from stokehold.model.statuses import dump
from stokehold.planning.autoscaling.contention import Contention, contention
from stokehold.planning.autoscaling.deciding import Verdict, decide
from stokehold.planning.autoscaling.reporting import freed, freed_message, status_of
from stokehold.planning.autoscaling.settings import AutoscalingSettings
from stokehold.planning.autoscaling.shaping import shape_of, why_not_shaped
from stokehold.planning.autoscaling.victims import least_busy
from stokehold.planning.placement.pools import Pool, resolve_pools
from stokehold.planning.placement.refusals import refusal


def plan_autoscaling(snapshot: Snapshot, settings: AutoscalingSettings) -> Iterator[Action]:
    """Everything that serving pools need now; one pool never depends on another."""
    pools = resolve_pools(snapshot) if snapshot.serving_pools else ()
    for _, pool in sorted(snapshot.serving_pools.items()):
        if not snapshot.is_going(pool):
            yield from _plan_pool(pool, snapshot, pools, settings)


def _plan_pool(
    pool: ServingPool, snapshot: Snapshot, pools: Collection[Pool], settings: AutoscalingSettings
) -> Iterator[Action]:
    now = snapshot.taken_at
    verdict = decide(pool, snapshot.loads, now, settings)
    obstacle = why_not_shaped(pool, snapshot)
    quarrel = contention(pool.pod_set, now, asked_again=_is_asked_again(pool))
    stands_back = quarrel is not None and quarrel.stands_back
    if not stands_back:
        refused = _was_refused(pool, snapshot, settings)
        yield from _write(_Wish(pool, verdict, obstacle, quarrel, refused), snapshot, pools)
    status = status_of(pool, verdict, obstacle, quarrel, now)
    if status != pool.status:
        notes = (*_notes(pool, verdict, quarrel), *_told_of_freed(pool), *_told_of_refusal(pool))
        yield WriteStatus(pool, dump(status), notes, decides=str(verdict.reason or ""))


@dataclass(frozen=True, slots=True)
class _Wish:
    pool: ServingPool
    verdict: Verdict
    obstacle: str
    quarrel: Contention | None
    refused: bool
    """The API server has just refused the children: the number of replicas may change, their shape not yet."""


def _write(wish: _Wish, snapshot: Snapshot, pools: Collection[Pool]) -> Iterator[Action]:
    """One write brings the Deployment to what is wanted, whoever has changed it; an obstacle keeps its shape."""
    pool, verdict, obstacle = wish.pool, wish.verdict, wish.obstacle
    known, shape = pool.pod_set, shape_of(pool, snapshot, pools)
    if known is None:
        if not obstacle and not wish.refused:
            yield WriteDeployment(pool, verdict.replicas, shape, reshapes=True)
        return
    whole = pool.has_service and pool.has_budget
    drifted = known.template != shape.digest or bool(known.template_writer) or not whole
    reshapes = not obstacle and not wish.refused and drifted
    # What a leader before us has sent and nobody has received yet would still fit what it knew.
    if reshapes or known.replicas != verdict.replicas or known.term < snapshot.term:
        victims: tuple[Pod, ...] = ()
        if verdict.replicas < known.replicas:
            victims = least_busy(pool, snapshot.loads.get(pool.key), known.replicas - verdict.replicas)
        undone_at = wish.quarrel.undone_at if wish.quarrel is not None else known.undone_at
        yield WriteDeployment(pool, verdict.replicas, shape, reshapes, victims, undone_at)


def _notes(pool: ServingPool, verdict: Verdict, quarrel: Contention | None) -> tuple[Note, ...]:
    """An Event for each new number, and one when we stand back; what came before makes its name."""
    if quarrel is not None and quarrel.stands_back and not _is_told(pool):
        key = f"stands back {quarrel.undone_at[-1]}"
        return (Note(reasons.Serving.OTHER_WRITER, quarrel.message, key, warning=True),)
    if verdict.reason is None:
        return ()
    before = pool.status.decisions[-1].time if pool.status.decisions else None
    key = f"{verdict.reason} {verdict.replicas} after {before}"
    return (Note(verdict.reason, f"{verdict.replicas} replicas: {verdict.message}", key),)


def _told_of_freed(pool: ServingPool) -> Iterator[Note]:
    """Until the condition says so; the API server refuses an Event that it has already."""
    told = find_condition(pool.status.conditions, conditions.CAPACITY_AVAILABLE)
    if told is not None and told.reason == reasons.Serving.GATE_REMOVED:
        return
    for pod in freed(pool):
        yield Note(reasons.Serving.GATE_REMOVED, freed_message(pod), f"freed {pod.uid}", warning=True)


def _told_of_refusal(pool: ServingPool) -> Iterator[Note]:
    """One Event for each version of the spec: the status says it as long as it lasts."""
    why, told = refusal(pool), pool.status.queue
    if why is not None and (told is None or told.reason != why.reason):
        key = f"{why.reason} {pool.generation}"
        yield Note(why.reason, f"{why.message}. {why.next_step}", key, warning=True)


def _is_told(pool: ServingPool) -> bool:
    told = find_condition(pool.status.conditions, conditions.SCALING_ACTIVE)
    return told is not None and told.status == conditions.FALSE


def _is_asked_again(pool: ServingPool) -> bool:
    """Whether its spec has changed since we stood back: an autoscaler has another number, its owner another wish."""
    told = find_condition(pool.status.conditions, conditions.SCALING_ACTIVE)
    if told is None or told.status != conditions.FALSE or told.observed_generation is None:
        return False
    return told.observed_generation != pool.generation


def _was_refused(pool: ServingPool, snapshot: Snapshot, settings: AutoscalingSettings) -> bool:
    """Whether the API server has just refused the children; asking again in every cycle would change nothing."""
    at = pool.create_failed_at
    return bool(pool.create_error) and at is not None and snapshot.taken_at - at < settings.retry_creation_after

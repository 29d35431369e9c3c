"""What to do about serving pools now.

    decide    how many replicas, from the bounds, the schedule, the load or an external autoscaler
    shape     what the replicas look like, and whether that may be changed
    write     the Deployment, when its number or its shape is another one; the only writer of both
    report    what users should know

Where each replica runs is decided by scheduling: its pod stands behind our gate until the ledger has a node for it.
"""

from collections.abc import Collection, Iterator

from stokehold.model.actions import Action, Note, WriteDeployment, WriteStatus
from stokehold.model.snapshot import Pod, ServingPool, Snapshot
from stokehold.model.statuses import dump
from stokehold.planning.autoscaling.deciding import Verdict, decide
from stokehold.planning.autoscaling.reporting import status_of
from stokehold.planning.autoscaling.settings import AutoscalingSettings
from stokehold.planning.autoscaling.shaping import shape_of, why_not_shaped
from stokehold.planning.autoscaling.victims import least_busy
from stokehold.planning.placement.pools import Pool, resolve_pools


def plan_autoscaling(snapshot: Snapshot, settings: AutoscalingSettings) -> Iterator[Action]:
    """Everything that serving pools need now; one pool never depends on another."""
    pools = resolve_pools(snapshot) if snapshot.serving_pools else ()
    for _, pool in sorted(snapshot.serving_pools.items()):
        if not _is_going(pool, snapshot):
            yield from _plan_pool(pool, snapshot, pools, settings)


def _plan_pool(
    pool: ServingPool, snapshot: Snapshot, pools: Collection[Pool], settings: AutoscalingSettings
) -> Iterator[Action]:
    now = snapshot.taken_at
    verdict = decide(pool, snapshot.loads, now, settings)
    obstacle = why_not_shaped(pool, snapshot)
    if not _was_refused(pool, snapshot, settings):
        yield from _write(pool, verdict, obstacle, snapshot, pools)
    status = status_of(pool, verdict, obstacle, now)
    if status != pool.status:
        yield WriteStatus(pool, dump(status), _notes(pool, verdict))


def _write(
    pool: ServingPool, verdict: Verdict, obstacle: str, snapshot: Snapshot, pools: Collection[Pool]
) -> Iterator[Action]:
    """One write brings the Deployment to what is wanted, whoever has changed it; an obstacle keeps its shape."""
    known, shape = pool.pod_set, shape_of(pool, snapshot, pools)
    if known is None:
        if not obstacle:
            yield WriteDeployment(pool, verdict.replicas, shape, reshapes=True)
        return
    whole = pool.has_service and pool.has_budget
    reshapes = not obstacle and (known.template != shape.digest or not whole)
    if reshapes or known.replicas != verdict.replicas:
        victims: tuple[Pod, ...] = ()
        if verdict.replicas < known.replicas:
            victims = least_busy(pool, snapshot.loads.get(pool.key), known.replicas - verdict.replicas)
        yield WriteDeployment(pool, verdict.replicas, shape, reshapes, victims)


def _notes(pool: ServingPool, verdict: Verdict) -> tuple[Note, ...]:
    """An Event for each new number; its place in the history makes its name."""
    if verdict.reason is None:
        return ()
    before = pool.status.decisions[-1].time if pool.status.decisions else None
    key = f"{verdict.reason} {verdict.replicas} after {before}"
    return (Note(str(verdict.reason), f"{verdict.replicas} replicas: {verdict.message}", key),)


def _was_refused(pool: ServingPool, snapshot: Snapshot, settings: AutoscalingSettings) -> bool:
    """Whether the API server has just refused the children; asking again in every cycle would change nothing."""
    at = pool.create_failed_at
    return bool(pool.create_error) and at is not None and snapshot.taken_at - at < settings.retry_creation_after


def _is_going(pool: ServingPool, snapshot: Snapshot) -> bool:
    """Whether it or its namespace is being deleted: nothing new is created for it."""
    namespace = snapshot.namespaces.get(pool.namespace)
    return pool.deleting or (namespace is not None and namespace.terminating)

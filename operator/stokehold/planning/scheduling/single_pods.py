"""Work of one pod beside the gangs: workspaces that should run, and replicas that wait behind our gate. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.model.pods import Pod
from stokehold.model.reasons import Progress, Waiting
from stokehold.model.snapshot import ServingPool, Snapshot, Workspace
from stokehold.model.statuses import News, render, told_conditions
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.pools import Pool
from stokehold.planning.scheduling import volumes
from stokehold.planning.scheduling.queueing import Promised, Queues, Replica, creation_refused, unserved
from stokehold.planning.scheduling.reporting import queue_status
from stokehold.planning.scheduling.settings import SchedulingSettings

PENDING = "Pending"
CORPSES_KEPT = 5
"""Failed replicas of one pool that stay, for their logs and for what they tell of their nodes."""


def waiting_workspaces(snapshot: Snapshot) -> Iterator[Workspace]:
    """Those that should run and have no node yet."""
    for workspace in snapshot.workspaces.values():
        if workspace.spec.running and not snapshot.is_going(workspace) and not is_started(workspace):
            yield workspace


def waiting_replicas(snapshot: Snapshot) -> Iterator[Replica]:
    """Pods of serving pools that stand behind our gate."""
    for pool in snapshot.serving_pools.values():
        for pod in pool.pods:
            if pod.gated and not pod.node and pod.is_active:
                yield Replica(pool, pod)


def promised_replicas(snapshot: Snapshot) -> Iterator[Promised]:
    """Replicas that Deployments owe. Not those that the API server refuses: nobody knows when they will come; nor those
    beyond replicas.max: somebody else has scaled the Deployment, to whatever number."""
    for pool in snapshot.serving_pools.values():
        if pool.pod_set is None or pool.pod_set.problem or not pool.demand.gpus or snapshot.is_going(pool):
            continue
        live = sum(pod.is_active for pod in pool.pods)
        owed = min(pool.pod_set.replicas, pool.spec.replicas.max) - live
        for _ in range(owed):
            yield Promised(pool)


def unbound_replicas(snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Pod]:
    """Replicas that kube-scheduler could not bind to the node we chose: somebody else was there first, or it is gone.

    A pin cannot be changed, so the pod must go; its Deployment makes another, which waits for its node again.
    """
    for pool in snapshot.serving_pools.values():
        for pod in pool.pods:
            if pod.placed_at is None or pod.bound or pod.is_over or pod.terminating_since is not None:
                continue
            if snapshot.time_given(pod.placed_at) >= settings.bind_timeout:
                yield pod


def useless_corpses(snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Pod]:
    """Failed replicas beyond the last few of each pool: their Deployment replaces them and never clears them away.

    Fresh ones stay: they tell which nodes to avoid, and so there are few of them on each node.
    """
    forgiven = snapshot.taken_at - settings.fault_window
    for pool in snapshot.serving_pools.values():
        failed = [pod for pod in pool.pods if pod.is_over and pod.terminating_since is None]
        failed.sort(key=lambda pod: (pod.created_at or pool.created_at, pod.name), reverse=True)
        yield from (pod for pod in failed[CORPSES_KEPT:] if pod.placed_at is None or pod.placed_at < forgiven)


def why_replica_waits(replica: Replica, queues: Queues) -> Explanation | None:
    """What keeps a replica out of the queue; None when it may be placed."""
    pool = replica.pool
    return unserved(pool, queues) or volumes.unusable(pool) or volumes.apart(pool, queues.snapshot)


def why_workspace_waits(workspace: Workspace, queues: Queues, settings: SchedulingSettings) -> Explanation | None:
    """What keeps a workspace out of the queue; None when it may be placed."""
    snapshot = queues.snapshot
    refused = (
        unserved(workspace, queues)
        or _pausing(workspace, snapshot.taken_at)
        or creation_refused(workspace, snapshot, settings)
        or volumes.files_unavailable(workspace)
        or volumes.unusable(workspace)
        or volumes.apart(workspace, snapshot)
    )
    if refused is not None:
        return refused
    leaving = [pod for pod in workspace.pods if pod.holds_resources]
    if not leaving:
        return None
    return Explanation(
        Waiting.TERMINATING_PODS,
        f"its pod {leaving[0].name} on {leaving[0].node or 'no node'} has not gone yet",
        "Nothing to do: it starts when the pod has gone.",
    )


def _pausing(workspace: Workspace, now: datetime) -> Explanation | None:
    """Its pod did not come up the last time: others may have the GPUs meanwhile."""
    until = workspace.status.requeue_at
    if until is None or until <= now:
        return None
    ready = find_condition(workspace.status.conditions, conditions.READY)
    told = f"{ready.message}; " if ready is not None and ready.message else ""
    return Explanation(
        Waiting.BACKING_OFF,
        f"{told}next attempt at {until:%H:%M:%S} UTC",
        "Nothing to do: it starts again by itself.",
    )


def is_started(workspace: Workspace) -> bool:
    """Whether its StatefulSet has its replica, and so its node."""
    return workspace.pod_set is not None and workspace.pod_set.replicas > 0 and bool(workspace.pod_set.node)


def reserve_started(ledger: Ledger, snapshot: Snapshot) -> None:
    """Keep the room of workspaces that were given a node and whose pod nobody has seen yet."""
    for workspace in snapshot.workspaces.values():
        pod_set = workspace.pod_set
        if pod_set is None or not is_started(workspace) or any(not pod.is_over for pod in workspace.pods):
            continue
        ledger.reserve(pod_set.node, workspace.demand, _gpu_resource(ledger.pools.values(), pod_set.node))


def waiting_status(
    owner: Workspace | ServingPool, why: Explanation, position: int | None, now: datetime
) -> dict[str, Any]:
    """The status that says why it, or a replica of it, has no node yet."""
    queue = queue_status(why, position, now)
    if isinstance(owner, Workspace):
        news: list[News] = [(conditions.ADMITTED, False, why.reason, why.message)]
        ready = find_condition(owner.status.conditions, conditions.READY)
        if ready is None or ready.reason != Progress.TAKEN_BACK:  # which says more, and is told again while it pauses
            news.append((conditions.READY, False, why.reason, why.message))
        update = {"phase": PENDING, "queue": queue, "conditions": told_conditions(owner, now, *news)}
    else:
        short = (conditions.CAPACITY_AVAILABLE, False, why.reason, why.message)
        update = {"queue": queue, "conditions": told_conditions(owner, now, short)}
    return render(owner, update)


def _gpu_resource(pools: Any, node: str) -> str:
    found: Pool | None = next((pool for pool in pools if node in pool.members), None)
    return found.gpu_resource if found is not None else ""

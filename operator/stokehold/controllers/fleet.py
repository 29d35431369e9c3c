"""Metrics of the nodes: GPUs by pool and state, and whether their agents are heard."""

from collections import Counter
from datetime import datetime, timedelta

from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job, Sighting, Snapshot
from stokehold.observability import metrics
from stokehold.planning.autoscaling.reporting import freed
from stokehold.planning.placement.pools import count_gpus, resolve_pools


def count_fleet(snapshot: Snapshot, silent_after: timedelta) -> None:
    """Publish how things stand; pools and nodes that are gone leave no series."""
    metrics.GPUS.clear()
    metrics.GPU_NODES.clear()
    metrics.PODS_PAST_QUEUE.clear()
    for (namespace, kind), count in past_queue(snapshot).items():
        metrics.PODS_PAST_QUEUE.labels(namespace, kind).set(count)
    for pool in resolve_pools(snapshot):
        if not pool.gpu_type:
            continue
        gpus = count_gpus(pool, snapshot)
        states = {"allocatable": gpus.allocatable, "used": gpus.used, "free": gpus.free}
        for state, count in {**states, "terminating": gpus.terminating}.items():
            metrics.GPUS.labels(pool.name, pool.gpu_type, state).set(count)
        agents = Counter(
            agent_state(snapshot.sightings.get(name), snapshot.taken_at, silent_after) for name in pool.members
        )
        for state in ("heard", "silent", "absent"):
            metrics.GPU_NODES.labels(pool.name, state).set(agents[state])


def past_queue(snapshot: Snapshot) -> Counter[tuple[str, str]]:
    """Pods that look like ours, run, and were not placed by the queue: by namespace and the kind of their owner."""
    found = Counter((pod.namespace, Job.KIND) for pod in snapshot.orphans if is_stray(pod))
    for pool in snapshot.serving_pools.values():
        if past := freed(pool):
            found[pool.namespace, pool.KIND] += len(past)
    return found


def is_stray(pod: Pod) -> bool:
    """Whether what looks like a worker was never one, and holds a node all the same."""
    return not pod.owner_uid and pod.bound and not pod.is_over


def agent_state(sighting: Sighting | None, now: datetime, silent_after: timedelta) -> str:
    """`heard`, `silent` (it wrote once, but not of late) or `absent` (it never wrote)."""
    if sighting is None:
        return "absent"
    heartbeat = sighting.status.heartbeat_time
    return "heard" if heartbeat is not None and now - heartbeat < silent_after else "silent"

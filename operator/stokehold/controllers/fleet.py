"""Metrics of the nodes: GPUs by pool and state, and whether their agents are heard."""

from collections import Counter
from datetime import datetime, timedelta

from stokehold.model.snapshot import Sighting, Snapshot
from stokehold.observability import metrics
from stokehold.planning.placement.pools import count_gpus, resolve_pools


def count_fleet(snapshot: Snapshot, silent_after: timedelta) -> None:
    """Publish how things stand; pools and nodes that are gone leave no series."""
    metrics.GPUS.clear()
    metrics.GPU_NODES.clear()
    for pool in resolve_pools(snapshot):
        if not pool.gpu_type:
            continue
        gpus = count_gpus(pool, snapshot)
        for state, count in (("allocatable", gpus.allocatable), ("used", gpus.used), ("free", gpus.free)):
            metrics.GPUS.labels(pool.name, pool.gpu_type, state).set(count)
        agents = Counter(
            agent_state(snapshot.sightings.get(name), snapshot.taken_at, silent_after) for name in pool.members
        )
        for state in ("heard", "silent", "absent"):
            metrics.GPU_NODES.labels(pool.name, state).set(agents[state])


def agent_state(sighting: Sighting | None, now: datetime, silent_after: timedelta) -> str:
    """`heard`, `silent` (it wrote once, but not of late) or `absent` (it never wrote)."""
    if sighting is None:
        return "absent"
    heartbeat = sighting.status.heartbeat_time
    return "heard" if heartbeat is not None and now - heartbeat < silent_after else "silent"

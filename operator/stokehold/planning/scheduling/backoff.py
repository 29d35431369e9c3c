"""How long to hold back after an attempt has ended, and which nodes to leave alone for a while.

Everything is derived from what the jobs' own statuses record, and from the replicas that failed, so a new leader knows
as much as the old one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime

from stokehold.api.v1alpha1.gpu_node import Gpu, MigDevice
from stokehold.api.v1alpha1.training_job import Eviction as EvictionRecord
from stokehold.model.pauses import doubled
from stokehold.model.reasons import Eviction
from stokehold.model.snapshot import Job, ServingPool, Sighting, Snapshot, Workspace
from stokehold.planning.scheduling.attempts import Attempt
from stokehold.planning.scheduling.lifecycle import End, was_refused
from stokehold.planning.scheduling.settings import SchedulingSettings


def requeue_time(job: Job, attempt: Attempt, end: End, now: datetime, settings: SchedulingSettings) -> datetime:
    """When the next attempt may start: later after each failure, soon after a fault of the cluster."""
    if end.reason == Eviction.WORKER_FAILED:
        return now + doubled(settings.restart_backoff, attempt.restarts, settings.longest_backoff)
    recent = [e for e in _recent(job, now, settings) if e.reason != Eviction.SUSPENDED]
    return now + doubled(settings.requeue_backoff, len(recent), settings.longest_backoff)


def unbound_on(job: Job, now: datetime, settings: SchedulingSettings) -> frozenset[str]:
    """Nodes that kube-scheduler would not bind the job's workers to of late: others come first."""
    return frozenset(e.node for e in _recent(job, now, settings) if e.reason == Eviction.BIND_TIMEOUT and e.node)


def nodes_to_avoid(snapshot: Snapshot, settings: SchedulingSettings) -> frozenset[str]:
    """Nodes whose kubelet has refused workers more than once of late; forgiven when the last refusal is old enough."""
    refusals: dict[str, int] = defaultdict(int)
    for job in snapshot.jobs.values():
        for eviction in _recent(job, snapshot.taken_at, settings):
            if eviction.reason == Eviction.REJECTED_BY_NODE:
                refusals[eviction.node] += 1
    return _refusing(refusals, settings)


def nodes_to_avoid_for(pool: ServingPool, snapshot: Snapshot, settings: SchedulingSettings) -> frozenset[str]:
    """The same from a pool's failed replicas, for that pool alone: anybody can make pods that look like its own."""
    refusals: dict[str, int] = defaultdict(int)
    for pod in filter(was_refused, pool.pods):
        if pod.placed_at is not None and snapshot.taken_at - pod.placed_at <= settings.fault_window:
            refusals[pod.node] += 1
    return _refusing(refusals, settings)


def nodes_that_refused(workspace: Workspace, snapshot: Snapshot, settings: SchedulingSettings) -> frozenset[str]:
    """The same from what its StatefulSet remembers, which is its owner's to edit: for that workspace alone."""
    refusals: dict[str, int] = defaultdict(int)
    for refusal in workspace.pod_set.refusals if workspace.pod_set is not None else ():
        if snapshot.taken_at - refusal.at <= settings.fault_window:
            refusals[refusal.node] += 1
    return _refusing(refusals, settings)


def nodes_for_last(workspace: Workspace) -> tuple[str, ...]:
    """Nodes that have refused its pod since it last came up, the latest last: all others come first, however long ago.

    Once its pauses are as long as `fault_window` no two refusals lie within that, and nothing else keeps it from them.
    """
    status, known = workspace.status, workspace.pod_set
    ups = [at for at in (status.start_time, status.stopped_at) if at is not None]
    refusals = known.refusals if known is not None else ()
    latest = {one.node: one.at for one in sorted(refusals, key=lambda one: one.at) if all(one.at > at for at in ups)}
    return tuple(sorted(latest, key=lambda node: latest[node]))


def used_by_strangers(snapshot: Snapshot) -> frozenset[str]:
    """Nodes on which a GPU that nobody was given is in use all the same: work that is placed there may get that one."""
    return frozenset(
        name
        for name, sighting in snapshot.sightings.items()
        if any(device.foreign_users and not device.owners for device in _devices(sighting))
    )


def _devices(sighting: Sighting) -> Iterator[Gpu | MigDevice]:
    for gpu in sighting.status.gpus:
        yield gpu
        yield from gpu.mig_devices


def _recent(job: Job, now: datetime, settings: SchedulingSettings) -> list[EvictionRecord]:
    return [e for e in job.status.evictions if e.time is not None and now - e.time <= settings.fault_window]


def _refusing(refusals: Mapping[str, int], settings: SchedulingSettings) -> frozenset[str]:
    return frozenset(node for node, count in refusals.items() if count >= settings.refusals_to_avoid)

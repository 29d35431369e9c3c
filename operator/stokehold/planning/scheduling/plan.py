"""What to do about work that wants GPUs now.

    release   pods whose job is gone, that ended with an attempt that has been recorded, or that nobody could bind
    close     attempts that are over: finished, failed, lost, suspended, too long
    complete  gangs of which only a part was created before somebody died, or that have lost their Service
    admit     waiting gangs, workspaces and replicas, by priority and age, whole or not at all
    report    what users should know: running, or why not

Each step looks at the snapshot alone, so the order of the actions is the order in which they may be carried out,
and a plan that was carried out in part is simply made again.
"""

from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import datetime

from stokehold.model.actions import Action
from stokehold.model.demand import asking, avoiding, beyond
from stokehold.model.snapshot import ServingPool, Snapshot, Workspace
from stokehold.planning.placement.pools import resolve_pools
from stokehold.planning.placement.priorities import priority_of
from stokehold.planning.scheduling.admitting import admit, complete_gangs
from stokehold.planning.scheduling.backoff import nodes_that_refused, nodes_to_avoid_for
from stokehold.planning.scheduling.closing import close_attempts
from stokehold.planning.scheduling.lifecycle import Standing, standings_of
from stokehold.planning.scheduling.queue_status import report_queues
from stokehold.planning.scheduling.queueing import Entry, Gang, Queues, Replica, Work, order, why_not_queued
from stokehold.planning.scheduling.releasing import let_history_go, release
from stokehold.planning.scheduling.services import next_restore, restore_services
from stokehold.planning.scheduling.settings import SchedulingSettings
from stokehold.planning.scheduling.single_pods import (
    promised_replicas,
    waiting_replicas,
    waiting_workspaces,
    why_replica_waits,
    why_workspace_waits,
)
from stokehold.planning.scheduling.starting import report_running
from stokehold.planning.scheduling.telling import Held, Teller, next_telling, owner_of


def plan_scheduling(snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Everything that can be done now, in the order in which it may be done."""
    yield from report_queues(snapshot)
    yield from release(snapshot, settings)
    queues = Queues(snapshot)
    standings = list(standings_of(queues, settings))
    yield from let_history_go(standings)
    yield from close_attempts(standings, snapshot, settings)
    going = [standing for standing in standings if standing.end is None]
    pools = resolve_pools(snapshot)
    completions = list(complete_gangs(going, snapshot, pools))
    yield from completions
    gangs = (s.job for s in going if s.attempt.size > 1 and not s.attempt.missing)
    yield from restore_services(gangs, snapshot, settings)
    yield from report_running(going, snapshot, settings)
    waiting = [standing for standing in going if not standing.attempt.pods]
    teller = Teller(snapshot, replace(settings, refresh_every=settings.refresh_interval(len(waiting))))
    entries = yield from _queue_up(waiting, queues, teller)
    if entries:
        yield from admit(entries, completions, pools, teller)


def next_due(snapshot: Snapshot, settings: SchedulingSettings) -> datetime | None:
    """When there is something to do next although nothing changes; None when the next look at all is soon enough."""
    dues = (next_telling(snapshot, settings), next_restore(snapshot, settings))
    return min((due for due in dues if due is not None), default=None)


def _queue_up(waiting: list[Standing], queues: Queues, teller: Teller) -> Generator[Action, None, list[Entry]]:
    """All that may be placed, in their order; the others are told what keeps them out of the queue."""
    snapshot, settings = queues.snapshot, teller.settings
    entries: list[Entry] = []
    for job, attempt in ((s.job, s.attempt) for s in waiting):
        why = why_not_queued(job, attempt, queues, settings)
        if why is not None:
            yield from teller.tell(Held(Gang(job, attempt), why))
        else:
            entries.append(_entry(Gang(job, attempt), job.created_at, queues, settings))
    for workspace in waiting_workspaces(snapshot):
        why = why_workspace_waits(workspace, queues, settings)
        if why is not None:
            yield from teller.tell(Held(workspace, why))
        else:
            entries.append(_entry(workspace, workspace.created_at, queues, settings))
    for replica in waiting_replicas(snapshot):
        why = why_replica_waits(replica, queues)
        if why is not None:
            yield from teller.tell(Held(replica, why))
        else:
            entries.append(_entry(replica, replica.pod.created_at or replica.pool.created_at, queues, settings))
    entries += (_entry(promised, snapshot.taken_at, queues, settings) for promised in promised_replicas(snapshot))
    return sorted(entries, key=order)


def _entry(work: Work, since: datetime, queues: Queues, settings: SchedulingSettings) -> Entry:
    owner = owner_of(work)
    priority = priority_of(owner, queues.snapshot.priority_classes)
    demand = owner.demand
    if isinstance(work, Replica):
        demand = asking(demand, beyond(demand, work.pod.requests))  # it is there, with all that was added to it
    if isinstance(owner, ServingPool):
        demand = avoiding(demand, nodes_to_avoid_for(owner, queues.snapshot, settings))
    if isinstance(owner, Workspace):
        demand = avoiding(demand, {*demand.avoid, *nodes_that_refused(owner, queues.snapshot, settings)})
    return Entry(work, owner, demand, since, priority, queues.of(owner))

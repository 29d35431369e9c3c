"""What to do about work that wants GPUs now.

    release   pods whose job is gone, that ended with an attempt that has been recorded, or that nobody could bind
    close     attempts that are over: finished, failed, lost, suspended, too long
    complete  gangs of which only a part was created before somebody died, or that have lost their Service
    admit     waiting gangs, workspaces and replicas, by priority and age, whole or not at all
    report    what users should know: running, or why not

Each step looks at the snapshot alone, so the order of the actions is the order in which they may be carried out,
and a plan that was carried out in part is simply made again.
"""

from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stokehold.api.v1alpha1 import training_job as api
from stokehold.model.actions import (
    Action,
    AdmitJob,
    DeleteOrphan,
    DeletePod,
    FinishJob,
    Note,
    Placement,
    PlaceReplica,
    ReleasePod,
    StartWorkspace,
    WriteStatus,
)
from stokehold.model.demand import Demand, asking, avoiding, beyond
from stokehold.model.pods import Pod
from stokehold.model.reasons import Eviction, Finish, Progress
from stokehold.model.snapshot import Job, ServingPool, Snapshot, Workspace
from stokehold.planning.placement.additions import with_additions
from stokehold.planning.placement.explain import Explanation, explain
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import Shortfall, place_gang, shortfall
from stokehold.planning.placement.pools import Pool, resolve_pools
from stokehold.planning.placement.prices import Tariff, tariff_in
from stokehold.planning.placement.priorities import priority_of
from stokehold.planning.placement.purchases import Purchase, demand_of, held_nodes, standing_purchases
from stokehold.planning.scheduling import reporting
from stokehold.planning.scheduling.attempts import Attempt, current_attempt, is_over
from stokehold.planning.scheduling.backoff import (
    nodes_to_avoid,
    nodes_to_avoid_for,
    requeue_time,
    unbound_on,
    used_by_strangers,
)
from stokehold.planning.scheduling.bursting import with_burst
from stokehold.planning.scheduling.lifecycle import Case, End, end_of_attempt
from stokehold.planning.scheduling.queue_status import report_queues
from stokehold.planning.scheduling.queueing import (
    Entry,
    Gang,
    Promised,
    Queues,
    Replica,
    Work,
    order,
    why_not_queued,
)
from stokehold.planning.scheduling.services import restore_services
from stokehold.planning.scheduling.settings import SchedulingSettings
from stokehold.planning.scheduling.single_pods import (
    promised_replicas,
    reserve_started,
    unbound_replicas,
    useless_corpses,
    waiting_replicas,
    waiting_workspaces,
    why_replica_waits,
    why_workspace_waits,
)
from stokehold.planning.scheduling.telling import Held, Teller, owner_of
from stokehold.planning.scheduling.volumes import wants_new_volume, with_volume


@dataclass(frozen=True, slots=True)
class Standing:
    """One job that can still go on, with its attempt and how that has ended, if it has."""

    job: Job
    attempt: Attempt
    end: End | None


def plan_scheduling(snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Everything that can be done now, in the order in which it may be done."""
    yield from report_queues(snapshot)
    yield from _let_orphans_go(snapshot, settings)
    for pod in useless_corpses(snapshot, settings):
        yield DeletePod(pod, "newer replicas of its pool have failed too")
    for pod in unbound_replicas(snapshot, settings):
        yield DeletePod(pod, "kube-scheduler could not bind it to its node")
    yield from _tidy_finished(snapshot)
    queues = Queues(snapshot)
    standings = list(_standings(queues, settings))
    yield from _tidy_history(standings)
    yield from _close_attempts(standings, snapshot, settings)
    going = [standing for standing in standings if standing.end is None]
    pools = resolve_pools(snapshot)
    completions = list(_complete_gangs(going, snapshot, pools))
    yield from completions
    yield from restore_services((s.job for s in going if s.attempt.size > 1 and not s.attempt.missing), snapshot)
    yield from _report_running(going, snapshot, settings)
    waiting = [standing for standing in going if not standing.attempt.pods]
    teller = Teller(snapshot, replace(settings, refresh_every=settings.refresh_interval(len(waiting))))
    entries = yield from _queue_up(waiting, queues, teller)
    if entries:
        purchases = standing_purchases(snapshot)
        ledger = _ledger(entries, completions, pools, purchases, teller)
        yield from _place(entries, ledger, purchases, teller)


def _let_orphans_go(snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Nobody will ask for their outcome any more. What never had a TrainingJob is not ours to delete."""
    for pod in snapshot.orphans:
        if pod.tracked and (pod.terminating_since is not None or not pod.owner_uid):
            yield ReleasePod(pod, "its TrainingJob is gone")
        since = pod.orphaned_since
        if pod.terminating_since is None and since is not None and snapshot.time_given(since) >= settings.orphan_grace:
            yield DeleteOrphan(pod)


def _tidy_finished(snapshot: Snapshot) -> Iterator[Action]:
    """Pods of jobs that are over or being deleted: record what is missing, then let them go."""
    for job in snapshot.jobs.values():
        if snapshot.is_going(job):
            yield from _let_go(job.pods, "its TrainingJob is being deleted")
        elif is_over(job):
            yield from _record_both(job, snapshot)
            if job.proof is not None and job.status.phase == job.proof.outcome:
                yield from _let_go(job.pods, "its TrainingJob has finished")


def _record_both(job: Job, snapshot: Snapshot) -> Iterator[Action]:
    """The end stands on the object and in its status; whichever is missing is written again from the other."""
    attempt = current_attempt(job)
    if job.proof is None:
        yield FinishJob(job, reporting.proof_from_status(job, snapshot.taken_at), None)
    elif job.status.phase != job.proof.outcome:
        status = reporting.finished(job, attempt, job.proof, _tariff(attempt, snapshot), snapshot.taken_at)
        yield FinishJob(job, job.proof, status)


def _standings(queues: Queues, settings: SchedulingSettings) -> Iterator[Standing]:
    snapshot = queues.snapshot
    corpses: dict[tuple[str, str], list[Pod]] = {}
    for pod in snapshot.orphans:
        if pod.worker:
            corpses.setdefault((pod.namespace, pod.worker.job), []).append(pod)
    for job in snapshot.jobs.values():
        if is_over(job) or snapshot.is_going(job):
            continue
        attempt = current_attempt(job, corpses.get(job.key, ()))
        yield Standing(job, attempt, end_of_attempt(Case(job, attempt, snapshot, queues, settings)))


def _tidy_history(standings: list[Standing]) -> Iterator[Action]:
    for standing in standings:
        yield from _let_go(standing.attempt.history, "its attempt is over")


def _let_go(pods: tuple[Pod, ...], why: str) -> Iterator[Action]:
    """Workers that still run are deleted; those that ended stay for their logs until the job goes."""
    for pod in pods:
        if pod.is_active:
            yield DeletePod(pod, why)
        if pod.tracked:
            yield ReleasePod(pod, why)


def _close_attempts(standings: list[Standing], snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    now = snapshot.taken_at
    for job, attempt, end in ((s.job, s.attempt, s.end) for s in standings):
        if end is None:
            continue
        tariff = _tariff(attempt, snapshot)
        if isinstance(end.reason, Finish):
            proof = reporting.proof_of(attempt, end, now)
            failed = proof.outcome == api.FAILED
            notes = (Note(end.reason, end.message, f"finished {attempt.number}", warning=True),) if failed else ()
            yield FinishJob(job, proof, reporting.finished(job, attempt, proof, tariff, now), notes)
        else:
            again = requeue_time(job, attempt, end, now, settings)
            warning = end.reason is not Eviction.SUSPENDED
            note = Note(end.reason, end.message, f"closed {attempt.number}", warning)
            status = reporting.requeued(job, attempt, end, again, tariff, now)
            yield WriteStatus(job, status, (note,), closes_attempt=end.reason)


def _tariff(attempt: Attempt, snapshot: Snapshot) -> Tariff:
    """What the attempt's GPUs cost, by the pool that its pods name."""
    worker = attempt.pods[0].worker if attempt.pods else None
    return tariff_in(snapshot, worker.pool) if worker is not None else Tariff()


def _complete_gangs(going: list[Standing], snapshot: Snapshot, pools: Collection[Pool]) -> Iterator[AdmitJob]:
    by_name = {pool.name: pool for pool in pools}
    for job, attempt in ((s.job, s.attempt) for s in going if s.attempt.missing):
        pool = by_name.get(attempt.lead.worker.pool) if attempt.lead and attempt.lead.worker else None
        placement = reporting.planned(attempt, pool, snapshot.nodes)
        if placement is not None:
            priority_class = _pod_priority_class(job, snapshot)
            yield AdmitJob(job, attempt.number, attempt.restarts, placement, attempt.missing, priority_class)


def _report_running(going: list[Standing], snapshot: Snapshot, settings: SchedulingSettings) -> Iterator[Action]:
    """Running is told when all workers run; a gang that takes long to start is told to be starting."""
    now = snapshot.taken_at
    whole = [(s.job, s.attempt) for s in going if s.attempt.pods and not s.attempt.missing]
    running = [(job, attempt) for job, attempt in whole if _all_run(attempt)]
    starting = [(job, attempt) for job, attempt in whole if not _all_run(attempt)]
    # A job of seconds that nobody was told of yet goes straight to its end: one write less of ten.
    early = settings.running_interval(sum(not job.status.phase for job, _ in running))
    until = {"": early, api.STARTING: settings.first_running_after}
    for job, attempt in running:
        told = job.status.phase == api.RUNNING and job.status.observed_generation == job.generation
        if not told and _runs_for(attempt, snapshot) >= until.get(job.status.phase, timedelta()):
            yield WriteStatus(job, reporting.started(job, attempt, now), _admitted_note(job, attempt))
    slow = settings.start_interval(len(starting))
    for job, attempt in starting:
        if _starts_slowly(attempt, snapshot, slow) and reporting.is_news_of_start(job, attempt):
            yield WriteStatus(job, reporting.starting(job, attempt, now))


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
    return Entry(work, owner, demand, since, priority, queues.of(owner))


def _ledger(
    entries: list[Entry],
    completions: list[AdmitJob],
    pools: Collection[Pool],
    purchases: Mapping[str, Purchase],
    teller: Teller,
) -> Ledger:
    """What is free for the entries: less what half-created gangs were promised, and what was bought for one alone."""
    snapshot = teller.snapshot
    demands = {entry.demand for entry in entries}
    demands |= {workspace.demand for workspace in snapshot.workspaces.values()}
    avoid = nodes_to_avoid(snapshot, teller.settings)
    ledger = Ledger(snapshot, pools, demands, avoid, held_nodes(purchases.values()))
    for gang in completions:
        for index in gang.missing:
            ledger.reserve(gang.placement.nodes[index], gang.job.demand, gang.placement.gpu_resource)
    reserve_started(ledger, snapshot)
    return ledger


def _place(entries: list[Entry], ledger: Ledger, purchases: Mapping[str, Purchase], teller: Teller) -> Iterator[Action]:
    """Whole gangs in their order, each where it fits best; the others are told why not."""
    strangers = used_by_strangers(teller.snapshot)
    hopeless: set[Demand] = set()
    waiting: list[tuple[Entry, Demand]] = []
    admitted = 0
    for entry in entries:
        owner = entry.owner
        demand = demand_of(owner, purchases) if isinstance(owner, Job) else entry.demand
        if demand not in hopeless:
            if admitted == teller.settings.most_admissions:
                break
            found = _place_well(entry, demand, ledger, teller, strangers)
            if not isinstance(found, Shortfall):
                if not isinstance(entry.work, Promised):
                    admitted += 1
                    yield _admission(entry.work, found, teller.snapshot)
                continue
            # Nothing becomes free during a plan: what did not fit once will not fit later in it.
            hopeless.add(demand)
        if not isinstance(entry.work, Promised):  # its pod will tell
            waiting.append((entry, demand))
    yield from _tell_waiting(waiting, ledger, purchases, teller)


def _place_well(
    entry: Entry, demand: Demand, ledger: Ledger, teller: Teller, strangers: frozenset[str]
) -> Placement | Shortfall:
    """Where kube-scheduler has not refused the gang of late and no stranger is on a free GPU, if it fits there."""
    bad = strangers if demand.gpus else frozenset()
    if isinstance(entry.owner, Job) and entry.owner.status.evictions:
        bad |= unbound_on(entry.owner, teller.snapshot.taken_at, teller.settings)
    if bad:
        found = place_gang(ledger, avoiding(demand, {*demand.avoid, *bad}))
        if isinstance(found, Placement):
            return found
    return place_gang(ledger, demand)


def _tell_waiting(
    waiting: list[tuple[Entry, Demand]], ledger: Ledger, purchases: Mapping[str, Purchase], teller: Teller
) -> Iterator[Action]:
    """Why they wait, after all others have got theirs: the next plan would say the same."""
    pools = tuple(ledger.pools.values())
    reasons: dict[tuple[str, Demand], Explanation] = {}
    position_in: dict[str, int] = {}
    for entry, demand in waiting:
        key = (entry.owner.KIND, demand)
        if key not in reasons:
            reasons[key] = explain(shortfall(ledger, demand), pools, entry.owner.KIND)
        position = position_in[entry.queue] = position_in.get(entry.queue, 0) + 1
        why = reasons[key]
        if isinstance(entry.owner, Job):
            why = with_burst(entry.owner, why, purchases, pools, teller.snapshot)
        if isinstance(entry.owner, ServingPool):
            why = with_additions(beyond(entry.owner.demand, dict(demand.requests)), why)
        else:
            why = with_volume(entry.owner, with_additions(entry.owner.added, why))
        yield from teller.tell(Held(entry.work, why, position))


def _admission(work: Gang | Workspace | Replica, placement: Placement, snapshot: Snapshot) -> Action:
    match work:
        case Gang(job, attempt):
            missing = tuple(range(len(placement.nodes)))
            priority_class = _pod_priority_class(job, snapshot)
            return AdmitJob(job, attempt.number, attempt.restarts, placement, missing, priority_class)
        case Replica(pool, pod):
            return PlaceReplica(pool, pod, placement)
        case workspace:
            return StartWorkspace(workspace, placement, wants_new_volume(workspace))


def _admitted_note(job: Job, attempt: Attempt) -> tuple[Note, ...]:
    """An Event for those who were told to wait; whoever starts at once sees it in the phase."""
    if job.status.queue is None or attempt.lead is None:
        return ()
    nodes = ", ".join(sorted({pod.node for pod in attempt.pods}))
    return (Note(Progress.ADMITTED, f"attempt {attempt.number} runs on {nodes}", f"admitted {attempt.number}"),)


def _all_run(attempt: Attempt) -> bool:
    return all(pod.phase in ("Running", "Succeeded") for pod in attempt.pods)


def _runs_for(attempt: Attempt, snapshot: Snapshot) -> timedelta:
    """Since its last worker started; a worker that ended before it was seen has told no start."""
    started = attempt.started_at
    return snapshot.taken_at - started if started is not None else timedelta.max


def _starts_slowly(attempt: Attempt, snapshot: Snapshot, slow: timedelta) -> bool:
    born = [pod.created_at for pod in attempt.pods if pod.created_at is not None]
    return bool(born) and snapshot.taken_at - min(born) >= slow


def _pod_priority_class(job: Job, snapshot: Snapshot) -> str:
    """The class for the pods: only one that never preempts. Who must leave is decided here, not by kube-scheduler."""
    known = snapshot.priority_classes.get(job.spec.priority_class_name or "")
    return known.name if known is not None and not known.preempts else ""

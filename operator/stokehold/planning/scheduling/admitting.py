"""Who gets which nodes: whole gangs, workspaces and replicas in their order, each where it fits best. Pure."""

from collections.abc import Collection, Iterator, Mapping

from stokehold.model.actions import Action, AdmitJob, Placement, PlaceReplica, StartWorkspace
from stokehold.model.demand import Demand, avoiding, beyond
from stokehold.model.snapshot import Job, ServingPool, Snapshot, Workspace
from stokehold.planning.placement.additions import with_additions
from stokehold.planning.placement.explain import Explanation, explain
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import Shortfall, fits, place_gang, shortfall
from stokehold.planning.placement.pools import Pool
from stokehold.planning.placement.purchases import Purchase, demand_of, held_nodes, standing_purchases
from stokehold.planning.scheduling import reporting
from stokehold.planning.scheduling.backoff import nodes_for_last, nodes_to_avoid, unbound_on, used_by_strangers
from stokehold.planning.scheduling.bursting import with_burst
from stokehold.planning.scheduling.lifecycle import Standing
from stokehold.planning.scheduling.queueing import Entry, Gang, Promised, Replica
from stokehold.planning.scheduling.single_pods import reserve_started
from stokehold.planning.scheduling.telling import Held, Teller
from stokehold.planning.scheduling.volumes import wants_new_volume, with_volume


def complete_gangs(going: list[Standing], snapshot: Snapshot, pools: Collection[Pool]) -> Iterator[AdmitJob]:
    """What is missing of gangs of which only a part was created, where their lead worker says that it should be."""
    by_name = {pool.name: pool for pool in pools}
    for job, attempt in ((s.job, s.attempt) for s in going if s.attempt.missing):
        pool = by_name.get(attempt.lead.worker.pool) if attempt.lead and attempt.lead.worker else None
        placement = reporting.planned(attempt, pool, snapshot.nodes)
        if placement is not None:
            priority_class = _pod_priority_class(job, snapshot)
            yield AdmitJob(job, attempt.number, attempt.restarts, placement, attempt.missing, priority_class)


def admit(
    entries: list[Entry], completions: list[AdmitJob], pools: Collection[Pool], teller: Teller
) -> Iterator[Action]:
    """All that can start now; the others are told why not."""
    purchases = standing_purchases(teller.snapshot)
    ledger = _ledger(entries, completions, pools, purchases, teller)
    yield from _place(entries, ledger, purchases, teller)


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


def _place_well(
    entry: Entry, demand: Demand, ledger: Ledger, teller: Teller, strangers: frozenset[str]
) -> Placement | Shortfall:
    """Where nobody has refused it of late and no stranger is on a free GPU, if it fits there."""
    bad = strangers if demand.gpus else frozenset()
    if isinstance(entry.owner, Job) and entry.owner.status.evictions:
        bad |= unbound_on(entry.owner, teller.snapshot.taken_at, teller.settings)
    last = nodes_for_last(entry.owner) if isinstance(entry.owner, Workspace) else ()
    if bad or last:
        found = place_gang(ledger, avoiding(demand, {*demand.avoid, *bad, *last}))
        if isinstance(found, Placement):
            return found
    turns = range(1, len(last)) if last and fits(ledger, demand) else ()
    for turn in turns:  # one node after another, the one whose refusal is the oldest first
        found = place_gang(ledger, avoiding(demand, {*demand.avoid, *last[turn:]}))
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
            why = with_additions(entry.owner.added, why)
        why = with_volume(entry.owner, why)
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


def _pod_priority_class(job: Job, snapshot: Snapshot) -> str:
    """The class for the pods: only one that never preempts. Who must leave is decided here, not by kube-scheduler."""
    known = snapshot.priority_classes.get(job.spec.priority_class_name or "")
    return known.name if known is not None and not known.preempts else ""

"""Which idle workspaces are in the way of work that waits: work that could start if they gave their GPUs back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain

from stokehold.model.demand import Demand
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Pod, Resources, Snapshot, Workspace
from stokehold.model.statuses import Owner
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import Shortfall, place_gang
from stokehold.planning.placement.pools import resolve_pools

FOR_LACK_OF_ROOM = (Waiting.WAITING_FOR_CAPACITY, Waiting.TOPOLOGY_PLACEMENT_FAILED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An idle workspace, its pod, and for how long it has been quiet."""

    workspace: Workspace
    pod: Pod
    quiet: timedelta


def pressed(snapshot: Snapshot, candidates: Sequence[Candidate]) -> frozenset[str]:
    """The uids of the candidates that must go so that waiting work can start, the longest idle first.

    They are taken away one after the other until one more piece of work fits; a gang that does not fit even without
    all of them presses none.
    """
    wanted = tuple(dict.fromkeys(_waiting_demands(snapshot)))
    if not wanted or not candidates:
        return frozenset()
    left = sorted(candidates, key=lambda c: (-c.quiet, c.workspace.key))
    chosen: set[str] = set()
    for demand in wanted:
        fewest = _fewest(snapshot, left, demand)
        chosen |= {candidate.workspace.uid for candidate in fewest}
        left = [candidate for candidate in left if candidate.workspace.uid not in chosen]
    return frozenset(chosen)


def _waiting_demands(snapshot: Snapshot) -> Iterator[Demand]:
    """What waits for room, as it has been told."""
    owners: chain[Owner] = chain(snapshot.jobs.values(), snapshot.workspaces.values(), snapshot.serving_pools.values())
    for owner in owners:
        queue = owner.status.queue
        if queue is not None and queue.reason in FOR_LACK_OF_ROOM and not owner.deleting and owner.demand.gpus:
            yield owner.demand


def _fewest(snapshot: Snapshot, left: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """The shortest head of the list without which the demand fits, less those in it that do not matter."""
    if _fits(snapshot, left, demand) is False or _fits(snapshot, (), demand):
        return ()  # it waits for something else, or starts by itself
    low, high = 0, len(left)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(snapshot, left[:middle], demand) else (middle, high)
    needed = list(left[:high])
    for candidate in needed[:-1]:
        fewer = [other for other in needed if other is not candidate]
        if _fits(snapshot, fewer, demand):
            needed = fewer
    return needed


def _fits(snapshot: Snapshot, gone: Sequence[Candidate], demand: Demand) -> bool:
    used = dict(snapshot.used)
    for candidate in gone:
        used[candidate.pod.node] = _less(used.get(candidate.pod.node, {}), candidate.pod.requests)
    ledger = Ledger(replace(snapshot, used=used), resolve_pools(snapshot), [demand])
    return not isinstance(place_gang(ledger, demand), Shortfall)


def _less(amounts: Resources, taken: Resources) -> Resources:
    return {name: max(0, amount - taken.get(name, 0)) for name, amount in amounts.items()}

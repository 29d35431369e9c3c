"""Which idle workspaces are in the way of work that waits: work that could start if they gave their GPUs back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain, islice

from stokehold.model.accounting import Resources
from stokehold.model.demand import Demand
from stokehold.model.pods import Pod
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Snapshot, Workspace
from stokehold.model.statuses import Owner
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import fits
from stokehold.planning.placement.pools import Pool, resolve_pools

FOR_LACK_OF_ROOM = (Waiting.WAITING_FOR_CAPACITY, Waiting.TOPOLOGY_PLACEMENT_FAILED)
MOST_PRESSING = 20
"""Pieces of work for which one plan looks for workspaces to stop; the next plan looks for those that are left."""


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
    room = _Room(snapshot, resolve_pools(snapshot))
    chosen: set[str] = set()
    for demand in islice(room.pressing(wanted, left), MOST_PRESSING):
        fewest = _fewest(room, left, demand)
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


@dataclass(frozen=True, slots=True)
class _Room:
    """The cluster as it would be without some of the candidates."""

    snapshot: Snapshot
    pools: tuple[Pool, ...]

    def pressing(self, wanted: Sequence[Demand], candidates: Sequence[Candidate]) -> Iterator[Demand]:
        """Those that do not fit now and would without any of the candidates: two looks at the cluster for them all."""
        now, without = self._ledger((), wanted), self._ledger(candidates, wanted)
        return (demand for demand in wanted if fits(without, demand) and not fits(now, demand))

    def fits(self, gone: Sequence[Candidate], demand: Demand) -> bool:
        """Whether the demand fits once these are gone."""
        return fits(self._ledger(gone, [demand]), demand)

    def _ledger(self, gone: Sequence[Candidate], demands: Sequence[Demand]) -> Ledger:
        used = dict(self.snapshot.used)
        for candidate in gone:
            used[candidate.pod.node] = _less(used.get(candidate.pod.node, {}), candidate.pod.requests)
        return Ledger(replace(self.snapshot, used=used), self.pools, demands)


def _fewest(room: _Room, left: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """The shortest head of the list without which the demand fits, less those in it that do not matter."""
    if not room.fits(left, demand):
        return ()  # others of the candidates go for another's sake already
    low, high = 0, len(left)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if room.fits(left[:middle], demand) else (middle, high)
    needed = list(left[:high])
    for candidate in needed[:-1]:
        fewer = [other for other in needed if other is not candidate]
        if room.fits(fewer, demand):
            needed = fewer
    return needed


def _less(amounts: Resources, taken: Resources) -> Resources:
    return {name: max(0, amount - taken.get(name, 0)) for name, amount in amounts.items()}

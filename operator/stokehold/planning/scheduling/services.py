"""Services of work that runs: whoever deletes one cuts a gang or a user off, and nothing else brings it back. Pure.

One that is taken away as often as it is made comes back later each time, and its owner is told.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from stokehold.model import names
from stokehold.model.actions import Note, RestoreService
from stokehold.model.reasons import Event
from stokehold.model.snapshot import Job, Snapshot, Workspace
from stokehold.planning.scheduling.settings import SchedulingSettings
from stokehold.planning.scheduling.single_pods import is_started


def restore_services(
    gangs: Iterable[Job], snapshot: Snapshot, settings: SchedulingSettings
) -> Iterator[RestoreService]:
    """Those that these gangs, and workspaces that have a node, have lost."""
    if snapshot.with_service is None:
        return
    desks = (workspace for workspace in snapshot.workspaces.values() if _runs(workspace, snapshot))
    owners: tuple[Job | Workspace, ...] = (*gangs, *desks)
    for owner in owners:
        if owner.uid in snapshot.with_service:
            continue
        due = _due(owner.uid, snapshot, settings)
        if due is None or due <= snapshot.taken_at:
            yield RestoreService(owner, _notes(owner, snapshot))


def next_restore(snapshot: Snapshot, settings: SchedulingSettings) -> datetime | None:
    """When the next pause before a Service is made once more is over; None when there is none."""
    lost = snapshot.restores.keys() - (snapshot.with_service or frozenset())
    dues = (_due(uid, snapshot, settings) for uid in lost)
    return min((due for due in dues if due is not None and due > snapshot.taken_at), default=None)


def _runs(workspace: Workspace, snapshot: Snapshot) -> bool:
    return workspace.spec.running and is_started(workspace) and not snapshot.is_going(workspace)


def _due(uid: str, snapshot: Snapshot, settings: SchedulingSettings) -> datetime | None:
    last = snapshot.restores.get(uid)
    return last.at + settings.restore_pause(last.times) if last is not None else None


def _notes(owner: Job | Workspace, snapshot: Snapshot) -> tuple[Note, ...]:
    last = snapshot.restores.get(owner.uid)
    if last is None:  # once is a slip
        return ()
    name = names.service_name(owner.name) if isinstance(owner, Job) else names.workspace_name(owner.name)
    told = (
        f"its Service {name} is deleted, or loses its label, as often as it is made: it comes back later each time. "
        "Ask the platform team which policy or script does that."
    )
    return (Note(Event.SERVICE_TAKEN_AWAY, told, "service taken away", warning=True),)

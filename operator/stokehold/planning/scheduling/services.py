"""Services of work that runs: whoever deletes one cuts a gang or a user off, and nothing else brings it back. Pure."""

from collections.abc import Iterable, Iterator

from stokehold.model.actions import RestoreService
from stokehold.model.snapshot import Job, Snapshot
from stokehold.planning.scheduling.single_pods import is_started


def restore_services(gangs: Iterable[Job], snapshot: Snapshot) -> Iterator[RestoreService]:
    """Those that these gangs, and workspaces that have a node, have lost."""
    if snapshot.with_service is None:
        return
    for job in gangs:
        if job.uid not in snapshot.with_service:
            yield RestoreService(job)
    for workspace in snapshot.workspaces.values():
        runs = workspace.spec.running and is_started(workspace) and not snapshot.is_going(workspace)
        if runs and workspace.uid not in snapshot.with_service:
            yield RestoreService(workspace)

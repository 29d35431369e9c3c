"""The culling cycle: metrics of what was decided about DevWorkspaces, and of how they stand."""

from collections import Counter
from typing import Any

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.model.actions import Action, EndWorkspace, WriteStatus
from stokehold.model.reasons import Idleness, Stop
from stokehold.model.snapshot import Snapshot, Workspace
from stokehold.observability import metrics
from stokehold.planning.culling.standing import held_gpus

REFUSALS = (
    Idleness.DRY_RUN,
    Idleness.NO_PRESSURE,
    Idleness.MASS_IDLE,
    Idleness.SNOOZED,
    Idleness.EXEMPT,
    Idleness.COVERAGE_TOO_LOW,
)
for _reason in REFUSALS:  # a series that starts at 1 hides its first increase
    metrics.WORKSPACE_STOPS_REFUSED.labels(_reason)
for _stop in Stop:
    metrics.WORKSPACE_STOPS.labels(_stop)


def count_done(action: Action) -> None:
    """Metrics of a decision that has been carried out."""
    match action:
        case EndWorkspace():
            metrics.WORKSPACE_STOPS.labels(action.record.reason).inc()
        case WriteStatus(subject=Workspace() as workspace):
            _count_refusal(workspace, action.status)
        case _:
            pass  # no more is told of them than that they were done


def count_state(snapshot: Snapshot) -> None:
    """Metrics of how things stand."""
    phases: Counter[str] = Counter()
    idle: Counter[str] = Counter()
    unknown = mass_idle = reclaimed = 0
    for workspace in snapshot.workspaces.values():
        phases[workspace.status.phase or "Pending"] += 1
        reclaimed += _reclaimed(workspace, snapshot)
        told = find_condition(workspace.status.conditions, conditions.IDLE)
        if told is None:
            continue
        idle[told.reason] += told.status == conditions.TRUE
        unknown += told.status == conditions.UNKNOWN
        mass_idle += told.reason == Idleness.MASS_IDLE
    for gauge, counts in ((metrics.WORKSPACES, phases), (metrics.WORKSPACES_IDLE, +idle)):
        gauge.clear()
        for label, count in counts.items():
            gauge.labels(label).set(count)
    metrics.WORKSPACES_UNKNOWN.set(unknown)
    metrics.MASS_IDLE_BREAKER_OPEN.set(min(mass_idle, 1))
    metrics.RECLAIMED_GPU_SECONDS.set(reclaimed)


def _count_refusal(workspace: Workspace, status: dict[str, Any]) -> None:
    before = find_condition(workspace.status.conditions, conditions.IDLE)
    after = next((c for c in status.get("conditions", ()) if c["type"] == conditions.IDLE), None)
    if after is None or not _is_refusal(after["reason"], after["status"]):
        return
    if before is None or before.reason != after["reason"] or not _is_refusal(before.reason, before.status):
        metrics.WORKSPACE_STOPS_REFUSED.labels(after["reason"]).inc()


def _is_refusal(reason: str, status: str) -> bool:
    """Whether the condition Idle says that a stop was due; a reason may be told before that."""
    return reason in REFUSALS and (status == conditions.TRUE or reason == Idleness.COVERAGE_TOO_LOW)


def _reclaimed(workspace: Workspace, snapshot: Snapshot) -> int:
    status = workspace.status
    before = status.usage.reclaimed_gpu_seconds or 0 if status.usage else 0
    stopped = status.phase == "Stopped" and status.stop_reason == Stop.IDLE
    if not stopped or status.stopped_at is None:
        return before
    return before + held_gpus(workspace) * round((snapshot.taken_at - status.stopped_at).total_seconds())

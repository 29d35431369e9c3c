"""What the status of a workspace says, written when it tells the owner something new. Pure."""

from datetime import datetime, timedelta
from typing import Any

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.v1alpha1.dev_workspace import (
    Activity,
    SignalStatus,
    WorkspacePlacement,
    WorkspaceUsage,
)
from stokehold.model import names
from stokehold.model.reasons import Idleness, Progress, Stop, Support
from stokehold.model.snapshot import Snapshot, Workspace
from stokehold.model.statuses import News, Recorded, Status, render, told_conditions, whole
from stokehold.planning.culling import standing
from stokehold.planning.culling.clock import Clock
from stokehold.planning.culling.exemption import why_too_long
from stokehold.planning.culling.judging import Verdict, Watched
from stokehold.planning.culling.signals import Signal, State
from stokehold.planning.culling.standing import Ending
from stokehold.planning.culling.timetable import ClockStop, what_is_wrong
from stokehold.planning.placement.pools import resolve_pools

NOTEWORTHY = timedelta(seconds=60)
"""Activity is written at once if the clock that it turns back had come further than this."""
FIGURES = (
    "lastActiveTime",
    "quietSeconds",
    "coveragePercent",
    "unknownSeconds",
    "quietSince",
    "measuredSince",
    "observedTime",
)


def running(one: Watched, verdict: Verdict, stop: ClockStop | None, snapshot: Snapshot) -> Status:
    """Somebody could work in it: how it is used, and when and why it will be stopped."""
    workspace, now = one.workspace, snapshot.taken_at
    soon = stop is not None and stop.at - now <= one.lead
    ready = (Progress.RUNNING, standing.caveat(workspace))
    if stop and soon:
        ready = (Progress.STOPS_SOON, f"stops at {stop.at:%H:%M:%S} UTC: {stop.message}")
    ends = [end for end in (verdict.stop_at, stop.at if stop else None) if end is not None]
    update: dict[str, Any] = {
        "phase": _phase(one, verdict),
        "queue": None,
        "url": f"http://{names.workspace_name(workspace.name)}.{workspace.namespace}.svc:{workspace.spec.port}",
        "placement": _placement(workspace, one.pod.node, snapshot),
        "activity": _activity(one.clock, one.signals),
        "failed_starts": None,
        "requeue_at": None,
        "start_time": one.started,
        "warned_at": verdict.warned_at,
        "stop_at": min(ends, default=None),
        "snoozed_until": one.snoozed.until,
        "snoozed_at": one.snoozed.granted_at,
        "snoozed_seconds_today": one.snoozed.seconds_today,
        "snooze_request": one.snoozed.request,
        "usage": _usage_at_start(workspace, one.started),
        "conditions": told_conditions(
            workspace,
            now,
            (conditions.ADMITTED, True, Progress.ADMITTED, f"runs on {one.pod.node}"),
            (conditions.READY, True, *ready),
            (conditions.IDLE, verdict.idle, verdict.reason, verdict.message),
            _validity(workspace, now),
        ),
    }
    return render(workspace, update)


def starting(workspace: Workspace, why: str, snapshot: Snapshot) -> Status:
    """It has its node; its pod is not ready."""
    node = workspace.pod_set.node if workspace.pod_set else ""
    update = {
        "phase": standing.STARTING,
        "queue": None,
        "placement": _placement(workspace, node, snapshot),
        "warned_at": None,
        "stop_at": None,
        "conditions": told_conditions(
            workspace,
            snapshot.taken_at,
            (conditions.ADMITTED, True, Progress.ADMITTED, f"was placed on {node}"),
            (conditions.READY, False, Progress.STARTING, why),
            (conditions.IDLE, False, Idleness.NOT_RUNNING, "its pod is not ready"),
            _validity(workspace, snapshot.taken_at),
        ),
    }
    return render(workspace, update)


def taken_back(workspace: Workspace, why: str, retry: tuple[int, datetime], now: datetime) -> Status:
    """Its pod could not start where it was put; `retry` is for the how-manieth time, and when it is tried again."""
    news = (
        (conditions.ADMITTED, False, Progress.TAKEN_BACK, why),
        (conditions.READY, False, Progress.TAKEN_BACK, why),
        (conditions.IDLE, False, Idleness.NOT_RUNNING, "it has no pod"),
    )
    update = {
        "phase": "Pending",
        "failed_starts": retry[0],
        "requeue_at": retry[1],
        "warned_at": None,
        "stop_at": None,
        "conditions": told_conditions(workspace, now, *news),
    }
    return render(workspace, update)


def ended(workspace: Workspace, ending: Ending, phase: str, now: datetime) -> Status:
    """It is stopped, or about to be: why, and how it starts again."""
    told = f"{ending.message}; set spec.running to true to start it, its volume is kept"
    update: dict[str, Any] = {
        "phase": phase,
        "queue": None,
        "warned_at": None,
        "stop_at": None,
        "failed_starts": None,
        "requeue_at": None,
        "snoozed_until": None,
        "stop_reason": ending.reason,
        "conditions": told_conditions(
            workspace,
            now,
            (conditions.READY, False, Recorded(ending.reason), told),
            (conditions.IDLE, False, Idleness.NOT_RUNNING, "it does not run"),
            _validity(workspace, now),
        ),
    }
    # It asks for nothing now: once it does again, the condition must tell since when it has waited, not since its stop.
    update["conditions"] = tuple(c for c in update["conditions"] if c.type != conditions.ADMITTED)
    started, before = workspace.status.start_time, workspace.status.stopped_at
    if started is not None and (before is None or before < started):
        stopped_at = max(whole(now), started)
        update |= {"stopped_at": stopped_at, "usage": _usage_at_stop(workspace, ending, started, stopped_at)}
    return render(workspace, update)


def is_worth_writing(workspace: Workspace, status: Status, refresh_every: timedelta) -> bool:
    """Whether the status has news; figures alone are rewritten now and then."""
    old = workspace.status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    if _essence(old) != _essence(status):
        return True
    before, after = workspace.status.activity, status.get("activity")
    if before is None or after is None:
        return bool(after)
    active = _moved(before.last_active_time, after.get("lastActiveTime"))
    turned_back = active > timedelta() and timedelta(seconds=before.quiet_seconds or 0) >= NOTEWORTHY
    return turned_back or max(active, _moved(before.observed_time, after.get("observedTime"))) >= refresh_every


def _phase(one: Watched, verdict: Verdict) -> str:
    if verdict.reason is Idleness.WARNED:
        return standing.WARNED
    return standing.QUIET if one.evidence.state is State.QUIET else standing.ACTIVE


def _activity(clock: Clock, signals: tuple[Signal, ...]) -> Activity:
    seen = clock.observed is not None
    return Activity(
        last_active_time=clock.last_active,
        quiet_seconds=round(clock.quiet.total_seconds()) if seen else None,
        unknown_seconds=round(clock.unknown.total_seconds()) if seen else None,
        coverage_percent=int(clock.coverage * 100) if clock.coverage is not None else None,
        quiet_since=clock.quiet_since,
        measured_since=clock.measured_since,
        observed_time=clock.observed,
        signals=tuple(SignalStatus(name=s.name, state=s.state, time=s.until, evidence=s.evidence) for s in signals),
    )


def _placement(workspace: Workspace, node: str, snapshot: Snapshot) -> WorkspacePlacement:
    pool = next((pool for pool in resolve_pools(snapshot) if node in pool.members), None)
    if pool is None:  # the node is not in the watch any more
        before = workspace.status.placement
        return before if before is not None and before.node == node else WorkspacePlacement(node=node)
    return WorkspacePlacement(pool=pool.name, gpu_type=pool.gpu_type, node=node)


def _usage_at_stop(workspace: Workspace, ending: Ending, started: datetime, stopped: datetime) -> WorkspaceUsage:
    usage, gpus = workspace.status.usage or WorkspaceUsage(), standing.held_gpus(workspace)
    ran, idle = stopped - started, _idle_time(workspace.status.activity, ending, stopped)
    return usage.model_copy(
        update={
            "gpu_seconds": (usage.gpu_seconds or 0) + gpus * round(ran.total_seconds()),
            "idle_gpu_seconds": (usage.idle_gpu_seconds or 0) + gpus * round(min(ran, idle).total_seconds()),
        }
    )


def _idle_time(activity: Activity | None, ending: Ending, stopped: datetime) -> timedelta:
    """What was on record; one that was stopped for being idle was idle from there to the end."""
    if activity is None:
        return timedelta()
    since_then = timedelta()
    if ending.reason == Stop.IDLE and activity.observed_time is not None:
        since_then = max(since_then, stopped - activity.observed_time)
    return timedelta(seconds=activity.quiet_seconds or 0) + since_then


def _usage_at_start(workspace: Workspace, started: datetime) -> WorkspaceUsage | None:
    status = workspace.status
    if status.start_time == started or status.stopped_at is None or status.stop_reason != Stop.IDLE:
        return status.usage
    usage = status.usage or WorkspaceUsage()
    saved = workspace.spec.gpus * round((started - status.stopped_at).total_seconds())
    return usage.model_copy(update={"reclaimed_gpu_seconds": (usage.reclaimed_gpu_seconds or 0) + saved})


def is_validity_news(workspace: Workspace, now: datetime) -> bool:
    """Whether what is wrong with its times, or that nothing is, has not been told: a ConfigMap came or went."""
    told = find_condition(workspace.status.conditions, conditions.VALID)
    return told is not None and told.message != _validity(workspace, now)[3]


def _validity(workspace: Workspace, now: datetime) -> News:
    if (wrong := what_is_wrong(workspace)) is not None:
        return (conditions.VALID, False, Support.INVALID_SCHEDULE, wrong)
    if (wrong := why_too_long(workspace.spec.idle, now)) is not None:
        return (conditions.VALID, False, Support.EXEMPTION_TOO_LONG, wrong)
    return (conditions.VALID, True, Support.TIMES_KEPT, "")


def _essence(status: Status) -> Status:
    """What must differ for a write at once: no figures, and no numbers in the evidence of what is known."""
    activity = status.get("activity", {})
    signals = [_signal_essence(signal) for signal in activity.get("signals", ())]
    told = {key: value for key, value in activity.items() if key not in FIGURES}
    return {
        **status,
        "activity": {**told, "signals": signals},
        "conditions": [_condition_essence(condition) for condition in status.get("conditions", ())],
    }


def _signal_essence(signal: Status) -> Status:
    matters = signal.get("state") == State.UNKNOWN
    return {key: value for key, value in signal.items() if key != "time" and (matters or key != "evidence")}


def _condition_essence(condition: Status) -> Status:
    hides = ("message",) if condition.get("reason") == Idleness.IN_USE else ()
    return {key: value for key, value in condition.items() if key not in hides}


def _moved(before: datetime | None, after: str | None) -> timedelta:
    if after is None:
        return timedelta()
    instant = datetime.fromisoformat(after)
    return timedelta.max if before is None else abs(instant - before)

"""What to do about workspaces that have been placed, or should not run.

    grow       volumes of which more is asked than they have
    wind down  those that should not run: the replica goes, the volume stays
    begin      those that `spec.schedule.start` wants
    take back  those whose pod cannot start where it was put
    report     those whose pod is not ready yet
    judge      those in which somebody could work: in use, quiet, to be warned, to be stopped
    tell       of those who use GPUs that they were not given

Each step looks at the snapshot alone. A stop is two writes with a life of their own: first `spec.running: false`
with the record of why, then, in whatever later plan, the replica. Whoever dies in between loses nothing.
"""

from collections.abc import Iterator
from datetime import datetime

from stokehold.api import conditions
from stokehold.api.quantities import exact
from stokehold.model.actions import (
    Action,
    EndWorkspace,
    GrowVolume,
    KeepWorkspace,
    Note,
    ResumeWorkspace,
    StopWorkspace,
    WriteStatus,
)
from stokehold.model.pods import Pod
from stokehold.model.reasons import Event, Idleness, Progress, Stop
from stokehold.model.snapshot import Snapshot, StopRecord, Workspace
from stokehold.model.statuses import Status, whole
from stokehold.planning.culling import breaker, pressure, reporting, standing
from stokehold.planning.culling.clock import advance, read_clock
from stokehold.planning.culling.judging import Scene, Verdict, Watched, is_candidate, judge
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.culling.signals import signals_of, together
from stokehold.planning.culling.snoozing import answer
from stokehold.planning.culling.strangers import tell_of_strangers
from stokehold.planning.culling.timetable import ClockStop, clock_stop, should_start, zone_of


def plan_culling(snapshot: Snapshot, settings: CullingSettings) -> Iterator[Action]:
    """Everything that can be done now."""
    watched: list[Watched] = []
    for known in snapshot.workspaces.values():
        if snapshot.is_going(known):
            continue
        workspace = standing.without_forgery(known, snapshot.taken_at)
        yield from _grow_volume(workspace)
        if not workspace.spec.running:
            yield from _wind_down(workspace, snapshot.taken_at)
            yield from _begin(workspace, snapshot.taken_at, settings)
        elif (why := standing.why_stuck(workspace, snapshot, settings)) is not None:
            yield from _take_back(workspace, why, snapshot.taken_at, settings)
        elif standing.has_replica(workspace):
            yield from _keep(workspace)
            yield from _trim(workspace)
            pod = standing.ready_pod(workspace)
            if pod is None:
                yield from _report_starting(workspace, snapshot, settings)
            else:
                watched.append(watch(workspace, pod, snapshot, settings))
    yield from _judge(watched, snapshot, settings)
    yield from tell_of_strangers(snapshot)


def watch(workspace: Workspace, pod: Pod, snapshot: Snapshot, settings: CullingSettings) -> Watched:
    """What is known of the use of a workspace that runs."""
    now = snapshot.taken_at
    started = standing.start_of(workspace, now)
    signals = signals_of(workspace, pod, snapshot, settings)
    evidence = together(signals)
    snoozed = answer(workspace, now, zone_of(workspace))
    one = Watched(workspace, pod, started, signals, evidence, read_clock(workspace.status.activity, started), snoozed)
    return one.seen(advance(one.clock, evidence, one.after))


def _grow_volume(workspace: Workspace) -> Iterator[Action]:
    """A larger `spec.storage.size` goes to the claim; a smaller one the API server refuses."""
    storage, volume = workspace.spec.storage, workspace.volume
    if storage is None or volume is None or volume.phase != "Bound" or volume.deleting or not volume.size:
        return
    size = str(storage.size)
    if exact(size) > exact(volume.size) and volume.refused_size != size:
        yield GrowVolume(workspace, size)


def _wind_down(workspace: Workspace, now: datetime) -> Iterator[Action]:
    holds = standing.has_replica(workspace) or bool(standing.live_pods(workspace))
    ending = standing.ending_of(workspace)
    if standing.has_replica(workspace):
        yield StopWorkspace(workspace, ending.message)
    phase = standing.STOPPING if holds else standing.STOPPED
    status = workspace.status
    told = (status.phase, status.observed_generation) == (phase, workspace.generation)
    if not told or reporting.is_validity_news(workspace, now):
        yield WriteStatus(workspace, reporting.ended(workspace, ending, phase, now))


def _keep(workspace: Workspace) -> Iterator[Action]:
    """Somebody may have stopped and started it: a leader before us may have seen the first alone."""
    if workspace.pod_set is not None and workspace.pod_set.wanted_by != workspace.generation:
        yield KeepWorkspace(workspace)


def _trim(workspace: Workspace) -> Iterator[Action]:
    """One replica, whoever has scaled it: the others would hold GPUs that nobody has placed them on."""
    known = workspace.pod_set
    if known is not None and known.replicas > 1:
        who = known.replicas_writer or "somebody"
        yield StopWorkspace(workspace, f"{who} has scaled it to {known.replicas} replicas", left=1)


def _begin(workspace: Workspace, now: datetime, settings: CullingSettings) -> Iterator[Action]:
    since = standing.last_end(workspace) or workspace.created_at
    due = should_start(workspace, since, now, settings.latest_start)
    if due is not None:
        message = f"spec.schedule starts it at {due.astimezone(zone_of(workspace)):%H:%M}"
        yield ResumeWorkspace(workspace, (Note(Progress.STARTED, message, f"begin {due.isoformat()}"),))


def _take_back(workspace: Workspace, why: str, now: datetime, settings: CullingSettings) -> Iterator[Action]:
    """Its GPUs are for others until it is tried again, each time later."""
    failed = (workspace.status.failed_starts or 0) + 1
    again = whole(now) + settings.pause_after(failed)
    told = f"{why}; it looks for a node again at {again:%H:%M:%S} UTC"
    note = Note(Progress.TAKEN_BACK, told, f"back {whole(now).isoformat()}", warning=True)
    status = reporting.taken_back(workspace, why, (failed, again), now)
    refusals = standing.refusals_of(workspace)
    yield StopWorkspace(workspace, why, refusals=refusals, status=status, notes=(note,))


def _report_starting(workspace: Workspace, snapshot: Snapshot, settings: CullingSettings) -> Iterator[Action]:
    pods = standing.live_pods(workspace)
    leaving = next((pod for pod in pods if pod.terminating_since is not None), None)
    if leaving is not None:
        why = f"its pod {leaving.name} on {leaving.node} has not gone yet"
    else:
        why = f"its pod is {pods[0].phase}, not ready" if pods else "its pod has not been created yet"
        why += f"; {pods[0].trouble}" if pods and pods[0].trouble else ""
    status = reporting.starting(workspace, why, snapshot)
    if reporting.is_worth_writing(workspace, status, settings.refresh_every):
        yield WriteStatus(workspace, status)


def _judge(watched: list[Watched], snapshot: Snapshot, settings: CullingSettings) -> Iterator[Action]:
    """One verdict each, once the breaker and the pressure on all of them are known."""
    now = snapshot.taken_at
    mass_idle = _mass_idle(watched, now, settings)
    on_pressure = [
        pressure.Candidate(one.workspace, one.pod, one.clock.quiet)
        for one in watched
        if one.idle.policy == "OnPressure" and not mass_idle and is_candidate(one, now, settings)
    ]
    scene = Scene(now, settings, mass_idle, pressure.pressed(snapshot, on_pressure))
    for one in watched:
        stop = clock_stop(one.workspace, one.started, one.snoozed.until, now)
        verdict = judge(one, scene)
        record = _stop_record(verdict, stop, one, now)
        if record is not None:
            yield EndWorkspace(one.workspace, record, (_stopped_note(record),))
            continue
        status = reporting.running(one, verdict, stop, snapshot)
        if reporting.is_worth_writing(one.workspace, status, settings.refresh_every):
            yield WriteStatus(one.workspace, status, tuple(_news(one, verdict, status)))


def _mass_idle(watched: list[Watched], now: datetime, settings: CullingSettings) -> int:
    """How many fell quiet together; or came back into sight together, and would be due together for that."""
    fell = ((one.clock.quiet_since, one.after) for one in watched)
    seen = ((one.clock.rests_on(one.after, settings.least_coverage), one.after) for one in watched)
    swarms = ([(since, after) for since, after in found if since is not None] for found in (fell, seen))
    return max(breaker.suspects(swarm, len(watched), now, settings) for swarm in swarms)


def _stop_record(verdict: Verdict, stop: ClockStop | None, one: Watched, now: datetime) -> StopRecord | None:
    at = max(whole(now), one.started)
    if stop is not None and stop.at <= now:
        return StopRecord(stop.reason, stop.message, at)
    if not verdict.stops_now:
        return None
    quiet = round(one.clock.quiet.total_seconds())
    since = one.workspace.status.warned_at
    told = f"; its owner was warned at {since:%H:%M:%S} UTC" if since else ""
    return StopRecord(Stop.IDLE, f"idle for {quiet} s (spec.idle.after is {one.idle.after}){told}", at)


def _stopped_note(record: StopRecord) -> Note:
    message = f"stopped: {record.message}; set spec.running to true to start it, its volume is kept"
    return Note(Event.STOPPED, message, f"stopped {record.time.isoformat()}", warning=record.reason == Stop.IDLE)


def _news(one: Watched, verdict: Verdict, status: Status) -> Iterator[Note]:
    """Events for the owner: each is told once, when the status that it tells of is written."""
    before = one.workspace.status
    start = one.started.isoformat()
    yield from one.snoozed.notes
    if before.start_time != one.started:
        yield Note(Progress.STARTED, f"runs on {one.pod.node}", f"started {start}")
    if verdict.reason is Idleness.WARNED and before.warned_at != verdict.warned_at:
        message = f"idle: {verdict.message}; use it, or snooze it (kubectl stokehold snooze {one.workspace.name} 2h)"
        yield Note(Event.IDLE_WARNING, message, f"warned {verdict.warned_at}", warning=True)
    told = next((c.reason for c in before.conditions if c.type == conditions.IDLE), "")
    held = (Idleness.DRY_RUN, Idleness.MASS_IDLE, Idleness.SIGNAL_UNKNOWN)
    if verdict.reason in held and told != verdict.reason:
        yield Note(Event.NOT_STOPPED, verdict.message, f"{verdict.reason} {start} {one.clock.last_active.isoformat()}")
    ready = next(c for c in status["conditions"] if c["type"] == conditions.READY)
    if ready["reason"] == Progress.STOPS_SOON:
        yield Note(Progress.STOPS_SOON, ready["message"], f"soon {ready['message']} {start}", warning=True)

"""Histories of a cluster: agents fall silent, GPUs work and rest, owners get lost. The planner is watched beside them.

Each step is a minute. What the planner may know is what the agents wrote; the bookkeeping here is slow and obvious.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NOW
from kit.workspaces import a_gpu, a_sighting, a_workspace, carried_out, workspaces_at
from stokehold.api.conditions import IDLE as IDLE_CONDITION
from stokehold.api.conditions import find_condition
from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceStatus
from stokehold.model.actions import Action, EndWorkspace
from stokehold.model.snapshot import Sighting, Snapshot, Workspace
from stokehold.planning.culling.plan import plan_culling
from stokehold.planning.culling.settings import CullingSettings

SETTINGS = CullingSettings(agent_silent_after=timedelta(minutes=3), mass_idle_least=100)
STEP = timedelta(minutes=1)
AFTER, LEAD = 10, 3
IDLE = {"after": f"{AFTER}m", "warnBefore": f"{LEAD}m", "minRunning": "0s"}

seen = st.sampled_from(["Quiet"] * 8 + ["Active", "Unknown", "silent", "no owners", "half"])
runs = st.lists(st.tuples(seen, st.integers(1, 14)), min_size=3, max_size=12)


@dataclass
class Agent:
    """What one node's agent has written: a verdict on each change, a heartbeat each minute while it lives."""

    sighting: Sighting | None = None
    state: str = ""
    since: datetime = NOW
    last_active: datetime | None = None

    def look(self, now: datetime, what: str) -> None:
        if what == "silent":
            self.state = ""  # it comes back without a window behind it
            return
        state = {"half": "Quiet", "no owners": "Unknown"}.get(what, what)
        if state != self.state:
            self.state, self.since = state, now
        if state == "Active":
            self.last_active = now
        gpus = [a_gpu(state=state, since=self.since, last_active=self.last_active, number=n) for n in range(2)]
        shown = gpus[:1] if what == "half" else gpus
        self.sighting = a_sighting(*shown, heard=now, owners_known=what != "no owners")


@dataclass
class Books:
    """The slow count: which minutes were seen quiet since the last activity."""

    quiet: int = 0
    run: int = 0
    gaps: int = 0
    before: str = ""
    pending: int = 0
    """Minutes in which the agent saw all GPUs quiet and knew only half of them as the pod's: proof, once it knows."""

    def note(self, what: str) -> None:
        if what == "Active":
            self.quiet = self.run = self.gaps = self.pending = 0
        elif what == "half" and self.before in ("Quiet", "half"):
            self.pending += 1
        elif what == "Quiet" and self.before in ("Quiet", "half"):
            self.quiet += 1 + self.pending
            self.run += 1 + self.pending
            self.pending = 0
            if self.run >= AFTER:
                self.gaps = 0  # a whole window is proof by itself, whatever was before
        elif self.quiet:
            self.run, self.gaps, self.pending = 0, self.gaps + 1 + self.pending, 0
        self.before = what


def plan(snapshot: Snapshot) -> list[Action]:
    return list(plan_culling(snapshot, SETTINGS))


def ends(actions: list[Action]) -> bool:
    return any(isinstance(action, EndWorkspace) for action in actions)


def assert_may_end(books: Books, before: DevWorkspaceStatus, now: datetime) -> None:
    """Proof for the whole time, and a warning for long enough."""
    assert books.quiet >= AFTER
    assert books.run >= AFTER or books.quiet >= 0.9 * (books.quiet + books.gaps)
    assert before.phase == "Warned"
    assert before.warned_at is not None
    assert now - before.warned_at >= LEAD * STEP


def assert_told_unknown(status: DevWorkspaceStatus) -> None:
    """What is unknown, stale or partial is neither idle nor in use, and announces no stop."""
    idle = find_condition(status.conditions, IDLE_CONDITION)
    assert idle is not None
    assert (idle.status, idle.reason, status.stop_at) == ("Unknown", "SignalUnknown", None)


def minutes(history: list[tuple[str, int]]) -> list[str]:
    return [what for what, length in history for _ in range(length)]


@settings(max_examples=100, deadline=None)
@given(runs)
def test_no_stop_without_quiet_proof_for_the_whole_time_a_warning_and_one_more_look(history: list[tuple[str, int]]):
    workspaces, agent, books, dark = [a_workspace(gpus=2, idle=IDLE)], Agent(), Books(), 0
    for step, what in enumerate(minutes(history)):
        now = NOW + step * STEP
        agent.look(now, what)
        books.note(what)
        dark = dark + 1 if what == "silent" else 0
        before = workspaces[0].status
        snapshot = workspaces_at(now, workspaces, *([agent.sighting] if agent.sighting else []))
        actions = plan(snapshot)
        if ends(actions):
            assert what == "Quiet"
            assert_may_end(books, before, now)
            return
        workspaces = carried_out(workspaces, actions)
        assert not plan(replace(snapshot, workspaces={w.key: w for w in workspaces}))
        if what in ("Unknown", "no owners", "half") or dark * STEP > SETTINGS.agent_silent_after:
            assert_told_unknown(workspaces[0].status)


@settings(max_examples=40, deadline=None)
@given(runs, st.sampled_from([{"mode": "DryRun"}, {"policy": "OnPressure"}, {"signals": {"io": {}}}]))
def test_dry_run_no_pressure_and_unmeasured_signals_never_stop(history: list[tuple[str, int]], idle: dict[str, object]):
    workspaces, agent = [a_workspace(gpus=2, idle={**IDLE, **idle})], Agent()
    for step, what in enumerate(minutes([*history, ("Quiet", 30)])):
        now = NOW + step * STEP
        agent.look(now, what)
        actions = plan(workspaces_at(now, workspaces, *([agent.sighting] if agent.sighting else [])))
        assert not ends(actions)
        workspaces = carried_out(workspaces, actions)
        assert workspaces[0].status.phase != "Warned"


@settings(max_examples=40, deadline=None)
@given(runs)
def test_what_stays_quiet_is_stopped_in_the_end_whatever_was_before(history: list[tuple[str, int]]):
    workspaces, agent = [a_workspace(gpus=2, idle=IDLE)], Agent()
    for step, what in enumerate(minutes([*history, ("Quiet", 2 * AFTER + LEAD + 2)])):
        now = NOW + step * STEP
        agent.look(now, what)
        actions = plan(workspaces_at(now, workspaces, *([agent.sighting] if agent.sighting else [])))
        if ends(actions):
            return
        workspaces = carried_out(workspaces, actions)
    raise AssertionError("it was quiet for twice the time and runs on")


@settings(max_examples=40, deadline=None)
@given(runs, st.sets(st.integers(0, 120)))
def test_operator_that_was_away_counts_no_minute_that_nobody_saw(history: list[tuple[str, int]], away: set[int]):
    """Plans are left out at random; what the agents saw meanwhile is proof all the same, and nothing else is."""
    workspaces, agent, books = [a_workspace(gpus=2, idle=IDLE)], Agent(), Books()
    for step, what in enumerate(minutes(history)):
        now = NOW + step * STEP
        agent.look(now, what)
        books.note(what)
        if step in away:
            continue
        before = workspaces[0].status
        actions = plan(workspaces_at(now, workspaces, *([agent.sighting] if agent.sighting else [])))
        if ends(actions):
            assert what in ("Quiet", "silent")  # an agent is believed for a while
            assert_may_end(books, before, now)
            return
        workspaces = carried_out(workspaces, actions)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=40), st.randoms())
def test_operator_that_dies_between_any_two_writes_stops_once_and_tells_it_once(deaths: list[int], random: Random):
    """Each plan is another operator's, killed after so many writes; an action is one write and its Events another."""
    workspaces, agent, told, stops = [a_workspace(gpus=2, idle=IDLE)], Agent(), set(), 0
    for step in range(80):
        agent.look(NOW + step * STEP, "Quiet")
        assert agent.sighting is not None
        actions = plan(workspaces_at(NOW + step * STEP, workspaces, agent.sighting))
        random.shuffle(actions)  # they are carried out at the same time
        writes = deaths[step] if step < len(deaths) else 99
        done = actions[: (writes + 1) // 2]
        stops += ends(done)
        told |= {(note.reason, note.key) for action in actions[: writes // 2] for note in getattr(action, "notes", ())}
        workspaces = carried_out(workspaces, done)

    (after,) = workspaces
    assert stops == 1
    assert (after.status.phase, after.status.stop_reason, after.spec.running) == ("Stopped", "Idle", False)
    assert after.pod_set is not None
    assert after.pod_set.replicas == 0
    reasons = [reason for reason, _ in told]
    assert reasons.count("IdleWarning") <= 1
    assert reasons.count("Stopped") <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 4)), min_size=1, max_size=12), st.randoms())
def test_same_snapshot_same_plan_whatever_the_order(fleet: list[tuple[int, int]], random: object):
    def made(index: int, quiet: int) -> Workspace:
        clock = {"lastActiveTime": NOW - (quiet + 1) * STEP, "quietSeconds": quiet * 60, "observedTime": NOW}
        status = {"phase": "Quiet", "startTime": NOW - 700 * STEP, "activity": clock}
        return a_workspace(f"w{index}", idle=IDLE, status=status)

    workspaces = [made(i, quiet) for i, (quiet, _) in enumerate(fleet)]
    gpus = [a_gpu(f"w{i}", since=NOW - 700 * STEP) for i, (_, has) in enumerate(fleet) if has]
    sighting = a_sighting(*gpus, heard=NOW)

    first = plan(workspaces_at(NOW, workspaces, sighting))
    second = plan(workspaces_at(NOW, workspaces, sighting))
    shuffled = plan(workspaces_at(NOW, workspaces[::-1], sighting))

    assert first == second
    assert sorted(map(repr, first)) == sorted(map(repr, shuffled))


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 12), st.integers(0, 9))
def test_workspaces_that_all_turn_quiet_at_once_are_not_stopped(count: int, spread: int):
    strict = replace(SETTINGS, mass_idle_least=5)
    names = [f"w{i}" for i in range(count)]
    workspaces = [a_workspace(name, idle=IDLE) for name in names]
    for step in range(40):
        now = NOW + step * STEP
        gpus = [
            a_gpu(name, "Quiet", since=NOW + (i % (spread + 1)) * STEP)
            if step > i % (spread + 1)
            else a_gpu(name, "Active", since=NOW - STEP, last_active=now)
            for i, name in enumerate(names)
        ]
        actions = list(plan_culling(workspaces_at(now, workspaces, a_sighting(*gpus, heard=now)), strict))
        assert not ends(actions)
        workspaces = carried_out(workspaces, actions)

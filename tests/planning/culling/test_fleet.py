"""Histories of many workspaces and their agents, some of which die together and come back in one second."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from builders import NOW, a_node
from kit.culling import MINUTE, idle_condition, plan
from kit.workspaces import a_gpu, a_sighting, a_workspace, carried_out, workspaces_at
from stokehold.model.actions import EndWorkspace
from stokehold.model.snapshot import Sighting, Workspace

AFTER, LEAD = 60, 10
DIED, BACK = 48, 68
"""In minutes: at 80 % of `idle.after`, and 20 minutes later."""

Seen = Callable[[int, int], str]
"""What the agent of a workspace's node sees in a minute: "Active", "Quiet", "Unknown", or "" while it is dead."""


@dataclass
class Moment:
    """One minute: the statuses after the plan, and whom it stopped."""

    minute: int
    workspaces: list[Workspace]
    stopped: list[str]

    def activity(self, index: int) -> dict[str, Any]:
        return self.status(index)["activity"]

    def status(self, index: int) -> dict[str, Any]:
        return self.workspaces[index].status.model_dump(mode="json", by_alias=True, exclude_none=True)

    def why(self, index: int) -> str:
        return str(idle_condition(self.status(index))["reason"])


def history(count: int, minutes: int, seen: Seen) -> Iterator[Moment]:
    """A plan each minute; an agent that starts anew remembers when the GPU was active and nothing else."""
    workspaces = [a_workspace(f"w{i}", node=f"n{i}") for i in range(count)]
    words: dict[int, Sighting] = {}
    states: dict[int, tuple[str, datetime]] = {}
    active: dict[int, datetime] = {}
    for minute in range(minutes):
        now = NOW + minute * MINUTE
        for i in range(count):
            state = seen(i, minute)
            if not state:
                states.pop(i, None)
                continue
            if states.get(i, ("",))[0] != state:
                states[i] = (state, now)
            if state == "Active":
                active[i] = now
            gpu = a_gpu(f"w{i}", state, since=states[i][1], last_active=active.get(i))
            words[i] = a_sighting(gpu, heard=now, node=f"n{i}")
        nodes = [a_node(f"n{i}") for i in range(count)]
        actions = plan(workspaces_at(now, workspaces, *words.values(), nodes=nodes))
        workspaces = carried_out(workspaces, actions)
        yield Moment(minute, workspaces, [a.workspace.name for a in actions if isinstance(a, EndWorkspace)])


def dies(index: int, minute: int, dead: int = 3) -> bool:
    return index < dead and DIED <= minute < BACK


def test_who_fell_quiet_together_is_not_stopped_though_some_of_the_agents_were_away_since():
    def seen(index: int, minute: int) -> str:
        if dies(index, minute):
            return ""
        return "Quiet" if minute > index % 4 else "Active"

    told = list(history(7, BACK + 3 * AFTER, seen))

    assert [moment.stopped for moment in told if moment.stopped] == []
    assert all(told[BACK - 1].why(i) == ("SignalUnknown" if i < 3 else "MassIdle") for i in range(7))
    assert all("stopAt" not in told[minute].status(i) for minute in range(BACK - 8, BACK) for i in range(3))
    before, after = told[DIED].activity(0), told[BACK + 1].activity(0)
    assert 0 <= after["quietSeconds"] - before["quietSeconds"] <= 5 * 60
    assert after["unknownSeconds"] >= 20 * 60
    assert after["quietSince"] == before["quietSince"] == told[-1].activity(0)["quietSince"]
    assert {told[-1].why(i) for i in range(7)} == {"MassIdle"}


def test_who_fell_quiet_alone_is_warned_before_each_stop_and_silence_is_no_idle_time():
    """Fifteen minutes apart, and some agents die together when the first of them is quiet for 80 % of its time."""

    def seen(index: int, minute: int) -> str:
        return "" if dies(index, minute) else quiet_one_after_another(index, minute)

    warned: dict[str, int] = {}
    stopped: dict[str, int] = {}
    for moment in history(8, 8 * 15 + 3 * AFTER, seen):
        for workspace in moment.workspaces:
            if workspace.status.phase == "Warned":
                warned.setdefault(workspace.name, moment.minute)
        stopped |= dict.fromkeys(moment.stopped, moment.minute)

    assert len(stopped) == 8
    assert all(stopped[name] - warned[name] >= LEAD for name in stopped)
    assert all(stopped[f"w{i}"] >= BACK + AFTER for i in range(3))  # a whole window of proof since they were away
    assert stopped["w3"] < BACK + AFTER


def quiet_one_after_another(index: int, minute: int) -> str:
    return "Quiet" if minute > 15 * index else "Active"


def test_who_comes_back_into_sight_together_is_not_stopped_whenever_each_fell_quiet():
    """All would be due in one minute, a window after their agents are back, and on the word of these alone."""
    told = list(
        history(7, BACK + 5 * AFTER, lambda i, minute: "" if dies(i, minute, 7) else quiet_one_after_another(i, minute))
    )

    assert [moment.stopped for moment in told if moment.stopped] == []
    assert {told[-1].why(i) for i in range(7)} == {"MassIdle"}
    assert all(told[BACK + AFTER + 1].status(i)["phase"] == "Quiet" for i in range(7))


def test_agents_that_were_away_for_a_moment_keep_nobody_from_being_stopped():
    away = range(DIED, DIED + 5)  # less than a tenth of the window
    told = history(7, 4 * AFTER, lambda i, minute: "" if minute in away else quiet_one_after_another(i, minute))

    assert sorted(name for moment in told for name in moment.stopped) == [f"w{i}" for i in range(7)]


def test_agent_that_starts_again_every_other_minute_lets_no_clock_run():
    """It is killed before it has looked for long enough to call anything quiet."""
    told = list(history(1, 4 * AFTER, lambda _, minute: "Active" if minute < 2 else ("Unknown", "")[minute % 2]))

    assert [moment.stopped for moment in told if moment.stopped] == []
    assert told[-1].why(0) == "SignalUnknown"
    assert "quietSeconds" not in told[-1].activity(0)
    assert "stopAt" not in told[-1].status(0)

"""Workspaces in the one queue, and the volume without which none may start."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import NOW, a_node, a_snapshot
from kit.workspaces import a_workspace
from stokehold.api.names import FRESH_VOLUME_ANNOTATION
from stokehold.model.actions import Action, StartWorkspace, WriteStatus
from stokehold.model.demand import Match, claims_of, within
from stokehold.model.kubelets import Refusal
from stokehold.model.pods import PodSet
from stokehold.model.snapshot import Node, VolumeClaim, Workspace
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

BOUND = VolumeClaim("Bound")
RAN_BEFORE = {"startTime": "2026-01-01T09:00:00Z", "stoppedAt": "2026-01-01T10:00:00Z", "phase": "Stopped"}


def waiting(status: dict[str, Any], **fields: Any) -> Workspace:
    """A workspace with files that should run and has neither StatefulSet nor pod."""
    made = a_workspace("ada", storage={"size": "1Gi"}, status=status, pods=())
    return replace(made, pod_set=None, **fields)


def plan(workspace: Workspace) -> Action:
    snapshot = a_snapshot([a_node("n1")], workspaces={workspace.key: workspace}, taken_at=NOW)
    (action,) = plan_scheduling(snapshot, SchedulingSettings())
    return action


@pytest.mark.parametrize(
    ("status", "fields", "new"),
    [
        ({}, {}, True),
        ({}, {"volume": BOUND}, False),
        (RAN_BEFORE, {"volume": BOUND}, False),
        (RAN_BEFORE, {"annotations": {FRESH_VOLUME_ANNOTATION: "ada-home"}}, True),
    ],
    ids=["first start", "claim made before a crash", "restart", "empty on request"],
)
def test_it_starts_with_its_volume_and_with_an_empty_one_only_at_first_or_when_asked(
    status: dict[str, Any], fields: dict[str, Any], new: bool
):
    action = plan(waiting(status, **fields))

    assert isinstance(action, StartWorkspace)
    assert action.new_volume is new


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "its volume claim ada-home with its files is gone"),
        ({"annotations": {FRESH_VOLUME_ANNOTATION: "other-home"}}, "with its files is gone"),
        ({"volume": VolumeClaim("Bound", deleting=True)}, "is being deleted"),
        ({"volume": VolumeClaim("Lost")}, "is lost"),
    ],
    ids=["gone", "asked for another", "dying", "lost"],
)
def test_it_never_starts_without_its_files_and_says_so(fields: dict[str, Any], message: str):
    action = plan(waiting(RAN_BEFORE, **fields))

    assert isinstance(action, WriteStatus)
    queue = action.status["queue"]
    assert queue["reason"] == "VolumeUnavailable"
    assert message in queue["message"]
    assert queue["nextStep"]
    assert [note.warning for note in action.notes] == [True]


def test_a_workspace_that_waits_is_not_told_that_it_was_stopped():
    stopped = {"type": "Ready", "status": "False", "reason": "UserRequest", "message": "spec.running is false"}

    action = plan(waiting({**RAN_BEFORE, "conditions": [stopped]}))

    assert isinstance(action, WriteStatus)
    reasons = {condition["type"]: condition["reason"] for condition in action.status["conditions"]}
    assert reasons == {"Ready": "VolumeUnavailable", "Admitted": "VolumeUnavailable"}


def test_pause_after_a_pod_that_did_not_come_up_leaves_its_gpus_to_others():
    ready = {"type": "Ready", "status": "False", "reason": "TakenBack", "message": "no pod was made for it on n1"}
    told = {"phase": "Pending", "failedStarts": 1, "conditions": [ready]}

    action = plan(waiting({**told, "requeueAt": NOW + timedelta(seconds=10)}))
    again = plan(waiting({**told, "requeueAt": NOW}))

    assert isinstance(action, WriteStatus)
    assert action.status["queue"]["reason"] == "BackingOff"
    assert action.status["queue"]["message"].startswith("no pod was made for it on n1; next attempt at ")
    assert isinstance(again, StartWorkspace)


def test_node_that_refused_a_workspaces_pod_twice_of_late_is_left_to_others():
    def after(*minutes_ago: int) -> Workspace:
        refusals = tuple(Refusal("n1", NOW - timedelta(minutes=ago)) for ago in minutes_ago)
        return replace(waiting({}), pod_set=PodSet("team-a", "ada", "set", "1", "uid-ada", 0, refusals=refusals))

    assert isinstance(plan(after(1)), StartWorkspace)
    assert isinstance(plan(after(1, 6)), StartWorkspace)
    action = plan(after(1, 2))
    assert isinstance(action, WriteStatus)
    assert action.status["queue"]["reason"] == "WaitingForCapacity"


def test_node_that_refused_a_workspaces_pod_comes_last_however_long_its_pauses_have_become():
    long_ago = NOW - timedelta(minutes=20)
    refusals = tuple(Refusal(node, long_ago + timedelta(minutes=n)) for n, node in enumerate(("n2", "n2", "n3", "n1")))
    refused = PodSet("team-a", "ada", "set", "1", "uid-ada", 0, refusals=refusals)

    def chosen(*nodes: str, **status: Any) -> str:
        workspace = replace(waiting({"failedStarts": 9, **status}, volume=BOUND), pod_set=refused)
        snapshot = a_snapshot([a_node(n) for n in nodes], workspaces={workspace.key: workspace}, taken_at=NOW)
        (action,) = plan_scheduling(snapshot, SchedulingSettings())
        assert isinstance(action, StartWorkspace)
        return action.placement.nodes[0]

    assert chosen("n1", "n2", "n3", "n4") == "n4"
    assert chosen("n1", "n2", "n3") == "n2", "where there is no other they are tried in turn"
    assert chosen("n1", "n3") == "n3"
    assert chosen("n1") == "n1"
    assert chosen("n1", "n2", "n3", "n4", startTime=NOW - timedelta(minutes=9)) == "n1", "it has run since"


@pytest.mark.parametrize(("times", "pause"), [(1, 5), (2, 10), (3, 20), (9, 60)])
def test_refusals_of_the_api_server_are_answered_later_and_later(times: int, pause: int):
    words = "pods is forbidden: exceeded quota"
    for age, type_ in ((pause - 1, WriteStatus), (pause, StartWorkspace)):
        at = NOW - timedelta(seconds=age)
        action = plan(waiting({}, create_error=words, create_failed_at=at, create_failures=times))
        assert isinstance(action, type_)


def test_a_name_that_somebody_else_has_is_a_reason_of_its_own_with_what_to_do_about_it():
    words = "Service ada exists already and belongs to InferencePool ada"
    refused = waiting({}, create_error=words, create_failed_at=NOW, create_failures=1, name_taken=True)

    action = plan(refused)

    assert isinstance(action, WriteStatus)
    queue = action.status["queue"]
    assert (queue["reason"], queue["message"]) == ("NameTaken", words)
    assert queue["nextStep"].startswith("Delete the other one, or create the DevWorkspace under another name")
    assert [note.reason for note in action.notes] == ["NameTaken"]


ZONE = "topology.kubernetes.io/zone"
IN_Z1 = ((Match(ZONE, "In", ("z1",)),),)


def bound_in_z1(**spec: Any) -> Workspace:
    made = replace(a_workspace("ada", storage={"size": "1Gi"}, status=RAN_BEFORE, pods=(), **spec), pod_set=None)
    volumes: dict[str, Any] = {"volume": BOUND, "reach": (("ada-home", IN_Z1),)}
    return replace(made, demand=within(made.demand, IN_Z1), **volumes)


def test_it_goes_where_its_volume_can_be_reached_or_waits_and_names_the_place():
    there, elsewhere = a_node("z1-node", labels={ZONE: "z1"}), a_node("z2-node", labels={ZONE: "z2"})
    ada = bound_in_z1()

    def plan_on(*nodes: Node) -> Action:
        snapshot = a_snapshot(list(nodes), workspaces={ada.key: ada}, taken_at=NOW)
        (action,) = plan_scheduling(snapshot, SchedulingSettings())
        return action

    started = plan_on(elsewhere, there)
    assert isinstance(started, StartWorkspace)
    assert started.placement.nodes == ("z1-node",)
    waits = plan_on(elsewhere)
    assert isinstance(waits, WriteStatus)
    assert f"reached from nodes with {ZONE} In (z1) alone" in waits.status["queue"]["message"]


def test_a_wish_for_another_zone_than_the_volumes_can_never_hold():
    ada = bound_in_z1(podTemplate={"spec": {"nodeSelector": {ZONE: "z2"}}})
    nodes = [a_node("z1-node", labels={ZONE: "z1"}), a_node("z2-node", labels={ZONE: "z2"})]

    (action,) = plan_scheduling(a_snapshot(nodes, workspaces={ada.key: ada}, taken_at=NOW), SchedulingSettings())

    assert isinstance(action, WriteStatus)


def test_two_volumes_that_no_node_reaches_are_refused_at_once():
    in_z2 = ((Match(ZONE, "In", ("z2",)),),)
    ada = bound_in_z1(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])
    assert claims_of(ada.spec) == ("data",)
    apart = replace(ada, reach=(*ada.reach, ("data", in_z2)), demand=within(ada.demand, in_z2))
    z1, z2 = a_node("z1-node", labels={ZONE: "z1"}), a_node("z2-node", labels={ZONE: "z2"})

    def told(*nodes: Node) -> dict[str, Any]:
        snapshot = a_snapshot(list(nodes), workspaces={apart.key: apart}, taken_at=NOW)
        (action,) = plan_scheduling(snapshot, SchedulingSettings())
        assert isinstance(action, WriteStatus)
        queue: dict[str, Any] = action.status["queue"]
        return queue

    refused = told(z1, z2)
    assert refused["reason"] == "VolumeUnavailable"
    for part in ("no node reaches all", f"ada-home can be reached from nodes with {ZONE} In (z1)", "data can be"):
        assert part in refused["message"]
    assert told(z1)["reason"] == "VolumeUnavailable"  # whatever nodes come, none is in two zones


def test_one_without_storage_needs_no_volume():
    made = replace(a_workspace("bob", storage=None, status=RAN_BEFORE, pods=()), pod_set=None)

    action = plan(made)

    assert isinstance(action, StartWorkspace)
    assert not action.new_volume

"""Workspaces that do not simply run: pods that come late or nowhere, growing volumes, strangers on their GPUs."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from builders import NOW, a_node, a_snapshot
from kit.culling import (
    LONG_AGO,
    MINUTE,
    judged,
    plan,
    quiet_for,
    quiet_gpu,
)
from kit.workspaces import a_gpu, a_sighting, a_workspace, its_pod, workspaces_at
from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceStatus
from stokehold.model.actions import (
    Action,
    GrowVolume,
    KeepWorkspace,
    StopWorkspace,
    TellOfNode,
    WriteStatus,
)
from stokehold.model.kubelets import Refusal
from stokehold.model.snapshot import VolumeClaim, Workspace
from stokehold.planning.culling.plan import plan_culling
from stokehold.planning.culling.settings import CullingSettings


def test_pod_that_cannot_be_bound_or_lost_its_node_is_placed_anew():
    workspace = a_workspace()
    unbound = its_pod(workspace, bound=False, ready=False, phase="Pending", created_at=NOW - 2 * MINUTE)
    gone = replace(workspace, pods=())

    for stuck, nodes in ((replace(workspace, pods=(unbound,)), [a_node("n1")]), (gone, [a_node("n2")])):
        (stop,) = plan(workspaces_at(NOW, [stuck], nodes=nodes))
        assert isinstance(stop, StopWorkspace)
        assert stop.status is not None
        assert stop.status["phase"] == "Pending"


def test_node_whose_kubelet_refuses_its_pod_is_left_at_once_and_the_refusal_is_kept():
    before, now = Refusal("n0", NOW - MINUTE), Refusal("n1", NOW, "UnexpectedAdmissionError: no healthy devices")
    workspace = a_workspace()
    assert workspace.pod_set is not None
    refused = replace(workspace, pod_set=replace(workspace.pod_set, refusal=now, refusals=(before,) * 5), pods=())

    (stop,) = plan(workspaces_at(NOW, [refused]))

    assert isinstance(stop, StopWorkspace)
    assert stop.refusals == (before, before, now), "as many of each node as matter, so that there is room for others"
    assert stop.status is not None
    assert (stop.status["phase"], stop.status["failedStarts"]) == ("Pending", 1)
    assert now.why in stop.notes[0].message
    gone = replace(refused, pod_set=replace(workspace.pod_set, refusal=now, node="n9"))
    (stop,) = plan(workspaces_at(NOW, [gone]))
    assert isinstance(stop, StopWorkspace)
    assert not stop.refusals, "it stood on another node, which has gone: nobody has refused it there"


def test_workspace_whose_pod_is_not_made_gives_its_gpus_back_and_waits_longer_each_time():
    bare = replace(a_workspace(), pods=())
    since = NOW - 2 * MINUTE
    told = {
        "phase": "Starting",
        "conditions": [
            {"type": "Admitted", "status": "True", "lastTransitionTime": since},
            {"type": "Ready", "status": "False", "lastTransitionTime": NOW - 9 * MINUTE},
        ],
    }

    for failed, pause in ((None, 5), (1, 10), (2, 20), (20, 300)):
        status = DevWorkspaceStatus.model_validate({**told, "failedStarts": failed})
        (stop,) = plan(workspaces_at(NOW, [replace(bare, status=status)]))
        assert isinstance(stop, StopWorkspace)
        assert stop.status is not None
        assert stop.status["failedStarts"] == (failed or 0) + 1
        assert datetime.fromisoformat(stop.status["requeueAt"]) == NOW + timedelta(seconds=pause)
    young = DevWorkspaceStatus.model_validate(told)
    (starting,) = plan(workspaces_at(since + 0.5 * MINUTE, [replace(bare, status=young)]))
    assert isinstance(starting, WriteStatus)


def test_pod_that_is_not_ready_lets_no_clock_run():
    workspace = a_workspace(status=quiet_for(70))
    stuck = its_pod(workspace, ready=False, phase="Pending", trouble="its image x cannot be pulled")
    creating = replace(workspace, pods=(stuck,))

    status = judged(creating, a_sighting(quiet_gpu(), heard=NOW))

    assert status["phase"] == "Starting"
    assert any("cannot be pulled" in condition.get("message", "") for condition in status["conditions"])
    assert status["activity"]["quietSeconds"] == 70 * 60


def test_nothing_is_done_to_one_that_is_being_deleted():
    assert plan(workspaces_at(NOW, [a_workspace(deleting=True)], a_sighting(quiet_gpu(), heard=NOW))) == []


@pytest.mark.parametrize(
    ("asked", "volume", "grows"),
    [
        ("2Gi", VolumeClaim("Bound", size="1Gi"), True),
        ("1Gi", VolumeClaim("Bound", size="1024Mi"), False),
        ("1Gi", VolumeClaim("Bound", size="2Gi"), False),
        ("2Gi", VolumeClaim("Bound", size="1Gi", refused_size="2Gi"), False),
        ("3Gi", VolumeClaim("Bound", size="1Gi", refused_size="2Gi"), True),
        ("2Gi", VolumeClaim("Pending", size="1Gi"), False),
        ("2Gi", VolumeClaim("Bound", size="1Gi", deleting=True), False),
    ],
)
def test_a_larger_volume_is_asked_for_once(asked: str, volume: VolumeClaim, grows: bool):
    workspace = replace(a_workspace(storage={"size": asked}), volume=volume)

    actions = plan_culling(a_snapshot([a_node("n1")], workspaces={workspace.key: workspace}), CullingSettings())

    assert [action.size for action in actions if isinstance(action, GrowVolume)] == ([asked] if grows else [])


def test_a_stranger_on_a_gpu_is_told_once_whatever_its_processes_are_called():
    sneaky = {"namespace": "team-b", "pod": "sneaky", "podUID": "u1", "command": "python"}
    seen = a_sighting(
        a_gpu(since=LONG_AGO, number=5, owners=[], foreignUsers=[sneaky, {**sneaky, "command": "train"}]),
        a_gpu(since=LONG_AGO, number=6, owners=[], foreignUsers=[{"command": "Xorg"}]),
        heard=NOW,
    )

    (action,) = plan(workspaces_at(NOW, [], seen))

    assert isinstance(action, TellOfNode)
    told = [(note.reason, note.message.partition(",")[0], note.warning) for note in action.notes]
    assert told == [
        ("ForeignGpuUser", "pod team-b/sneaky uses GPU-ada-5", True),
        ("ForeignGpuUser", "process Xorg of no pod uses GPU-ada-6", True),
    ]
    seen = replace(seen, told=action.known)
    assert plan(workspaces_at(NOW, [], seen)) == []
    other = replace(seen, status=a_sighting(a_gpu(since=LONG_AGO, foreignUsers=[{"pod": "x"}]), heard=NOW).status)
    (again,) = plan(workspaces_at(NOW, [], other))
    assert isinstance(again, TellOfNode)
    assert len(again.notes) == 1


def test_spec_that_has_changed_while_it_runs_is_noted_where_a_late_stop_would_land():
    def kept(workspace: Workspace) -> list[Action]:
        return [a for a in plan(workspaces_at(NOW, [workspace])) if isinstance(a, KeepWorkspace)]

    changed = replace(a_workspace(), generation=3)

    assert kept(changed) == [KeepWorkspace(changed)]
    assert kept(replace(changed, pod_set=replace(changed.pod_set, wanted_by=3))) == []

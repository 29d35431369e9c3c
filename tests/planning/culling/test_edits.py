"""Edits of a workspace that runs, of what it owns, and of our own records: by its owner or by whoever may."""

from dataclasses import replace
from datetime import timedelta

from builders import NOW
from kit.culling import LONG_AGO, MINUTE, judged, plan, quiet_gpu, started
from kit.workspaces import a_sighting, a_workspace, workspaces_at
from stokehold.model.actions import StopWorkspace, WriteStatus
from stokehold.model.shapes import workspace_digest
from stokehold.model.snapshot import StopRecord


def test_a_stop_that_somebody_dated_far_ahead_moves_no_start_and_saves_nothing():
    forged = StopRecord("Idle", "", NOW + timedelta(days=365))
    before = {"stopReason": "Idle", "stoppedAt": LONG_AGO - MINUTE}

    status = judged(
        a_workspace(status={**started(30), **before}, stop_record=forged), a_sighting(quiet_gpu(), heard=NOW)
    )

    assert status["startTime"] == "2026-01-01T11:30:00Z"
    assert "usage" not in status


def test_an_edit_while_it_runs_counts_from_the_next_start_and_says_so():
    made = a_workspace(status=started(30), running=True)
    pod_set = replace(made.pod_set, gpus=1, template=workspace_digest(made.spec))
    same, edited, stopped = (
        a_workspace(status=started(30), pod_set=pod_set, **spec)
        for spec in ({"maxLifetime": "7d"}, {"gpus": 2}, {"gpus": 2, "running": False})
    )

    told = [judged(one, a_sighting(quiet_gpu(), heard=NOW)) for one in (same, edited)]
    ended = [action.status for action in plan(workspaces_at(NOW, [stopped])) if isinstance(action, WriteStatus)]

    ready = [next(c for c in status["conditions"] if c["type"] == "Ready") for status in told]
    assert ["next start" in condition.get("message", "") for condition in ready] == [False, True]
    assert [status["phase"] for status in told] == ["Quiet", "Quiet"]
    assert ended[0]["usage"]["gpuSeconds"] == 30 * 60


def test_replicas_that_somebody_added_go_and_a_changed_statefulset_names_who_did_it():
    made = a_workspace(status=started(30))
    scaled = a_workspace(status=started(30), pod_set=replace(made.pod_set, replicas=3, replicas_writer="kubectl"))
    changed = a_workspace(status=started(30), pod_set=replace(made.pod_set, template_writer="kubectl-set"))

    trim, _ = plan(workspaces_at(NOW, [scaled], a_sighting(quiet_gpu(), heard=NOW)))
    status = judged(changed, a_sighting(quiet_gpu(), heard=NOW))

    assert isinstance(trim, StopWorkspace)
    assert (trim.left, trim.why) == (1, "kubectl has scaled it to 3 replicas")
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert "by kubectl-set" in ready["message"]

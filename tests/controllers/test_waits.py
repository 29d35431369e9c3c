"""Since when work waits for GPUs, as the metric of the oldest wait has it."""

from dataclasses import replace
from datetime import timedelta

from builders import GPU, NOW, a_job, a_replica, a_serving_pool, a_snapshot, a_worker
from kit.workspaces import a_workspace
from stokehold.api.conditions import ADMITTED
from stokehold.controllers.fleet import past_queue
from stokehold.controllers.scheduling import oldest_waits
from stokehold.model.demand import with_gpu_resource
from stokehold.model.reasons import Stop
from stokehold.model.snapshot import Workspace
from stokehold.model.statuses import Status
from stokehold.planning.culling import reporting
from stokehold.planning.culling.standing import STOPPED, Ending
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.scheduling.queueing import Queues
from stokehold.planning.scheduling.single_pods import waiting_status

HOUR = timedelta(hours=1)


def seconds(*workspaces: Workspace) -> float | None:
    snapshot = a_snapshot([], [], {}, taken_at=NOW, workspaces={w.key: w for w in workspaces})
    return oldest_waits(Queues(snapshot)).get(("DevWorkspace", ""))


def told(workspace: Workspace, status: Status) -> Workspace:
    return replace(workspace, status=type(workspace.status).model_validate(status))


def test_the_oldest_of_a_kind_speaks_and_what_is_suspended_does_not_wait():
    old, older = a_job("old", age=3600), a_job("older", age=7200)
    held = a_job("held", age=9999, status={"phase": "Suspended"}, suspend=True)

    waits = oldest_waits(Queues(a_snapshot([], [old, older, held], {}, taken_at=NOW)))

    assert waits == {("TrainingJob", ""): 7200.0}


def test_a_new_workspace_waits_since_it_was_made_and_a_running_one_does_not():
    assert seconds(a_workspace(pod_set=None, pods=(), created_at=NOW - HOUR)) == 3600
    assert seconds(a_workspace()) is None


def test_a_workspace_that_is_started_again_has_not_waited_since_its_stop():
    ran = a_workspace(pod_set=None, pods=(), status={"startTime": NOW - 9 * HOUR, "phase": "Active"})
    ran = told(ran, waiting_status(ran, Explanation("WaitingForCapacity", "", ""), 1, NOW - 10 * HOUR))
    stopped = told(ran, reporting.ended(ran, Ending(Stop.IDLE, "idle"), STOPPED, NOW - 8 * HOUR))
    assert ADMITTED not in [condition.type for condition in stopped.status.conditions]
    assert seconds(stopped) == 0  # spec.running is true again, and nobody has said anything yet

    waits = told(stopped, waiting_status(stopped, Explanation("WaitingForCapacity", "", ""), 1, NOW - HOUR))
    assert seconds(waits) == 3600


def test_pods_that_went_past_the_queue_are_counted_by_what_they_claim_to_be():
    pool = a_serving_pool(pods=[a_replica(0), a_replica(1, placed_at=NOW), a_replica(2, bound=False)])
    pool = replace(pool, demand=with_gpu_resource(pool.demand, GPU))
    stray = a_worker(a_job(), owner_uid="")
    left_behind = a_worker(a_job("gone"))

    found = past_queue(
        a_snapshot(
            [], [], {}, serving_pools={pool.key: pool}, orphans=(stray, left_behind, replace(stray, bound=False))
        )
    )

    assert found == {("team-a", "TrainingJob"): 1, ("team-a", "InferencePool"): 1}

"""Jobs and the volume claims that they name: nothing is held for a pod that could not start, or not there."""

from dataclasses import replace

import pytest

from builders import GPU, NOW, a_job, a_node, a_snapshot, a_worker, seconds_ago
from stokehold.model.actions import Action, AdmitJob, WriteStatus
from stokehold.model.demand import Match, Terms, claims_of, within
from stokehold.model.snapshot import Job, Node, VolumeClaim
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

ZONE = "topology.kubernetes.io/zone"
Z1, Z2, Z3 = (a_node(zone, labels={ZONE: zone}) for zone in ("z1", "z2", "z3"))


def zone(name: str) -> Terms:
    return ((Match(ZONE, "In", (name,)),),)


def job_with(volume: VolumeClaim | None, *places: tuple[str, str]) -> Job:
    """A job whose checkpoints go to this claim; `places` are zones by claim."""
    made = a_job(checkpoint={"claimName": "ckpt"})
    reach = tuple((claim, zone(name)) for claim, name in places)
    demand = within(made.demand, *(terms for _, terms in reach))
    return replace(made, volumes=(("ckpt", volume),), reach=reach, demand=demand)


def plan(job: Job, *nodes: Node, **fields: object) -> Action:
    snapshot = a_snapshot(list(nodes), [job], taken_at=NOW, **fields)
    (action,) = plan_scheduling(snapshot, SchedulingSettings())
    return action


def test_claims_of_checkpoints_of_volumes_and_of_the_template_count_once_each():
    def mounts(name: str) -> dict:
        return {"name": name, "persistentVolumeClaim": {"claimName": name}}

    template = {"spec": {"volumes": [mounts("models"), {"name": "tmp", "emptyDir": {}}]}}
    job = a_job(checkpoint={"claimName": "ckpt"}, volumes=[mounts("data"), mounts("ckpt")], podTemplate=template)

    assert claims_of(job.spec) == ("ckpt", "data", "models")
    assert claims_of(a_job(checkpoint={"path": "/x"}).spec) == claims_of(a_job().spec) == ()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (None, "there is no volume claim ckpt"),
        (VolumeClaim("Bound", deleting=True), "the volume claim ckpt is being deleted"),
        (VolumeClaim("Lost"), "the volume behind claim ckpt is lost"),
    ],
    ids=["missing", "dying", "lost"],
)
def test_job_whose_checkpoint_claim_cannot_be_used_waits_and_says_so(volume: VolumeClaim | None, message: str):
    action = plan(job_with(volume), Z1)

    assert isinstance(action, WriteStatus)
    assert action.status["queue"]["reason"] == "VolumeUnavailable"
    assert action.status["queue"]["message"] == message
    assert action.status["queue"]["nextStep"]
    assert [note.warning for note in action.notes] == [True]


@pytest.mark.parametrize("phase", ["Bound", "Pending"])
def test_job_starts_where_its_volume_is_and_a_claim_without_a_volume_yet_rules_nothing_out(phase: str):
    places = [("ckpt", "z2")] if phase == "Bound" else []

    action = plan(job_with(VolumeClaim(phase), *places), *((Z1, Z2) if places else (Z2,)))

    assert isinstance(action, AdmitJob)
    assert action.placement.nodes == ("z2",)


def test_job_waits_for_gpus_where_its_volume_is_and_names_the_place():
    action = plan(job_with(VolumeClaim("Bound"), ("ckpt", "z1")), Z1, Z2, used={"z1": {GPU: 8}})

    assert isinstance(action, WriteStatus)
    queue = action.status["queue"]
    assert queue["reason"] == "WaitingForCapacity"
    assert f"volume claim ckpt can be reached from nodes with {ZONE} In (z1) alone" in queue["message"]


def test_volumes_of_a_job_that_no_node_reaches_together_are_told_at_once():
    action = plan(job_with(VolumeClaim("Bound"), ("ckpt", "z1"), ("data", "z3")), Z1, Z2, Z3)

    assert isinstance(action, WriteStatus)
    assert action.status["queue"]["reason"] == "VolumeUnavailable"
    assert "no node reaches all of its volumes" in action.status["queue"]["message"]


@pytest.mark.parametrize("said", ["", "0/3 nodes are available"])
def test_claim_that_nobody_provisions_is_named_when_a_worker_cannot_be_bound(said: str):
    job = job_with(VolumeClaim("Pending"))
    unbound = a_worker(
        job,
        phase="Pending",
        bound=False,
        started_at=None,
        created_at=seconds_ago(90),
        nodes=("z1",),
        unschedulable=said,
    )

    action = plan(replace(job, pods=(unbound,)), Z1)

    assert isinstance(action, WriteStatus)
    message = action.status["lastFailure"]["message"]
    assert (said or "kube-scheduler has not said why") in message
    assert "no volume has been provisioned for volume claim ckpt" in message

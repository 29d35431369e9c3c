"""Jobs and the volume claims that they name: nothing is held for a pod that could not start, or not there."""

from dataclasses import replace

import pytest

from builders import GPU, NOW, a_job, a_node, a_snapshot, a_worker, seconds_ago
from stokehold.api.v1alpha1.training_job import TrainingJobStatus
from stokehold.model.actions import Action, AdmitJob, WriteStatus
from stokehold.model.demand import Match, Terms, claims_of, may_hold, within
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


def test_jobs_that_differ_in_the_places_of_their_volumes_alone_start_each_at_its_own():
    jobs = []
    for name in ("z2", "z1"):
        made = a_job(name, checkpoint={"claimName": "ckpt"})
        reach = (("ckpt", zone(name)),)
        volumes = (("ckpt", VolumeClaim("Bound")),)
        jobs.append(replace(made, volumes=volumes, reach=reach, demand=within(made.demand, zone(name))))

    actions = list(plan_scheduling(a_snapshot([Z1, Z2], jobs, taken_at=NOW), SchedulingSettings()))

    placed = {action.job.name: action.placement.nodes for action in actions if isinstance(action, AdmitJob)}
    assert placed == {"z1": ("z1",), "z2": ("z2",)}


def test_job_waits_for_gpus_where_its_volume_is_and_names_the_place():
    action = plan(job_with(VolumeClaim("Bound"), ("ckpt", "z1")), Z1, Z2, used={"z1": {GPU: 8}})

    assert isinstance(action, WriteStatus)
    queue = action.status["queue"]
    assert queue["reason"] == "WaitingForCapacity"
    assert f"volume claim ckpt can be reached from nodes with {ZONE} In (z1) alone" in queue["message"]


@pytest.mark.parametrize("nodes", [(Z1, Z2, Z3), (Z1, Z2)], ids=["nodes in both", "no node in one"])
def test_volumes_of_a_job_that_no_node_reaches_together_are_told_at_once(nodes: tuple[Node, ...]):
    action = plan(job_with(VolumeClaim("Bound"), ("ckpt", "z1"), ("data", "z3")), *nodes)

    assert isinstance(action, WriteStatus)
    assert action.status["queue"]["reason"] == "VolumeUnavailable"
    assert "no node reaches all of its volumes" in action.status["queue"]["message"]


def test_what_became_of_a_claim_is_told_at_once_although_the_reason_is_the_same():
    dying = job_with(VolumeClaim("Bound", deleting=True))
    told = plan(dying, Z1)
    assert isinstance(told, WriteStatus)
    status = TrainingJobStatus.model_validate(told.status)

    action = plan(replace(job_with(None), status=status), Z1)

    assert isinstance(action, WriteStatus)
    assert action.status["queue"]["message"] == "there is no volume claim ckpt"


@pytest.mark.parametrize("on_one_node", [True, False])
def test_corpse_on_a_dead_node_is_waited_for_while_it_has_the_volume_that_one_node_alone_can_have(on_one_node: bool):
    job = job_with(VolumeClaim("Bound", on_one_node=on_one_node))
    corpse = a_worker(job, nodes=("z1",), terminating_since=seconds_ago(600), tracked=False)
    waits = replace(job, status=TrainingJobStatus(attempt=2), pods=(corpse,))

    action = plan(waits, replace(Z1, ready=False), Z2)

    if not on_one_node:
        assert isinstance(action, AdmitJob)
        return
    assert isinstance(action, WriteStatus)
    queue = action.status["queue"]
    assert queue["reason"] == "WaitingForTerminatingPods"
    assert f"{corpse.name} on z1, which should be gone by" in queue["message"]
    assert "the volume of claim ckpt is there until it has gone" in queue["message"]
    assert isinstance(plan(waits, Z2), AdmitJob)  # the node has been taken away, and the volume is free


@pytest.mark.parametrize(
    ("terms", "possible"),
    [
        ([("In", "a", "b"), ("In", "b", "c")], True),
        ([("In", "a"), ("In", "b")], False),
        ([("In", "a"), ("NotIn", "a")], False),
        ([("NotIn", "a"), ("DoesNotExist",)], True),
        ([("In", "a"), ("DoesNotExist",)], False),
        ([("Exists",), ("In", "a")], True),
    ],
)
def test_matches_that_no_labels_can_satisfy_are_known(terms: list[tuple[str, ...]], possible: bool):
    assert may_hold(tuple(Match(ZONE, operator, tuple(values)) for operator, *values in terms)) is possible


@pytest.mark.parametrize("keys", [1, 16], ids=["of one class", "of classes with keys of their own"])
def test_many_claims_that_may_be_made_in_several_places_each_cost_no_more_than_they_are(keys: int):
    """Multiplied out they would be three to the power of sixteen."""
    labels = {f"{ZONE}-{number}": "z2" for number in range(keys)}
    reach = tuple(
        (f"claim-{at}", tuple((Match(f"{ZONE}-{at % keys}", "In", (name,)),) for name in ("z1", "z2", "z3")))
        for at in range(16)
    )
    made = a_job(volumes=[])
    job = replace(made, reach=reach, demand=within(made.demand, *(terms for _, terms in reach)))

    action = plan(job, Z1, a_node("right", labels=labels))

    assert len(job.demand.places) == keys
    assert isinstance(action, AdmitJob)
    assert action.placement.nodes == ("right",)


def test_volumes_that_exclude_each_other_are_known_among_many_that_do_not():
    many = tuple(((Match(f"rack-{at}", "In", ("a",)),), (Match(f"rack-{at}", "In", ("b",)),)) for at in range(16))
    made = a_job()
    reach = tuple((f"claim-{at}", one) for at, one in enumerate((*many, zone("z1"), zone("z3"))))
    job = replace(made, reach=reach, demand=within(made.demand, *(one for _, one in reach)))

    action = plan(job, Z1)

    assert isinstance(action, WriteStatus)
    assert action.status["queue"]["reason"] == "VolumeUnavailable"


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

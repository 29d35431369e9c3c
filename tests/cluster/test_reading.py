"""Odd objects of the API server: what is read of them, and what is not."""

import json

import msgspec
import pytest

from stokehold.cluster import wire
from stokehold.cluster.own_kinds import read_claim, read_job, read_workspace
from stokehold.cluster.reading.children import child_reader, read_pod_set
from stokehold.cluster.reading.pods import read_pod
from stokehold.cluster.reading.storage import read_storage_class, read_volume, read_volume_claim
from stokehold.model import names
from stokehold.model.snapshot import Job

NOT_TIMES = ("2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z")
"""One without a zone, and two at the ends of the calendar, where nothing can be added or taken away."""


def a_child(name: str, kind: str, owner: str, **annotations: str) -> dict[str, object]:
    return {
        "name": name,
        "uid": "u1",
        "labels": {"stokehold.dev/inference-pool": owner},
        "annotations": {f"stokehold.dev/{key.replace('_', '-')}": value for key, value in annotations.items()},
        "ownerReferences": [
            {"apiVersion": "stokehold.dev/v1alpha1", "kind": kind, "name": owner, "uid": "owner", "controller": True}
        ],
    }


def owner_of_child(metadata: dict[str, object]) -> str | None:
    return child_reader("stokehold.dev/inference-pool")(msgspec.convert({"metadata": metadata}, wire.Child))


def a_pod_set(metadata: dict[str, object]) -> wire.PodSet:
    template = {"spec": {"containers": []}}
    return msgspec.convert({"metadata": metadata, "spec": {"replicas": 1, "template": template}}, wire.PodSet)


def an_own(annotations: dict[str, str], **spec: object) -> wire.OwnKind:
    metadata = {"name": "x", "namespace": "team-a", "uid": "u1", "annotations": annotations}
    return msgspec.convert({"metadata": metadata, "spec": {"image": "i", **spec}}, wire.OwnKind)


@pytest.mark.parametrize(("kind", "owner"), [("InferencePool", "chat.7b"), ("DevWorkspace", "ada")])
def test_a_copy_of_a_child_under_another_name_is_nobodys(kind: str, owner: str):
    own, copy = (a_child(names.stem(owner) + suffix, kind, owner) for suffix in ("", "-copy"))

    found = read_pod_set(a_pod_set(own))

    assert found is not None
    assert found.owner_uid == "owner"
    assert owner_of_child(own) == "owner"
    assert read_pod_set(a_pod_set(copy)) is None
    assert owner_of_child(copy) is None


def test_service_that_terminates_is_there_until_it_is_gone_and_one_without_its_label_is_not():
    own = a_child("train-gang", "TrainingJob", "train")

    assert owner_of_child({**own, "deletionTimestamp": "2026-01-01T00:00:00Z"}) == "owner"
    assert owner_of_child({**own, "labels": {}}) is None
    assert owner_of_child(a_child("train", "TrainingJob", "train")) is None


@pytest.mark.parametrize("time", NOT_TIMES)
def test_a_time_that_cannot_be_is_none_whoever_wrote_it(time: str):
    stop = json.dumps({"reason": "Idle", "message": "", "time": time})
    end = json.dumps({"outcome": "Succeeded", "attempt": 1, "restarts": 0, "completionTime": time})

    workspace = read_workspace(an_own({"stokehold.dev/stopped": stop}))
    job = read_job(an_own({"stokehold.dev/finished": end}, numNodes=1, gpusPerNode=1))
    pods = read_pod_set(a_pod_set(a_child("chat", "InferencePool", "chat", undone_at=time, refused_by=f"n1={time} n2")))

    assert workspace.stop_record is None
    assert isinstance(job, Job)
    assert job.proof is not None
    assert job.proof.completed_at.tzinfo is not None
    assert (job.proof.outcome, job.proof.reason) == ("Failed", "Unreadable")
    assert pods is not None
    assert pods.undone_at == pods.refusals == ()


@pytest.mark.parametrize(
    ("asked_at", "grace", "reason"),
    [
        (None, 0, "Error"),
        ("2026-01-01T12:00:30Z", 30, "Deleted"),  # its kubelet has only just seen it end
        ("2026-01-01T12:00:00Z", 0, "Deleted"),  # and has taken the grace period off
        ("2026-01-01T12:00:09Z", 0, "Error"),  # somebody cleared it away afterwards
    ],
)
def test_a_pod_that_fails_because_it_was_deleted_is_told_from_one_that_failed_before(
    asked_at: str | None, grace: int, reason: str
):
    asked = {"deletionTimestamp": asked_at, "deletionGracePeriodSeconds": grace} if asked_at else {}
    end = {"exitCode": 143, "reason": "Error", "finishedAt": "2026-01-01T12:00:01Z"}
    status = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": end}}]}
    pod = {"metadata": {"name": "x", **asked}, "spec": {"containers": []}, "status": status}

    assert read_pod(msgspec.convert(pod, wire.Pod)).reason == reason


def test_volume_is_reached_from_where_its_affinity_and_its_labels_say():
    def reach(labels: dict[str, str], *zones: str) -> list[list[str]] | None:
        match = {"key": "disk", "operator": "In", "values": [*zones]}
        affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [match]}]}} if zones else None
        raw = {"metadata": {"name": "v", "labels": labels}, "spec": {"nodeAffinity": affinity}}
        terms = read_volume(msgspec.convert(raw, wire.Volume))
        return [[str(one) for one in term] for term in terms] if terms is not None else None

    zone = "topology.kubernetes.io/zone"
    assert reach({"app": "x"}) is None
    assert reach({zone: "z1__z2"}) == [[f"{zone} In (z1, z2)"]]
    assert reach({"failure-domain.beta.kubernetes.io/zone": "z1"}, "ssd") == [["disk In (ssd)", f"{zone} In (z1)"]]


@pytest.mark.parametrize(
    ("modes", "on_one_node"),
    [([], False), (["ReadWriteOnce"], True), (["ReadWriteOncePod"], True), (["ReadWriteOnce", "ReadWriteMany"], False)],
)
def test_claim_is_for_one_node_when_none_of_its_modes_is_shared(modes: list[str], on_one_node: bool):
    raw = {"metadata": {"name": "c"}, "spec": {"accessModes": modes}}

    assert read_volume_claim(msgspec.convert(raw, wire.VolumeClaim)).on_one_node is on_one_node


def test_storage_class_says_for_which_nodes_it_makes_volumes():
    terms = [{"matchLabelExpressions": [{"key": "zone", "values": ["z1", "z2"]}, {"key": "disk", "values": ["ssd"]}]}]
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    raw = {"metadata": {"name": "fast", "annotations": default}, "allowedTopologies": terms}

    found = read_storage_class(msgspec.convert(raw, wire.StorageClass))

    assert [[str(one) for one in term] for term in found.allowed] == [["zone In (z1, z2)", "disk In (ssd)"]]
    assert found.is_default
    assert read_storage_class(msgspec.convert({"metadata": {"name": "slow"}}, wire.StorageClass)).allowed == ()


@pytest.mark.parametrize(
    ("text", "boots_in"),
    [(None, None), ("{", None), ('{"webhook": 7}', None), ('{"simulated": {"bootTime": "3s", "newer": 1}}', "3s")],
)
def test_claim_remembers_the_provider_of_its_pool_if_that_can_be_read(text: str | None, boots_in: str | None):
    annotations = {"stokehold.dev/provider": text} if text else {}
    spec = {"poolName": "cloud", "gpuType": "h100", "gpusPerNode": 8, "capacityClass": "spot"}
    raw = {"metadata": {"name": "c", "uid": "u", "annotations": annotations}, "spec": spec}

    provider = read_claim(msgspec.convert(raw, wire.OwnKind)).provider

    found = str(provider.simulated.boot_time) if provider is not None and provider.simulated is not None else None
    assert found == boots_in

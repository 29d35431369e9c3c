"""What a snapshot says of an object, from the caches beside it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from builders import GPU, NOW, a_serving_pool
from kit.workspaces import a_workspace, its_pod
from stokehold.cluster import wire
from stokehold.cluster.reading.pods import read_pod
from stokehold.cluster.snapshots import SIZE_ASKED_AGAIN_AFTER, Cluster
from stokehold.model.demand import Match
from stokehold.model.kubelets import Refusal
from stokehold.model.pods import Member, Pod
from stokehold.model.snapshot import StorageClass, VolumeClaim

OF_JOB = {"apiVersion": "stokehold.dev/v1alpha1", "kind": "TrainingJob", "name": "j1", "uid": "j", "controller": True}


def test_a_copy_of_a_workspaces_pod_that_nobody_controls_is_not_the_workspace():
    workspace = a_workspace("ada", pods=())
    member = Member("DevWorkspace", "ada")
    own = its_pod(workspace, member=member, owner_uid="set")
    copy = replace(own, name="ada-debug", uid="other", owner_uid="")
    cluster = Cluster(lambda: None, lambda: NOW)
    cluster.workspaces.values[workspace.key] = workspace
    for pod in (copy, own):
        cluster.pods.on_upsert(pod.key, None, pod)

    (found,) = cluster.snapshot().workspaces.values()

    assert [pod.name for pod in found.pods] == [own.name]
    assert cluster.snapshot().used[own.node]["nvidia.com/gpu"] == 2


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({}, True),
        ({"finalizers": ["stokehold.dev/tracking"]}, False),
        ({"finalizers": []}, False),
        ({"deletionTimestamp": None}, False),
        ({"deletionTimestamp": "2026-01-01T11:59:40Z", "deletionGracePeriodSeconds": 30}, True),
        ({"deletionTimestamp": "2026-01-01T11:59:40Z"}, False),
        ({"ownerReferences": [{**OF_JOB, "apiVersion": "batch/v1", "kind": "Job"}]}, False),
        ({"ownerReferences": [], "labels": {"stokehold.dev/workspace": "ada"}}, False),
    ],
    ids=[
        "held",
        "by us",
        "by nobody",
        "not asked to go",
        "in its grace period",
        "ended long before it was asked to go",
        "somebody else's, which kube-scheduler does not count",
        "made by hand with a label of ours",
    ],
)
def test_pod_that_ended_when_asked_to_and_is_held_by_somebody_else_keeps_its_gpus(fields: dict[str, Any], holds: bool):
    """And says so; but no bought node is paid for longer because of it."""
    metadata = {
        "name": "j1-1-0",
        "uid": "p",
        "ownerReferences": [OF_JOB],
        "finalizers": ["stokehold.dev/tracking", "example.com/held"],
        "deletionTimestamp": "2026-01-01T11:59:10Z",
        "deletionGracePeriodSeconds": 0,
        **fields,
    }
    container = {"name": "main", "resources": {"requests": {GPU: "8"}}}
    ended = {"name": "main", "state": {"terminated": {"exitCode": 143, "finishedAt": "2026-01-01T11:59:12Z"}}}
    manifest = {
        "metadata": {key: value for key, value in metadata.items() if value is not None},
        "spec": {"nodeName": "n1", "containers": [container]},
        "status": {"phase": "Failed", "containerStatuses": [ended]},
    }
    pod = read_pod(msgspec.convert(manifest, wire.Pod))
    cluster = Cluster(lambda: None, lambda: NOW)
    cluster.pods.on_upsert(pod.key, None, pod)

    snapshot = cluster.snapshot()

    assert snapshot.used.get("n1", {}).get(GPU, 0) == (8 if holds else 0)
    assert [leaving.name for leaving in snapshot.leaving] == (["j1-1-0"] if holds else [])
    assert not snapshot.tenants.get("n1")


def test_refusal_of_a_workspaces_pod_is_known_although_its_statefulset_has_deleted_it_long_since():
    workspace = a_workspace("ada", pods=())
    made = workspace.pod_set
    assert made is not None
    pod = its_pod(workspace, member=Member("DevWorkspace", "ada"), owner_uid=made.uid, phase="Pending", ready=False)
    refused = replace(pod, phase="Failed", reason="UnexpectedAdmissionError", message="no healthy devices")
    hurried: list[str] = []
    cluster = Cluster(lambda: None, lambda: NOW, hurry=lambda: hurried.append("culling"))
    cluster.workspaces.values[workspace.key] = workspace

    def known(replicas: int = 1) -> Refusal | None:
        cluster.stateful_sets.by_owner[workspace.uid] = replace(made, replicas=replicas)
        (found,) = cluster.snapshot().workspaces.values()
        assert found.pod_set is not None
        return found.pod_set.refusal

    def seen_and_gone(ended: Pod) -> None:
        cluster.pods.on_upsert(pod.key, None, pod)
        cluster.pods.on_upsert(pod.key, pod, ended)
        cluster.pods.on_delete(pod.key, ended)

    seen_and_gone(replace(refused, reason="Evicted"))
    seen_and_gone(replace(refused, owner_uid=""))
    assert known() is None
    assert not hurried
    seen_and_gone(refused)
    cluster.pods.on_upsert(pod.key, refused, replace(refused, message="told once more"))
    assert hurried == ["culling"], "once for each refusal, when it is seen: not in a plan, which may be in a thread"
    assert known() == known() == Refusal("n1", NOW, "UnexpectedAdmissionError: no healthy devices")
    assert known(replicas=0) is None
    assert known() is None, "it was for the start before"
    seen_and_gone(refused)
    cluster.pods.on_upsert(pod.key, None, replace(pod, phase="Running"))
    assert known() is None, "one that runs has been taken"


def test_services_that_were_made_anew_are_counted_until_one_has_stayed_for_long():
    now = [NOW]
    cluster = Cluster(lambda: None, lambda: now[0])
    desk = a_workspace("ada")

    def after(minutes: int) -> int:
        now[0] += timedelta(minutes=minutes)
        cluster.restores.note(desk)
        return cluster.snapshot().restores[desk.uid].times

    assert [after(0), after(1), after(5)] == [1, 2, 3]
    assert after(16) == 1
    now[0] += timedelta(minutes=16)
    assert cluster.snapshot().restores == {}


def test_a_serving_pool_has_the_claims_that_its_pods_name_and_may_run_where_their_volumes_are():
    zone = ((Match("zone", "In", ("z1",)),),)
    pool = replace(a_serving_pool(), claims=("cache", "models"))
    cluster = Cluster(lambda: None, lambda: NOW)
    cluster.serving_pools.values[pool.key] = pool
    bound = VolumeClaim("Bound", volume="v1")
    cluster.volume_claims.values[(pool.namespace, "models")] = bound
    cluster.volumes.values["v1"] = zone

    (found,) = cluster.snapshot().serving_pools.values()

    assert found.volumes == (("cache", None), ("models", bound))
    assert found.reach == (("models", zone),)
    assert found.demand.places == (zone,)


def test_size_that_the_api_server_refused_is_asked_for_again_after_some_minutes():
    workspace, volume = a_workspace("ada"), VolumeClaim("Bound", size="1Gi")
    now = [NOW]
    cluster = Cluster(lambda: None, lambda: now[0])
    cluster.workspaces.values[workspace.key] = workspace
    cluster.volume_claims.values[(workspace.namespace, "ada-home")] = volume
    cluster.note_refused_size(workspace, "2Gi")

    def refused() -> str | None:
        cluster.snapshot()
        (found,) = cluster.snapshot().workspaces.values()
        return found.volume.refused_size if found.volume is not None else None

    assert refused() == "2Gi"
    now[0] += SIZE_ASKED_AGAIN_AFTER
    assert refused() == ""


def test_where_a_storage_class_makes_volumes_counts_until_there_is_one():
    here, there = (((Match("zone", "In", (zone,)),),) for zone in ("z1", "z2"))
    cluster = Cluster(lambda: None, lambda: NOW)
    for made in (StorageClass("slow", (), is_default=True), StorageClass("fast", here)):
        cluster.storage_classes.values[made.name] = made
    for name in ("new", "any", "waits", "bound"):
        of = {"storageClassName": "fast"} if name == "new" else {}
        workspace = a_workspace(name, storage={"size": "1Gi", **of})
        cluster.workspaces.values[workspace.key] = workspace
    claims = cluster.volume_claims.values
    claims[("team-a", "waits-home")] = VolumeClaim("Pending", storage_class="fast")
    claims[("team-a", "bound-home")] = VolumeClaim("Bound", volume="v", storage_class="fast")
    cluster.volumes.values["v"] = there

    found = {workspace.name: dict(workspace.reach) for workspace in cluster.snapshot().workspaces.values()}

    assert found == {
        "new": {"new-home": here},
        "any": {},
        "waits": {"waits-home": here},
        "bound": {"bound-home": there},
    }

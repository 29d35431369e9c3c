"""What a snapshot says of an object, from the caches beside it."""

from dataclasses import replace

from builders import NOW
from kit.workspaces import a_workspace, its_pod
from stokehold.cluster.snapshots import Cluster
from stokehold.model.pods import Member


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

"""A stop of a workspace meets whatever its StatefulSet has become since it was planned."""

from dataclasses import replace

import msgspec
import pytest

from builders import NOW
from cluster.fake_api import client, serving
from kit.workspaces import a_workspace
from stokehold.cluster import wire, workspace_manifests
from stokehold.cluster.apply import Writer, Writes
from stokehold.cluster.apply.workspaces import stop
from stokehold.cluster.errors import ConflictError
from stokehold.cluster.reading.children import read_pod_set
from stokehold.model.actions import Placement, StopWorkspace

WORKSPACE = a_workspace("ada")
STATEFUL_SET = workspace_manifests.stateful_set(
    WORKSPACE, Placement("h100", "h100", "on-prem", "nvidia.com/gpu", ("n1",), ())
)


@pytest.fixture
async def fake():
    async with serving() as server:
        yield server


@pytest.fixture
async def writes(fake, tmp_path):
    async with client(fake, tmp_path / "kubeconfig") as api:
        yield Writes(api, (), Writer("test", lambda: None, lambda: 0), lambda: NOW)


async def planned(fake) -> StopWorkspace:
    """A stop of the workspace as it is now."""
    now = await fake.put("statefulsets", STATEFUL_SET)
    seen = read_pod_set(msgspec.convert(now, wire.PodSet))
    made = await fake.put("devworkspaces", {"metadata": {"name": WORKSPACE.name, "namespace": WORKSPACE.namespace}})
    workspace = replace(WORKSPACE, pod_set=seen, resource_version=made["metadata"]["resourceVersion"])
    return StopWorkspace(workspace, "refused", status={"failedStarts": 1})


def replicas(fake) -> int:
    (held,) = fake.held("statefulsets").values()
    return held["spec"]["replicas"]


def failed_starts(fake) -> int:
    (held,) = fake.held("devworkspaces").values()
    return held.get("status", {}).get("failedStarts", 0)


async def test_status_that_its_controller_has_written_since_holds_up_no_stop(fake, writes):
    action = await planned(fake)
    await fake.put("statefulsets", STATEFUL_SET | {"status": {"replicas": 1, "readyReplicas": 1}})

    await stop(writes, action)

    assert (replicas(fake), failed_starts(fake)) == (0, 1)


async def test_newer_wish_that_it_should_run_does(fake, writes):
    action = await planned(fake)
    kept = {**STATEFUL_SET["metadata"]["annotations"], "stokehold.dev/wanted-by": "2"}
    await fake.put("statefulsets", STATEFUL_SET | {"metadata": {**STATEFUL_SET["metadata"], "annotations": kept}})

    with pytest.raises(ConflictError):
        await stop(writes, action)

    assert (replicas(fake), failed_starts(fake)) == (1, 0), "a stop that did not happen is no start that has failed"

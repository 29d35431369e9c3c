"""A pool's provider cannot be changed while machines of it are claimed: nobody would know whom to give them back to."""

from builders import NOW, a_pool, a_snapshot
from kit.provisioning import World, a_cloud, a_waiting_job
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePool
from stokehold.controllers.admission import Surroundings, judge
from stokehold.model.snapshot import Snapshot

WEBHOOK = {"webhook": {"url": "https://nodes.example.com/v1"}}


def manifest(snapshot: Snapshot, **spec: object) -> dict[str, object]:
    old = snapshot.node_pools["cloud"].spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "GPUNodePool",
        "metadata": {"name": "cloud"},
        "spec": {**old, **spec},
    }


def bought() -> Snapshot:
    world = World(a_snapshot(jobs=[a_waiting_job()], node_pools=[a_cloud(), a_pool("own")]))
    world.settle()
    return world.snapshot


def refusals(kind, manifest, snapshot):
    around = Surroundings(lambda: NOW, {}, {}, {}, snapshot.node_pools, snapshot.claims)
    return judge(kind, manifest, around).refusals


def test_provider_with_claims_cannot_be_replaced():
    snapshot = bought()

    assert "4 nodes" in refusals(GPUNodePool, manifest(snapshot, provider=WEBHOOK), snapshot)[0]


def test_all_else_may_change_and_without_claims_the_provider_too():
    snapshot = bought()

    assert refusals(GPUNodePool, manifest(snapshot, limits={"maxNodes": 1}), snapshot) == ()
    assert refusals(GPUNodePool, manifest(snapshot, provider={"simulated": {"bootTime": "9s"}}), snapshot) == ()
    empty = a_snapshot(node_pools=[a_cloud()])
    assert refusals(GPUNodePool, manifest(empty, provider=WEBHOOK), empty) == ()

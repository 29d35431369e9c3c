"""Nodes that do not exist yet, as far as they can be planned with: what `nodeShape` of their pool promises."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from stokehold.api.names import CLAIM_LABEL
from stokehold.api.v1alpha1.gpu_node_claim import READY
from stokehold.model.accounting import LARGEST, Resources, amounts
from stokehold.model.demand import Demand
from stokehold.model.snapshot import Claim, Node, NodePool, Snapshot
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.pools import Pool, pool_taints
from stokehold.planning.provisioning.world import World

ZONE_LABEL = "topology.kubernetes.io/zone"
REGION_LABEL = "topology.kubernetes.io/region"
LATE_LABELS = {
    "topology.ebs.csi.aws.com/zone": ZONE_LABEL,
    "topology.gke.io/zone": ZONE_LABEL,
    "topology.disk.csi.azure.com/zone": ZONE_LABEL,
    "topology.cinder.csi.openstack.org/zone": ZONE_LABEL,
    "topology.diskplugin.csi.alibabacloud.com/zone": ZONE_LABEL,
    "topology.csi.scaleway.com/zone": ZONE_LABEL,
    "failure-domain.beta.kubernetes.io/zone": ZONE_LABEL,
    "failure-domain.beta.kubernetes.io/region": REGION_LABEL,
}
"""What drivers of volumes, and clouds, put on a node once it has joined, and the label that has the same value: volumes
are kept to these. Nobody asks a provider for them."""


def offered(pool: NodePool) -> dict[str, str]:
    """What a node of the pool offers, as quantities; what the shape does not name is left out."""
    shape, gpus = pool.spec.node_shape, pool.spec.gpus_per_node or 0
    named = {
        "cpu": shape.cpu if shape else None,
        "memory": shape.memory if shape else None,
        "ephemeral-storage": shape.ephemeral_storage if shape else None,
        "pods": shape.pods if shape else 110,
        pool.spec.resource_name: gpus,
    }
    return {name: str(value) for name, value in named.items() if value is not None}


def labels_of(claim: str, pool: NodePool, zone: str) -> dict[str, str]:
    """The labels with which the claim's node joins."""
    shape = pool.spec.node_shape
    labels = {CLAIM_LABEL: claim, "kubernetes.io/hostname": claim, **(shape.labels if shape else {})}
    if zone:
        labels[ZONE_LABEL] = zone
    if pool.spec.region:
        labels[REGION_LABEL] = pool.spec.region
    return labels


def imagined_node(name: str, pool: NodePool, zone: str) -> Node:
    """The node as it should join; an amount that the shape does not name is taken to be plenty."""
    known = amounts(offered(pool))
    plenty = dict.fromkeys(("cpu", "memory", "ephemeral-storage"), LARGEST // 2**20)
    has = {**plenty, **known}
    asked = labels_of(name, pool, zone)
    late = {label: asked[same] for label, same in LATE_LABELS.items() if same in asked}
    return Node(
        name=name,
        labels={**late, **asked},
        capacity=has,
        allocatable=has,
        taints=pool_taints(pool.spec),
    )


def node_of(claim: Claim, world: World) -> Node:
    """The claim's node as it is, if it can be used, else as it should join."""
    node = world.nodes.get(claim.name)
    if node is not None and claim.status.phase == READY:
        return node
    return imagined_node(claim.name, world.snapshot.node_pools[claim.spec.pool_name], claim.spec.zone or "")


def ledger_of(
    nodes: Iterable[Node],
    pool: Pool,
    snapshot: Snapshot,
    demands: Iterable[Demand],
    used: Mapping[str, Resources] | None = None,
) -> Ledger:
    """A ledger of these nodes alone, all of one pool; empty, but for what is `used` of them, by name."""
    by_name: Mapping[str, Node] = {node.name: node for node in nodes}
    alone = replace(snapshot, nodes=by_name, used=used or {})
    return Ledger(alone, (replace(pool, members=tuple(sorted(by_name))),), demands)

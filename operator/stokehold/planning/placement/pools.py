"""Which nodes belong together: the declared pools, or one per GPU product when nobody declared any."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from stokehold.api.names import BURST_TAINT, CLAIM_LABEL
from stokehold.api.v1alpha1.gpu_node_claim import READY
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolSpec
from stokehold.model.demand import Demand
from stokehold.model.snapshot import Claim, Node, NodePool, Snapshot
from stokehold.model.taints import Taint, is_gpu_taint

PRODUCT_LABEL = "nvidia.com/gpu.product"
DEFAULT_GPU_RESOURCE = "nvidia.com/gpu"
ON_PREM = "on-prem"
NO_GPUS = ""
"""GPU type of the nodes that belong to no pool: they take the jobs that ask for no GPUs."""

PARTS_OF_GPUS = frozenset({"mig", "shared"})
"""Words of a product label that say that what is counted is not a whole GPU."""

DEFAULT_LEVELS = {
    "region": "topology.kubernetes.io/region",
    "zone": "topology.kubernetes.io/zone",
    "rack": "topology.kubernetes.io/rack",
    "host": "kubernetes.io/hostname",
}
"""Topology aliases that work without any configuration."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with its member nodes, by name and in order."""

    name: str
    gpu_type: str
    gpu_resource: str
    capacity_class: str
    data_classes: tuple[str, ...]
    levels: Mapping[str, str]
    members: tuple[str, ...]
    declared: bool = True
    bought: bool = False
    """Its nodes come from a provider."""
    taints: tuple[Taint, ...] = ()
    """Taints of its nodes that our pods are made to tolerate."""

    def serves_type(self, wanted: str) -> bool:
        """Whether a job that asks for this GPU type may run here.

        A declared pool answers to its exact `gpuType`. An implicit one answers to any set of words of its product
        label: `h100` and `a100-80gb` find NVIDIA-H100-80GB-HBM3 and NVIDIA-A100-SXM4-80GB. Who means a slice or a
        share of a GPU must say so: `a100` does not find NVIDIA-A100-SXM4-40GB-MIG-1g.5gb, `a100-mig-1g-5gb` does.
        """
        if self.declared:
            return wanted == self.gpu_type
        words, asked = set(self.gpu_type.split("-")), set(wanted.lower().split("-"))
        return asked <= words and words & PARTS_OF_GPUS <= asked

    def admits_data(self, data_class: str) -> bool:
        """Whether work of this data class may run here; work without one counts as the most restricted."""
        if self.capacity_class == ON_PREM and not self.bought and not self.data_classes:
            return True
        return data_class in self.data_classes


def resolve_pools(snapshot: Snapshot) -> tuple[Pool, ...]:
    """Every pool, by name, then one of the nodes that no pool has. A node belongs to the first that selects it.

    Bought nodes belong to the pool of their claim from when they are ready, and to no other however they are labelled:
    what may stay on own nodes alone must not follow a label into the cloud.
    """
    declared = [p for _, p in sorted(snapshot.node_pools.items())]
    bought = bought_nodes(snapshot)
    own = {name: node for name, node in sorted(snapshot.nodes.items()) if name not in bought and not _is_bought(node)}
    members = _selected(declared, own)
    for name, claim in sorted(bought.items()):
        if claim is not None and claim.spec.pool_name in members:
            members[claim.spec.pool_name].append(name)
    pools = [_declared(pool, members[pool.name]) for pool in declared]
    if not any(pool.spec.node_selector for pool in declared):
        pools = [*_implicit(own.values(), members), *pools]
    taken = {name for pool in pools for name in pool.members}
    rest = tuple(name for name in own if name not in taken)
    return (*pools, Pool(NO_GPUS, NO_GPUS, DEFAULT_GPU_RESOURCE, ON_PREM, (), DEFAULT_LEVELS, rest))


@dataclass(frozen=True, slots=True)
class GpuCount:
    """GPUs of one pool: what its nodes offer to pods, and what live pods request of it."""

    allocatable: int
    used: int
    terminating: int
    """Those of `used` whose pods are being deleted."""

    @property
    def free(self) -> int:
        """What a new pod could have; a node that lost GPUs under its pods has none."""
        return max(0, self.allocatable - self.used)


def count_gpus(pool: Pool, snapshot: Snapshot) -> GpuCount:
    """The pool's GPUs, node by node, whether ready or not."""
    allocatable = sum(snapshot.nodes[name].allocatable.get(pool.gpu_resource, 0) for name in pool.members)
    used = sum(snapshot.used.get(name, {}).get(pool.gpu_resource, 0) for name in pool.members)
    members = set(pool.members)
    terminating = sum(pod.requests.get(pool.gpu_resource, 0) for pod in snapshot.leaving if pod.node in members)
    return GpuCount(allocatable, used, terminating)


def pools_for(demand: Demand, pools: Iterable[Pool]) -> list[Pool]:
    """The pools that may host this gang, best first: by the order of its GPU types, then of its capacity classes."""
    ranked = [(rank, pool.name, pool) for pool in pools if (rank := preference(demand, pool)) is not None]
    return [pool for *_, pool in sorted(ranked, key=lambda entry: entry[:2])]


def preference(demand: Demand, pool: Pool) -> tuple[int, int] | None:
    """How the gang likes the pool, the least the best; None when it may not run there."""
    if demand.gpus and (pool.gpu_type == NO_GPUS or demand.gpu_resource not in ("", pool.gpu_resource)):
        return None
    type_rank = _rank(demand.gpu_types, pool.serves_type)
    class_rank = _rank(demand.capacity_classes, pool.capacity_class.__eq__)
    if type_rank is None or class_rank is None or not pool.admits_data(demand.data_class):
        return None
    return type_rank, class_rank


def bought_nodes(snapshot: Snapshot) -> dict[str, Claim | None]:
    """The nodes that belong to claims; the claim is given once the node may be used: ready, and to stay."""
    found: dict[str, Claim | None] = {}
    for claim in snapshot.claims.values():
        node = claim.status.node_name
        if node and node in snapshot.nodes:
            usable = claim.status.phase == READY and not claim.deleting
            found[node] = claim if usable else None
    return found


def _is_bought(node: Node) -> bool:
    """Whether the node says that it was bought, whoever asked for it."""
    return CLAIM_LABEL in node.labels or any(taint.key == BURST_TAINT for taint in node.taints)


def _selected(declared: list[NodePool], nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {pool.name: [] for pool in declared}
    selecting = [pool for pool in declared if pool.spec.node_selector]
    for name, node in nodes.items():
        for pool in selecting:
            if _selects(pool, node):
                members[pool.name].append(name)
                break
    return members


def _selects(pool: NodePool, node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in (pool.spec.node_selector or {}).items())


def _rank(wishes: tuple[str, ...], fits: Callable[[str], bool]) -> int | None:
    if not wishes:
        return 0
    return next((i for i, wish in enumerate(wishes) if fits(wish)), None)


def _declared(pool: NodePool, members: Iterable[str]) -> Pool:
    spec = pool.spec
    levels = {level.alias: level.node_label for level in spec.topology_levels}
    return Pool(
        name=pool.name,
        gpu_type=spec.gpu_type,
        gpu_resource=spec.resource_name,
        capacity_class=spec.capacity_class,
        data_classes=spec.data_classes,
        levels=DEFAULT_LEVELS | levels,
        members=tuple(members),
        bought=spec.provider is not None,
        taints=pool_taints(spec) if spec.provider is not None else (),
    )


def pool_taints(spec: GPUNodePoolSpec) -> tuple[Taint, ...]:
    """The taints with which a node of a bought pool joins."""
    declared = spec.node_shape.taints if spec.node_shape else ()
    return (Taint(BURST_TAINT, "", "NoSchedule"), *(Taint(t.key, t.value, t.effect) for t in declared))


def taints_to_answer(pool: Pool | None, nodes: Iterable[Node]) -> tuple[Taint, ...]:
    """The taints that workers on these nodes of the pool are made to tolerate: those that are there, and no others."""
    of_pool = pool.taints if pool is not None else ()
    of_nodes = {taint: None for node in nodes for taint in node.taints if is_gpu_taint(taint)}
    return (*of_pool, *(taint for taint in of_nodes if taint not in of_pool))


def tolerated_by_pool(pool: Pool, taint: Taint) -> bool:
    """Whether our pods are made to tolerate the taint because they go to this pool."""
    return any(taint.key == own.key and taint.effect == own.effect for own in pool.taints)


def _implicit(nodes: Iterable[Node], taken_names: Collection[str]) -> list[Pool]:
    products: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda n: n.name):
        if product := node.labels.get(PRODUCT_LABEL):
            products.setdefault(_slug(product), []).append(node.name)
    return [
        Pool(
            name=f"implicit-{slug}" if slug in taken_names else slug,
            gpu_type=slug,
            gpu_resource=DEFAULT_GPU_RESOURCE,
            capacity_class=ON_PREM,
            data_classes=(),
            levels=DEFAULT_LEVELS,
            members=tuple(members),
            declared=False,
        )
        for slug, members in sorted(products.items())
    ]


def _slug(product: str) -> str:
    return product.lower().replace("_", "-").replace(".", "-").removeprefix("nvidia-").removeprefix("tesla-")

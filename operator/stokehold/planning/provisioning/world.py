"""What all steps of one plan look at: the snapshot, and what was joined from it once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from stokehold.api.names import CLAIM_LABEL
from stokehold.api.v1alpha1.gpu_node_claim import (
    DRAINING,
    FAILED,
    LAUNCHED,
    READY,
    REGISTERED,
    RELEASED,
    REQUESTED,
)
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolSpec, PoolLimits
from stokehold.model.shapes import digest
from stokehold.model.snapshot import Claim, Job, Node, NodePool, Snapshot
from stokehold.planning.placement.purchases import (
    Purchase,
    all_purchases,
    attempt_of,
    standing_purchases,
    written_off,
)
from stokehold.planning.provisioning.settings import ProvisioningSettings

OWNER_NAMESPACE = "kube-system"
"""Its uid is the identity of the cluster, by the convention of Kubernetes."""


@dataclass(frozen=True, slots=True)
class World:
    """One plan's view."""

    snapshot: Snapshot
    settings: ProvisioningSettings
    nodes: dict[str, Node] = field(default_factory=dict)
    """By claim: the node that belongs to it."""
    standing: dict[str, Purchase] = field(default_factory=dict)
    """By uid of the job: purchases whose gang still waits."""
    purchases: tuple[Purchase, ...] = ()
    written_off: dict[str, tuple[Claim, ...]] = field(default_factory=dict)
    """By uid of the job: nodes whose pool is gone, and for which it waits no more."""
    held: frozenset[str] = frozenset()
    """Claims whose nodes are kept for a gang, by name."""
    beyond_limit: frozenset[str] = frozenset()
    """Claims that nobody was asked for yet, and that are more than their pool may have."""
    by_pool: dict[str, list[Claim]] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()
    """Claims about which this plan has decided something: one write each, so nothing else is built on them in it."""

    @property
    def now(self) -> datetime:
        """The time of the snapshot."""
        return self.snapshot.taken_at

    @property
    def owner(self) -> str:
        """The cluster's identity at providers; empty while it is not known, and then nothing may be bought."""
        namespace = self.snapshot.namespaces.get(OWNER_NAMESPACE)
        return namespace.uid if namespace is not None else ""

    def pool_of(self, claim: Claim) -> NodePool | None:
        """The pool whose provider the claim was asked from; None when it was deleted, or cannot be read."""
        pool = self.snapshot.node_pools.get(claim.spec.pool_name)
        return pool if pool is not None and pool.spec.provider is not None else None

    def is_unread(self, pool: str) -> bool:
        """Whether the pool is there and nobody knows what it says: neither what it keeps warm, nor for how long."""
        return pool in self.snapshot.unread_pools

    def gives_back_to(self, claim: Claim) -> NodePool | None:
        """The pool whose provider takes the claim's machine, as it was when the claim was made should it be gone."""
        return self.pool_of(claim) or pool_as_it_was(claim)

    def claims_of(self, pool: str) -> Sequence[Claim]:
        """All claims of a pool, by name."""
        return self.by_pool.get(pool, [])

    def tenants(self, node: Node | None) -> tuple[str, ...]:
        """The pods on a node that would be lost with it."""
        return self.snapshot.tenants.get(node.name, ()) if node is not None else ()

    def is_held(self, claim: Claim) -> bool:
        """Whether a gang still waits for this node and its siblings, or is only just being started on them."""
        return claim.name in self.held

    def is_spare(self, claim: Claim) -> bool:
        """Whether nobody waits for it and nobody is on it."""
        if claim.deleting or self.is_held(claim) or claim.status.phase in (FAILED, RELEASED, DRAINING):
            return False
        return not self.tenants(self.nodes.get(claim.name))

    def open_claims(self, pool: str, zone: str) -> tuple[Claim, ...]:
        """Claims of a pool and zone whose nodes are kept for nobody and take work, now or when they have come."""
        return tuple(
            claim for claim in self.claims_of(pool) if (claim.spec.zone or "") == zone and self._is_open(claim)
        )

    def _is_open(self, claim: Claim) -> bool:
        if claim.deleting or self.is_held(claim) or self.has_expired(claim):
            return False
        if is_coming(claim):
            return True
        node = self.nodes.get(claim.name)
        return claim.status.phase == READY and node is not None and node.ready and not node.unschedulable

    def is_moving(self, pool: str) -> bool:
        """Whether an empty node of the pool, there or coming and kept for nobody, takes a step in this plan."""
        return any(
            claim.name in self.touched and self._is_open(claim) and self.is_spare(claim)
            for claim in self.claims_of(pool)
        )

    def has_expired(self, claim: Claim) -> bool:
        """Whether it is to be given back whatever happens."""
        return self.now - claim.created_at >= claim.spec.expire_after.to_timedelta()


def pool_as_it_was(claim: Claim) -> NodePool | None:
    """The claim's pool when the claim was made, no more of it than its provider needs; None when the claim does not
    know it."""
    if claim.provider is None:
        return None
    spec = GPUNodePoolSpec(
        provider=claim.provider,
        gpu_type=claim.spec.gpu_type,
        gpus_per_node=claim.spec.gpus_per_node,
        limits=PoolLimits(max_nodes=0),
    )
    uid = digest(claim.provider.model_dump(mode="json"))  # one for all its claims, for it names the connection
    name, born = claim.spec.pool_name, claim.created_at
    return NodePool(name=name, uid=uid, resource_version="", generation=0, created_at=born, spec=spec)


def is_coming(claim: Claim) -> bool:
    """Whether its node is on its way: asked for, and neither ready nor given up."""
    return not claim.deleting and claim.status.phase in ("", REQUESTED, LAUNCHED, REGISTERED)


def look_at(snapshot: Snapshot, settings: ProvisioningSettings) -> World:
    """Join claims with their nodes, purchases and pools."""
    by_pool: dict[str, list[Claim]] = {}
    for _, claim in sorted(snapshot.claims.items()):
        by_pool.setdefault(claim.spec.pool_name, []).append(claim)
    purchases, standing = all_purchases(snapshot), standing_purchases(snapshot)
    starting = (p for p in purchases if p.attempt == attempt_of(p.job) and _is_half_created(p.job))
    return World(
        snapshot=snapshot,
        settings=settings,
        nodes=_nodes_of_claims(snapshot) if snapshot.claims else {},
        standing=standing,
        purchases=purchases,
        written_off=written_off(snapshot),
        held=frozenset(claim.name for p in (*standing.values(), *starting) for claim in p.claims),
        beyond_limit=frozenset(name for claims in by_pool.values() for name in _beyond_limit(claims, snapshot)),
        by_pool=by_pool,
    )


def _beyond_limit(claims: list[Claim], snapshot: Snapshot) -> list[str]:
    """The youngest of a pool's claims, as far as nobody was asked for them: two leaders knew of one limit each."""
    pool = snapshot.node_pools.get(claims[0].spec.pool_name)
    if pool is None or pool.spec.limits is None:
        return []
    unasked = sorted((c for c in claims if not c.status.phase and not c.deleting), key=lambda c: (c.created_at, c.name))
    return [claim.name for claim in unasked[::-1][: max(0, len(claims) - pool.spec.limits.max_nodes)]]


def _is_half_created(job: Job) -> bool:
    """Whether some pods of the attempt exist and others do not yet."""
    workers = [pod.worker for pod in job.pods if pod.worker and pod.worker.attempt == attempt_of(job)]
    return bool(workers) and job.proof is None and len(workers) < max(worker.gang_size for worker in workers)


def _nodes_of_claims(snapshot: Snapshot) -> dict[str, Node]:
    """By the machine's identity where both sides know it, else by the label that the node joined with."""
    machines = {claim.status.provider_id: name for name, claim in snapshot.claims.items() if claim.status.provider_id}
    found: dict[str, Node] = {}
    for _, node in sorted(snapshot.nodes.items()):
        name = machines.get(node.provider_id) if node.provider_id else None
        if name is None:
            name = node.labels.get(CLAIM_LABEL)
            claim = snapshot.claims.get(name or "")
            if claim is None or (claim.status.provider_id and node.provider_id):
                continue  # a machine of that label, but not the one that the claim stands for
        found[str(name)] = node
    return found

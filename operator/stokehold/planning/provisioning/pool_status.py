"""What the status of each GPUNodePool says: its nodes and GPUs, what they cost, and what its provider failed at."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from stokehold.api import conditions
from stokehold.api.conditions import Condition, find_condition
from stokehold.api.v1alpha1 import gpu_node_claim as claims_api
from stokehold.api.v1alpha1.gpu_node_pool import GpuCounts, GPUNodePoolStatus, NodeCounts
from stokehold.model.actions import Note, WriteStatus
from stokehold.model.reasons import Event, Nodes
from stokehold.model.snapshot import NodePool
from stokehold.model.statuses import News, dump, told_conditions, whole
from stokehold.model.unsupported import in_node_pool, validity
from stokehold.planning.placement.devices import remembered, told, troubles, unsettled_nodes
from stokehold.planning.placement.pools import Pool, count_gpus
from stokehold.planning.placement.prices import gpu_price
from stokehold.planning.provisioning import breaker
from stokehold.planning.provisioning.world import World

READY, EMPTY = "Ready", "Empty"


def report_pools(world: World, pools: tuple[Pool, ...]) -> Iterator[WriteStatus]:
    """The statuses that have changed; where only the use of GPUs has, it can wait."""
    by_name = {pool.name: pool for pool in pools}
    unsettled = unsettled_nodes(world.snapshot)
    for name, declared in sorted(world.snapshot.node_pools.items()):
        missing = troubles(by_name[name], world.snapshot, unsettled)
        status = _status(declared, by_name[name], missing, unsettled, world)
        if status == declared.status:
            continue
        only_use = status.model_copy(update={"gpus": declared.status.gpus}) == declared.status
        notes = (*_failures(declared, status), *_losses(declared, missing, world.now))
        yield WriteStatus(declared, dump(status), notes, can_wait=only_use)


def _status(
    pool: NodePool, members: Pool, missing: Mapping[str, str], unsettled: frozenset[str], world: World
) -> GPUNodePoolStatus:
    nodes = [world.snapshot.nodes[name] for name in members.members]
    claims = world.claims_of(pool.name)
    gpu = members.gpu_resource
    usable = [node for node in nodes if node.ready and node.name not in unsettled]
    ready = [node for node in usable if node.allocatable.get(gpu, 0) > 0]
    gpus = count_gpus(members, world.snapshot)
    free = sum(
        max(0, node.allocatable.get(gpu, 0) - world.snapshot.used.get(node.name, {}).get(gpu, 0))
        for node in ready
        if not node.unschedulable
    )
    coming = sum(c.status.phase not in (claims_api.READY, claims_api.DRAINING) and not c.deleting for c in claims)
    price = gpu_price(pool)
    per_gpu = price.amount if price is not None else None
    return pool.status.model_copy(
        update={
            "observed_generation": pool.generation,
            "phase": READY if ready else EMPTY,
            "nodes": NodeCounts(total=len(nodes), ready=len(ready), requested=coming),
            "gpus": GpuCounts(total=gpus.allocatable, used=gpus.used, terminating=gpus.terminating or None, free=free),
            "cost_per_gpu_hour": per_gpu,
            "marginal_cost_per_gpu_hour": per_gpu,
            "currency": price.currency if price is not None else None,
            "offerings": tuple(breaker.offerings(pool, claims, world.now, world.settings)),
            "gpus_missing_on": remembered(missing),
            "conditions": _conditions(pool, len(nodes), bool(ready), missing, world.now),
        }
    )


def _conditions(
    pool: NodePool, nodes: int, any_ready: bool, missing: Mapping[str, str], now: datetime
) -> tuple[Condition, ...]:
    if any_ready:
        news: list[News] = [(conditions.READY, True, Nodes.READY, "nodes are ready")]
    elif nodes:
        news = [(conditions.READY, False, Nodes.NONE, f"none of its {nodes} nodes can take new work")]
    else:
        waits = "nodes are bought when they are needed" if pool.spec.provider else "no node carries its labels"
        news = [(conditions.READY, False, Nodes.NONE, waits)]
    if missing:
        news.append((conditions.DEVICES_READY, False, Nodes.DEVICES_LOST, told(missing)))
    elif find_condition(pool.status.conditions, conditions.DEVICES_READY):
        news.append((conditions.DEVICES_READY, True, Nodes.DEVICES_THERE, "no node has lost GPUs"))
    return told_conditions(pool, now, *news, *validity(pool.status.conditions, in_node_pool(pool.spec)))


def _losses(pool: NodePool, missing: Mapping[str, str], now: datetime) -> tuple[Note, ...]:
    """One Event for the nodes that the status did not name before, however often their GPUs come and go."""
    new = {name: missing[name] for name in remembered(missing) if name not in pool.status.gpus_missing_on}
    return (Note(Nodes.DEVICES_LOST, told(new), f"lost {whole(now)} {' '.join(new)}", warning=True),) if new else ()


def _failures(pool: NodePool, status: GPUNodePoolStatus) -> tuple[Note, ...]:
    """An Event for each failure of the provider that is new."""
    known = {(offering.zone, offering.failed_at) for offering in pool.status.offerings}
    return tuple(
        Note(
            Event.PROVIDER_FAILED,
            f"{offering.reason}{f' in zone {offering.zone}' if offering.zone else ''}: {offering.message}; "
            f"asked again at {offering.blocked_until:%H:%M:%S} UTC",
            f"offering {offering.zone} {offering.failed_at}",
            warning=True,
        )
        for offering in status.offerings
        if (offering.zone, offering.failed_at) not in known
    )

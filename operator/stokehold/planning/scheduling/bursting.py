"""What nodes that are bought, or are not, mean for a gang that waits. Buying them is planned elsewhere."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.durations import Duration
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Job, Snapshot
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.placement.pools import Pool, preference
from stokehold.planning.placement.purchases import WRITTEN_OFF_AFTER, Purchase, is_lost


def with_burst(
    job: Job, why: Explanation, purchases: Mapping[str, Purchase], pools: Collection[Pool], snapshot: Snapshot
) -> Explanation:
    """The reason with what is known of bought nodes: how many are coming and until when, or why none are."""
    purchase = purchases.get(job.uid)
    if purchase is not None and is_lost(purchase.pool, snapshot):
        return replace(
            why,
            message=f"{why.message}; the nodes that are bought for it are those of GPUNodePool {purchase.pool}, "
            "which does not exist any more",
            next_step="Ask the platform team to make that GPUNodePool again, or to delete its GPUNodeClaims. After "
            f"{Duration.of_seconds(WRITTEN_OFF_AFTER.seconds)} nodes of another pool are bought if one has them.",
            urgent=purchase.pool,
        )
    if purchase is not None and purchase.pool in snapshot.unread_pools:
        return replace(
            why,
            message=f"{why.message}; the nodes that are bought for it are those of GPUNodePool {purchase.pool}, "
            "which this version of the operator cannot read",
            next_step="Ask the platform team to mend that GPUNodePool: its Event Unreadable says what is wrong.",
            urgent=purchase.pool,
        )
    if purchase is not None and not purchase.is_failing and not purchase.is_ready:
        return _provisioning(purchase, _passed_over(purchase, pools, snapshot))
    told = find_condition(job.status.conditions, conditions.CAPACITY_PROVISIONED)
    if purchase is not None or told is None or told.status == conditions.TRUE or not told.message:
        return why
    return replace(why, message=f"{why.message}; no nodes are bought: {told.message}", urgent=told.message)


def _passed_over(purchase: Purchase, pools: Collection[Pool], snapshot: Snapshot) -> str:
    """Which pool, or zone of it, would have been asked before this one, had its provider not failed."""
    demand, by_name = purchase.job.demand, {pool.name: pool for pool in pools}
    chosen = by_name.get(purchase.pool)
    liked = preference(demand, chosen) if chosen is not None else None
    for name, pool in sorted(by_name.items()):
        rank = preference(demand, pool) if pool.bought else None
        if rank is None or liked is None or rank > liked:
            continue
        for failure in snapshot.node_pools[name].status.offerings:
            until = failure.blocked_until
            if (
                until is not None
                and until > snapshot.taken_at
                and (name, failure.zone) != (purchase.pool, purchase.zone)
            ):
                zone = f" in zone {failure.zone}" if failure.zone else ""
                return f"; pool {name}{zone} failed before ({failure.reason}: {failure.message})"
    return ""


def _provisioning(purchase: Purchase, passed_over: str) -> Explanation:
    zone = f" in zone {purchase.zone}" if purchase.zone else ""
    count = "1 node" if purchase.bought == 1 else f"{purchase.bought} nodes"
    verb = "is" if purchase.bought == 1 else "are"
    spare = purchase.size - purchase.bought
    beside = f" beside {spare} that {'is' if spare == 1 else 'are'} spare" if spare else ""
    return Explanation(
        Waiting.PROVISIONING,
        f"{count} of pool {purchase.pool}{zone} {verb} being bought for it{beside}, "
        f"ready by {purchase.ready_by:%H:%M:%S} UTC at the latest{passed_over}",
        "Nothing to do: it starts when all of them are ready.",
        requested=purchase.size,
        available=purchase.ready,
        unit="nodes",
    )

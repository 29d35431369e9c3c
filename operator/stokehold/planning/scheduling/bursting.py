"""What nodes that are bought, or are not, mean for a gang that waits. Buying them is planned elsewhere."""

from collections.abc import Mapping
from dataclasses import replace

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Job
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.placement.purchases import Purchase


def with_burst(job: Job, why: Explanation, purchases: Mapping[str, Purchase]) -> Explanation:
    """The reason with what is known of bought nodes: how many are coming and until when, or why none are."""
    purchase = purchases.get(job.uid)
    if purchase is not None and not purchase.is_failing and not purchase.is_ready:
        return _provisioning(purchase)
    told = find_condition(job.status.conditions, conditions.CAPACITY_PROVISIONED)
    if purchase is not None or told is None or told.status == conditions.TRUE or not told.message:
        return why
    return replace(why, message=f"{why.message}; no nodes are bought: {told.message}", urgent=told.message)


def _provisioning(purchase: Purchase) -> Explanation:
    zone = f" in zone {purchase.zone}" if purchase.zone else ""
    count = "1 node" if purchase.bought == 1 else f"{purchase.bought} nodes"
    verb = "is" if purchase.bought == 1 else "are"
    spare = purchase.size - purchase.bought
    beside = f" beside {spare} that {'is' if spare == 1 else 'are'} spare" if spare else ""
    return Explanation(
        Waiting.PROVISIONING,
        f"{count} of pool {purchase.pool}{zone} {verb} being bought for it{beside}, "
        f"ready by {purchase.ready_by:%H:%M:%S} UTC at the latest",
        "Nothing to do: it starts when all of them are ready.",
        requested=purchase.size,
        available=purchase.ready,
        unit="nodes",
    )

"""What an administrator may set about burst; plain values, read once at start-up."""

from dataclasses import dataclass
from datetime import timedelta

from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolSpec
from stokehold.model.pauses import doubled
from stokehold.model.reasons import ClaimFailure


@dataclass(frozen=True, slots=True)
class ProvisioningSettings:
    """When nodes are bought, how long they may take, and how long a provider that failed is left alone."""

    trigger_gpus: int = 8
    """Nodes are bought at once when the gangs that do not fit wait for at least so many GPUs together."""
    trigger_age: timedelta = timedelta(seconds=30)
    """A gang that has waited for longer is reason enough by itself."""
    ready_within: timedelta = timedelta(minutes=20)
    """How long a node may take until its GPUs can be used; then the whole purchase is taken back."""
    expire_after: timedelta = timedelta(hours=720)
    """After how long a node is given back in any case."""
    gpus_within: timedelta = timedelta(minutes=3)
    """How long a node may be Ready without offering its GPUs: the time that drivers and device plugins take."""
    unfit_after: timedelta = timedelta(seconds=60)
    """When all nodes of a gang are ready and it still does not fit after this, they are taken back."""
    settle: timedelta = timedelta(seconds=3)
    """Between closing an idle node and giving it back: pods that were on their way show up."""
    drain_within: timedelta = timedelta(minutes=5)
    """How long a node whose claim was deleted may keep its pods."""
    orphan_after: timedelta = timedelta(seconds=30)
    """A machine without a claim is given back after this; claims are written before machines, so it is nobody's."""
    vanished_after: timedelta = timedelta(seconds=30)
    """A machine that its provider lists no longer is gone, from this long after its launch."""
    capacity_backoff: timedelta = timedelta(minutes=3)
    """After a lack of capacity, doubled each time in a row."""
    longest_backoff: timedelta = timedelta(hours=1)
    refresh_every: timedelta = timedelta(minutes=10)
    """How often the cost of a node is written while nothing else happens to it."""

    def trigger_of(self, pool: GPUNodePoolSpec) -> tuple[int, timedelta]:
        """The GPUs and the age that count for a pool: its own, else the operator's."""
        gpus, age = pool.trigger.gpus, pool.trigger.age
        return gpus or self.trigger_gpus, self.trigger_age if age is None else age.to_timedelta()

    def backoff(self, reason: ClaimFailure, failures: int) -> timedelta:
        """For how long a provider is not asked again after its `failures`-th failure in a row."""
        delays: dict[ClaimFailure, timedelta] = {
            ClaimFailure.CAPACITY: self.capacity_backoff,
            ClaimFailure.GONE: self.capacity_backoff,
            ClaimFailure.TIMEOUT: self.capacity_backoff * 5,
            ClaimFailure.AUTH: self.capacity_backoff * 5,
            ClaimFailure.CONFIG: self.capacity_backoff * 10,
            ClaimFailure.UNFIT: self.capacity_backoff * 10,
        }
        first = delays.get(reason, self.longest_backoff)
        longest = max(self.longest_backoff, first)
        return doubled(first, failures - 1, longest)

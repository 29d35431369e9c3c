"""What GPUs cost by the hour, as the spec of their pool says."""

from dataclasses import dataclass
from decimal import Decimal

from stokehold.api.v1alpha1.gpu_node_claim import HourlyPrice
from stokehold.model.snapshot import NodePool, Snapshot
from stokehold.planning.placement.pools import DEFAULT_GPU_RESOURCE

SIX_DECIMALS = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class GpuPrice:
    """The price of one GPU for one hour."""

    amount: Decimal
    currency: str

    def of_seconds(self, gpu_seconds: int) -> Decimal:
        """What so many GPU-seconds cost."""
        return (self.amount * gpu_seconds / 3600).quantize(SIX_DECIMALS)


def gpu_price(pool: NodePool) -> GpuPrice | None:
    """None when the pool has no price, or one by the node while nobody says how many GPUs that has."""
    price, gpus = pool.spec.price, pool.spec.gpus_per_node
    if price is None or (price.per_gpu_hour is None and gpus is None):
        return None
    per_node = price.per_node_hour or Decimal(0)
    amount = price.per_gpu_hour if price.per_gpu_hour is not None else per_node / (gpus or 1)
    return GpuPrice(amount.quantize(SIX_DECIMALS), price.currency)


def node_price(pool: NodePool) -> HourlyPrice | None:
    """What one node of the pool costs for one hour."""
    price = pool.spec.price
    if price is None:
        return None
    if price.per_node_hour is not None:
        return HourlyPrice(amount=price.per_node_hour, currency=price.currency)
    per_gpu = price.per_gpu_hour or Decimal(0)
    return HourlyPrice(amount=per_gpu * (pool.spec.gpus_per_node or 1), currency=price.currency)


@dataclass(frozen=True, slots=True)
class Tariff:
    """By what name a pool's GPUs are counted on a pod, and what each costs."""

    gpu_resource: str = DEFAULT_GPU_RESOURCE
    price: GpuPrice | None = None


def tariff_in(snapshot: Snapshot, pool: str) -> Tariff:
    """That of the pool of this name; implicit pools cost nothing."""
    found = snapshot.node_pools.get(pool)
    return Tariff(found.spec.resource_name, gpu_price(found)) if found is not None else Tariff()

"""Kubernetes quantities as the integers that we count in: CPU in thousandths, all else in whole base units."""

from functools import lru_cache
from math import ceil

from stokehold.api.quantities import exact

# What an int64 of the API server holds; larger values saturate there and here.
MAXIMUM = 2**63 - 1

_BINARY_UNITS = (("Ei", 2**60), ("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


@lru_cache(maxsize=4096)
def milli(quantity: int | str) -> int:
    """Return the quantity in thousandths, rounded up as Kubernetes does: 1500m is 1500, 2 is 2000."""
    return min(ceil(exact(quantity) * 1000), MAXIMUM)


@lru_cache(maxsize=4096)
def whole(quantity: int | str) -> int:
    """Return the quantity in base units, rounded up as Kubernetes does: 1Ki is 1024, 1500m is 2."""
    return min(ceil(exact(quantity)), MAXIMUM)


def amount(resource: str, quantity: int | str) -> int:
    """Return the amount of the resource in its counting unit."""
    return milli(quantity) if resource == "cpu" else whole(quantity)


def format_milli(thousandths: int) -> str:
    """Return the shortest quantity of a number of thousandths: 2, 1500m."""
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def format_bytes(count: int) -> str:
    """Return the shortest exact quantity of a number of bytes: 64Gi, 1000."""
    if count:
        for unit, scale in _BINARY_UNITS:
            if count % scale == 0:
                return f"{count // scale}{unit}"
    return str(count)


def format_amount(resource: str, count: int) -> str:
    """Return the quantity of an amount in the resource's counting unit."""
    if resource == "cpu":
        return format_milli(count)
    is_size = resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages-")
    return format_bytes(count) if is_size else str(count)

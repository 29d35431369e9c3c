"""Nodes whose GPUs come and go: which are not trusted yet, and what a pool says of those that miss some.

A process that has just started cannot have seen it, so what the pools' statuses name counts until it has watched the
node for as long itself.
"""

from collections.abc import Collection, Mapping
from itertools import islice

from stokehold.model.snapshot import Snapshot
from stokehold.planning.placement.pools import Pool

MOST_NAMED = 50
"""Nodes in one message."""
MOST_REMEMBERED = 500
"""Nodes in one status: a device plugin that is renewed everywhere at once must not make it huge."""


def unsettled_nodes(snapshot: Snapshot) -> frozenset[str]:
    """Nodes that take nothing new because their GPUs have only just come back, or may go again."""
    now = snapshot.taken_at
    suspects = {name for pool in snapshot.node_pools.values() for name in pool.status.gpus_missing_on}
    found: set[str] = set()
    for name, node in snapshot.nodes.items():
        # One that we saw fall has a clock of its own; one that is short of GPUs since before we came may use the rest.
        trusted_at = node.settles_at or (node.proven_at if name in suspects else None)
        if trusted_at is not None and trusted_at > now:
            found.add(name)
    return frozenset(found)


def troubles(pool: Pool, snapshot: Snapshot, unsettled: frozenset[str]) -> dict[str, str]:
    """By node what is wrong with its GPUs; the same words while they flap."""
    found: dict[str, str] = {}
    for name in pool.members:
        node, gpu = snapshot.nodes[name], pool.gpu_resource
        has, offers = node.capacity.get(gpu, 0), node.allocatable.get(gpu, 0)
        if name in unsettled:
            found[name] = "GPUs came or went a moment ago, it takes new work once they stay"
        elif gpu not in node.allocatable:
            found[name] = f"offers no {gpu}"
        elif offers < has:
            found[name] = f"offers {offers} of {has} GPUs"
    return found


def told(missing: Mapping[str, str]) -> str:
    """The message of the condition, for people."""
    told = "; ".join(f"{name}: {what}" for name, what in islice(sorted(missing.items()), MOST_NAMED))
    return f"{told}; {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else told


def remembered(missing: Collection[str]) -> tuple[str, ...]:
    """What the status keeps, for whoever leads next."""
    return tuple(sorted(missing)[:MOST_REMEMBERED])

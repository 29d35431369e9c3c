"""Nodes, and how far their device plugins are to be trusted."""

from dataclasses import replace
from datetime import datetime, timedelta

from stokehold.cluster import wire
from stokehold.cluster.annotations import CLOSED
from stokehold.cluster.reading.fields import is_true
from stokehold.model import accounting
from stokehold.model.accounting import Resources
from stokehold.model.snapshot import Node
from stokehold.model.taints import Taint


def read_node(raw: wire.Node) -> Node:
    """A node; only a condition Ready that is True makes it ready."""
    ready = next((c for c in raw.status.conditions if c.type == "Ready"), None)
    return Node(
        name=raw.metadata.name,
        labels=raw.metadata.labels,
        capacity=accounting.amounts(raw.status.capacity),
        allocatable=accounting.amounts(raw.status.allocatable),
        taints=tuple(Taint(t.key, t.value, t.effect) for t in raw.spec.taints),
        ready=is_true(ready) and raw.metadata.deletion_timestamp is None,
        unschedulable=raw.spec.unschedulable,
        closed_by_us=raw.spec.unschedulable and CLOSED in raw.metadata.annotations,
        uid=raw.metadata.uid,
        provider_id=raw.spec.provider_id,
    )


def settle(old: Node | None, new: Node, now: datetime, settle_time: timedelta) -> Node:
    """Distrust a device plugin that has just come back, for it often flaps.

    A count below what the node had marks it, or at first sight one below what the node has; a rise starts the clock.
    """
    after = _devices(new.allocatable)
    if old is None:
        fell = any(after.get(name, 0) < count for name, count in _devices(new.capacity).items())
        return replace(new, settles_at=now if fell else None, proven_at=now + settle_time)
    before = _devices(old.allocatable)
    names = before.keys() | after.keys()
    fell = any(after.get(name, 0) < before.get(name, 0) for name in names)
    rose = any(after.get(name, 0) > before.get(name, 0) for name in names)
    if fell or (rose and old.settles_at is not None):
        return replace(new, settles_at=now + settle_time, proven_at=old.proven_at)
    return replace(new, settles_at=old.settles_at, proven_at=old.proven_at)


def _devices(allocatable: Resources) -> dict[str, int]:
    """The device resources of a node: names with a domain, such as nvidia.com/gpu."""
    return {name: count for name, count in allocatable.items() if "/" in name}

"""What a pod takes from its node, counted as kube-scheduler counts it.

Containers add up; an init container needs its own share only while it runs, on top of the sidecars (init
containers with restartPolicy Always) that started before it; pod-level requests replace the sum for the
resources that they name; overhead comes on top. Each pod also takes one of the node's pod slots.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stokehold.model import quantities

LARGEST = 2**62
"""Amounts are cut off here, so that sums stay inside 64 bits whatever a manifest says."""

POD_SLOT = "pods"

Quantities = Mapping[str, str | int]

Resources = Mapping[str, int]
"""Amounts by resource name: cpu in milli-CPU, all others in base units (bytes, devices, pods)."""


@dataclass(frozen=True, slots=True)
class Container:
    """The part of a container that is counted."""

    requests: Quantities
    limits: Quantities
    is_sidecar: bool = False

    def amounts(self) -> dict[str, int]:
        """Its requests; a limit without a request counts as one, as the API server's defaulting has it."""
        return amounts(self.limits) | amounts(self.requests)


def count_requests(
    containers: Iterable[Container],
    init_containers: Iterable[Container] = (),
    pod_level: Container | None = None,
    overhead: Quantities | None = None,
) -> dict[str, int]:
    """The requests of one pod by resource; cpu in milli-CPU, all others in base units."""
    running: dict[str, int] = {}
    for container in containers:
        _add(running, container.amounts())
    peak: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    for container in init_containers:
        own = container.amounts()
        if container.is_sidecar:
            _add(running, own)
            _add(sidecars, own)
            _raise_to(peak, sidecars)
        else:
            _raise_to(peak, total((own, sidecars)))
    _raise_to(running, peak)
    if pod_level is not None:
        # Without a request of its own a pod-level limit counts only for what no container asks for; huge pages always.
        limits = amounts(pod_level.limits)
        running |= {k: v for k, v in limits.items() if k not in running or k.startswith("hugepages-")}
        running |= amounts(pod_level.requests)
    _add(running, amounts(overhead or {}))
    running[POD_SLOT] = 1
    return {name: min(amount, LARGEST) for name, amount in running.items() if amount}


def requests_of(spec: Mapping[str, Any]) -> dict[str, int]:
    """The same from a pod's spec as plain JSON."""
    pod_level = spec.get("resources")
    return count_requests(
        [_container(raw) for raw in spec.get("containers", ())],
        [_container(raw) for raw in spec.get("initContainers", ())],
        _container({"resources": pod_level}) if pod_level else None,
        spec.get("overhead"),
    )


def total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several amounts by resource."""
    result: dict[str, int] = {}
    for part in parts:
        _add(result, part)
    return result


def amounts(raw: Quantities) -> dict[str, int]:
    """Quantities to numbers."""
    return {name: min(quantities.amount(name, value), LARGEST) for name, value in raw.items()}


def _container(raw: Mapping[str, Any]) -> Container:
    resources = raw.get("resources") or {}
    return Container(
        requests=resources.get("requests") or {},
        limits=resources.get("limits") or {},
        is_sidecar=raw.get("restartPolicy") == "Always",
    )


def _add(into: dict[str, int], other: Mapping[str, int]) -> None:
    for name, amount in other.items():
        into[name] = into.get(name, 0) + amount


def _raise_to(into: dict[str, int], other: Mapping[str, int]) -> None:
    for name, amount in other.items():
        into[name] = max(into.get(name, 0), amount)

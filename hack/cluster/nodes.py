"""Node objects of a description's pools, whole with their status: there is no kubelet to report it."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from hack.binaries import choose
from hack.cluster import gpus
from hack.cluster.spec import ClusterSpec, Pool

RACK_LABEL = "topology.kubernetes.io/rack"
ZONE_LABEL = "topology.kubernetes.io/zone"
POOL_LABEL = "sim.stokehold.dev/pool"
# kwok plays the kubelet of the nodes with this label. Not an annotation: kwok would drop the update that takes
# it away, while the end of a label is the end of a watch.
KUBELET_LABEL = "sim.stokehold.dev/kubelet"
ALIVE = "alive"
DEAD = "dead"

# condition: (status of a healthy node, reason, message)
HEALTHY: Mapping[str, tuple[str, str, str]] = {
    "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    "NetworkUnavailable": ("False", "RouteCreated", "RouteController created a route"),
}


def nodes_of(spec: ClusterSpec, now: str) -> Iterator[dict[str, Any]]:
    """Every node of the description; `now` is an RFC 3339 time."""
    for pool in spec.pools:
        for index in range(pool.nodes):
            yield node(pool, pool.node_name(index), index, now)


def node(pool: Pool, name: str, index: int, now: str) -> dict[str, Any]:
    """One node of a pool; its place in the pool decides its rack and zone."""
    resources = _resources(pool)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": _labels(pool, name, index),
            "annotations": dict(pool.annotations),
        },
        "spec": {"providerID": f"sim://{pool.name}/{name}", "taints": list(pool.taints)},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [_condition(kind, *state, now) for kind, state in HEALTHY.items()],
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "nodeInfo": _NODE_INFO | {"kubeletVersion": _kubelet_version()},
            "phase": "Running",
        },
    }


def ready_condition(*, is_ready: bool, now: str) -> dict[str, str]:
    """The Ready condition that a kubelet would post."""
    if is_ready:
        return _condition("Ready", *HEALTHY["Ready"], now)
    return _condition("Ready", "False", "KubeletNotReady", "made unready by a test", now)


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }


def _labels(pool: Pool, name: str, index: int) -> dict[str, str]:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        POOL_LABEL: pool.name,
        KUBELET_LABEL: ALIVE,
    }
    if pool.racks:
        labels[RACK_LABEL] = pool.racks[index % len(pool.racks)]
    if pool.zones:
        labels[ZONE_LABEL] = pool.zones[index % len(pool.zones)]
    return labels | _gpu_labels(pool) | dict(pool.labels)


def _gpu_labels(pool: Pool) -> dict[str, str]:
    if pool.gpu is None:
        return {}
    gpu = gpus.GPU_TYPES[pool.gpu]
    labels = {"node.kubernetes.io/instance-type": f"{pool.gpu}x{pool.gpus_per_node}"}
    if pool.mig is None:
        return labels | gpus.feature_labels(gpu, pool.gpus_per_node)
    if pool.mig.strategy == "single":
        ((profile, slices),) = pool.mig.profiles.items()
        return labels | gpus.mig_single_labels(gpu, profile, slices)
    whole_gpus = pool.gpus_per_node - pool.mig.gpus
    return labels | gpus.mig_mixed_labels(gpu, whole_gpus, pool.mig.profiles)


def _resources(pool: Pool) -> dict[str, str]:
    resources = {
        "cpu": pool.cpu,
        "memory": pool.memory,
        "ephemeral-storage": pool.ephemeral_storage,
        "pods": str(pool.pods),
    }
    return resources | _gpu_resources(pool) | dict(pool.resources)


def _gpu_resources(pool: Pool) -> dict[str, str]:
    if pool.gpu is None:
        return {}
    if pool.mig is None:
        return {"nvidia.com/gpu": str(pool.gpus_per_node)}
    if pool.mig.strategy == "single":
        return {"nvidia.com/gpu": str(sum(pool.mig.profiles.values()))}
    slices = {f"nvidia.com/mig-{name}": str(count) for name, count in pool.mig.profiles.items()}
    return {"nvidia.com/gpu": str(pool.gpus_per_node - pool.mig.gpus)} | slices


@functools.cache
def _kubelet_version() -> str:
    """The pinned Kubernetes: the API refuses nothing, but clients may look."""
    (kubernetes,) = choose(("kubernetes",))
    return kubernetes.version()


_NODE_INFO = {
    "architecture": "amd64",
    "operatingSystem": "linux",
    "osImage": "simulated",
    "kernelVersion": "simulated",
    "containerRuntimeVersion": "kwok://simulated",
    "kubeProxyVersion": "",
    "bootID": "",
    "machineID": "",
    "systemUUID": "",
}

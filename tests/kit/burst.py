"""A pool of simulated cloud nodes beside the cluster's own, and what tests look at there."""

import json
from dataclasses import dataclass
from typing import Any

from hack.cluster import LocalCluster

from kit.jobs import wait_until

Object = dict[str, Any]
OWN = "own-h100"


@dataclass(frozen=True)
class Cloud:
    """One GPUNodePool of own H100 nodes and one of simulated ones."""

    cluster: LocalCluster
    name: str = "cloud"

    def declare(self, max_nodes: int = 4, *, delay: str = "1s", simulated: Object | None = None, **spec: Any) -> None:
        """Apply both pools; `simulated` says how the provider behaves. Applied again, it changes them."""
        pool = {
            "provider": {"simulated": {"bootTime": "2s", **(simulated or {})}},
            "gpuType": "h100",
            "gpusPerNode": 8,
            "nodeShape": {"cpu": 96, "memory": "512Gi", "labels": {"sim.stokehold.dev/kubelet": "alive"}},
            "capacityClass": "on-demand",
            "zones": ["z1"],
            "dataClasses": ["public", "internal"],
            "price": {"perNodeHour": "36", "currency": "USD"},
            "limits": {"maxNodes": max_nodes},
            "scaleDown": {"delay": delay},
            **spec,
        }
        own = {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "gpuType": "h100"}
        self._apply(_pool(OWN, own), _pool(self.name, pool))

    def claims(self) -> list[Object]:
        found: list[Object] = self.cluster.read("gpunodeclaims")["items"]
        return [claim for claim in found if claim["spec"]["poolName"] == self.name]

    def phases(self) -> list[str]:
        return sorted(claim.get("status", {}).get("phase", "") for claim in self.claims())

    def nodes(self) -> list[Object]:
        label = f"stokehold.dev/simulated-pool={self.name}"
        found: list[Object] = self.cluster.read("nodes", selector=label)["items"]
        return found

    def status(self) -> Object:
        found: Object = self.cluster.read("gpunodepools", self.name).get("status", {})
        return found

    def is_gone(self) -> bool:
        return not self.claims() and not self.nodes()

    def wait_gone(self, within: float = 40) -> None:
        """No claim and no machine."""
        wait_until(self.is_gone, within, lambda: (self.claims(), [n["metadata"]["name"] for n in self.nodes()]))

    def delete(self) -> None:
        """Give all nodes back, then take the pools away: without its pool nobody could give a node back."""
        for claim in self.claims():
            self.cluster.kubectl("delete", "gnc", claim["metadata"]["name"], "--wait=false", check=False)
        self.wait_gone()
        self.cluster.kubectl("delete", "gnp", self.name, OWN, "--ignore-not-found")

    def _apply(self, *pools: Object) -> None:
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pools}))


def condition(status: Object, kind: str = "CapacityProvisioned") -> Object:
    """One condition of a status; empty without it."""
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def _pool(name: str, spec: Object) -> Object:
    return {"apiVersion": "stokehold.dev/v1alpha1", "kind": "GPUNodePool", "metadata": {"name": name}, "spec": spec}

"""What tests of InferencePools do in their namespace, beside what `Team` does."""

import json
from dataclasses import dataclass
from typing import Any

from kit.jobs import Object, Team, wait_until

BY_ENGINE = {"metrics": [{"type": "Concurrency", "target": "8"}], "scaleDownDelay": "4s", "drainSeconds": 2}


@dataclass(frozen=True)
class ServingTeam(Team):
    """A namespace with pools."""

    def empty(self) -> None:
        """Delete all pools, jobs and pods, and wait until their GPUs are free."""
        self.kubectl("delete", "gpool", "--all", "--wait=false", check=False)
        wait_until(lambda: not self.items("deployments"), 60)
        super().empty()

    def serve(self, name: str, **spec: Any) -> None:
        """Apply an InferencePool."""
        self.apply(inference_pool(name, **spec))

    def edit(self, name: str, **spec: Any) -> None:
        """Change a pool's spec."""
        self.kubectl("patch", "gpool", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def pool(self, name: str) -> Object:
        found: Object = self.read("inferencepools", name)
        return found

    def pool_status(self, name: str) -> Object:
        status: Object = self.pool(name).get("status", {})
        return status

    def condition(self, name: str, kind: str) -> Object:
        return next((c for c in self.pool_status(name).get("conditions", ()) if c["type"] == kind), {})

    def child(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def replicas(self, name: str) -> list[Object]:
        found = self.items("pods", f"stokehold.dev/inference-pool={name}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def bound(self, name: str) -> list[Object]:
        return [pod for pod in self.replicas(name) if pod["spec"].get("nodeName")]

    def wait_replicas(self, name: str, ready: int, within: float = 40) -> Object:
        """The status once the pool wants and has so many."""

        def settled() -> bool:
            status = self.pool_status(name)
            return (status.get("desiredReplicas"), status.get("readyReplicas", 0)) == (ready, ready)

        wait_until(settled, within, lambda: f"{self.pool_status(name)} {self.kubectl('get', 'pods')}")
        return self.pool_status(name)

    def wait_condition(self, name: str, kind: str, status: str, within: float = 40) -> Object:
        wait_until(
            lambda: self.condition(name, kind).get("status") == status, within, lambda: str(self.pool_status(name))
        )
        return self.condition(name, kind)


def inference_pool(name: str, **spec: Any) -> Object:
    defaults = {"image": "registry.local/serve:1", "replicas": {"min": 1, "max": 4}}
    return {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {**defaults, **spec},
    }

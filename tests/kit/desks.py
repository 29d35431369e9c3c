"""A namespace on a local cluster, with what tests of DevWorkspaces do there, and volumes for them to bind."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hack.cluster import LocalCluster

from kit.jobs import Object, Team, wait_until

CLASS = "volumes-of-tests"


@dataclass(frozen=True)
class Desks:
    """The DevWorkspaces of a team."""

    team: Team

    def open(self, name: str, **spec: Any) -> None:
        """Apply a workspace with a volume; one GPU, idle stops enforced after 10s, the least that the API allows."""
        idle = {"mode": "Enforce", "policy": "Always", "after": "10s", "warnBefore": "3s", "minRunning": "0s"}
        defaults = {"image": "registry.local/jupyter:1", "storage": {"size": "1Gi", "storageClassName": CLASS}}
        metadata = {"name": name, "annotations": spec.pop("annotations", {})}
        self.team.apply(
            {
                "apiVersion": "stokehold.dev/v1alpha1",
                "kind": "DevWorkspace",
                "metadata": metadata,
                "spec": {**defaults, **spec, "idle": {**idle, **spec.get("idle", {})}},
            }
        )

    def patch(self, name: str, spec: Object) -> None:
        self.team.kubectl("patch", "gws", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def set_running(self, name: str, running: bool) -> None:
        self.patch(name, {"running": running})

    def resize(self, name: str, size: str) -> None:
        self.patch(name, {"storage": {"size": size}})

    def annotate(self, name: str, key: str, value: str) -> None:
        self.team.kubectl("annotate", "gws", name, f"stokehold.dev/{key}={value}", "--overwrite")

    def get(self, name: str) -> Object:
        found: Object = self.team.read("devworkspaces", name)
        return found

    def status(self, name: str) -> Object:
        status: Object = self.get(name).get("status", {})
        return status

    def phase(self, name: str) -> str:
        return str(self.status(name).get("phase", ""))

    def seconds_to_stop(self, name: str) -> float:
        """Until `status.stopAt`; without one it is far away."""
        at = self.status(name).get("stopAt")
        now = datetime.now(UTC)  # noqa: TID251 - against the clock
        return (datetime.fromisoformat(at) - now).total_seconds() if at else math.inf

    def condition(self, name: str, kind: str = "Idle") -> Object:
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def why(self, name: str) -> str:
        """The reason of the condition Idle."""
        return str(self.condition(name).get("reason", ""))

    def pods(self, name: str) -> list[Object]:
        return self.team.items("pods", f"stokehold.dev/workspace={name}")

    def claim(self, name: str) -> Object:
        found: Object = self.team.read("persistentvolumeclaims", f"{name}-home")
        return found

    def waits_for(self, name: str, what: str) -> bool:
        """Whether `status.queue` says so."""
        return what in self.status(name).get("queue", {}).get("message", "")

    def claim_volume(self, name: str, size: str = "1Gi") -> None:
        """A claim that belongs to no workspace."""
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS,
            "resources": {"requests": {"storage": size}},
        }
        self.team.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec})

    def wait_phase(self, name: str, *phases: str, within: float = 40) -> Object:
        wait_until(lambda: self.phase(name) in phases, within, lambda: f"{name} is {self.status(name)}")
        return self.status(name)

    def wait_why(self, name: str, reason: str, within: float = 40) -> Object:
        wait_until(lambda: self.why(name) == reason, within, lambda: f"{name} is {self.status(name)}")
        return self.status(name)

    def hold_replicas(self, held: bool) -> None:
        """Let the API server refuse that any StatefulSet of the team loses its last replica, or allow it again."""
        name = f"hold-{self.team.namespace}"
        rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["statefulsets"]}
        policy = {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "object.spec.replicas > 0"}],
        }
        team = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.team.namespace}}}
        binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": team}
        kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
        items = [
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": name},
                "spec": spec,
            }
            for kind, spec in kinds.items()
        ]
        verb = ["apply"] if held else ["delete", "--ignore-not-found"]
        listing = {"apiVersion": "v1", "kind": "List", "items": items}
        self.team.cluster.kubectl(*verb, "-f", "-", input=json.dumps(listing))

    def may_scale_down(self, name: str) -> bool:
        """Whether the API server would let its StatefulSet go to no replica."""
        tried = ("patch", "statefulset", name, "--type=merge", "-p", '{"spec":{"replicas":0}}', "--dry-run=server")
        return bool(self.team.kubectl(*tried, check=False))

    def close(self) -> None:
        """Delete all workspaces and wait until their GPUs are free."""
        self.team.kubectl("delete", "gws,statefulsets", "--all", "--wait=false", check=False)


def offer_volumes(cluster: LocalCluster, count: int) -> None:
    """A StorageClass of its own and volumes that kube-scheduler can bind: nothing provisions any here."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [_volume(f"{CLASS}-{number}") for number in range(count)]
    listing = {"apiVersion": "v1", "kind": "List", "items": [storage_class, *volumes]}
    cluster.kubectl("apply", "-f", "-", input=json.dumps(listing))


def place_volume(cluster: LocalCluster, name: str, claim: tuple[str, str], node: str) -> None:
    """A volume for one claim, by namespace and name, that this node alone can reach."""
    volume = _volume(name)
    match = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    volume["spec"] |= {
        "claimRef": {"namespace": claim[0], "name": claim[1]},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [match]}]}},
    }
    cluster.kubectl("apply", "-f", "-", input=json.dumps(volume))


def _volume(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "hostPath": {"path": f"/volumes/{name}"},
        },
    }

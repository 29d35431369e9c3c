"""A namespace on a local cluster, with what tests of TrainingJobs do there: apply, wait, look."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

SIMULATOR = "sim.stokehold.dev"
Object = dict[str, Any]


class Cluster(Protocol):
    """Anything that kubectl works on, and that is read without it, for loops."""

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str: ...  # noqa: A002

    def read(self, plural: str, name: str = "", *, namespace: str = "", selector: str = "") -> Any: ...


@dataclass(frozen=True)
class Team:
    """A namespace of its own."""

    cluster: Cluster
    namespace: str

    @classmethod
    def create(cls, cluster: Cluster, namespace: str) -> Self:
        cluster.kubectl("create", "namespace", namespace)
        made = cls(cluster, namespace)
        # Without it no pod can be created; the controller manager makes it, after an outage only in a while.
        wait_until(lambda: made.kubectl("get", "serviceaccount", "default", "--ignore-not-found"), 90)
        return made

    def delete(self) -> None:
        """Free what the test holds, and let the namespace go in the background."""
        self.empty()
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)

    def empty(self) -> None:
        """Delete all jobs and pods, and wait until their GPUs are free."""
        self.kubectl("delete", "tj,pods", "--all", "--wait=false", check=False)
        wait_until(lambda: not self.pods(), 30, lambda: self.kubectl("get", "pods", check=False))

    def bury(self) -> None:
        """Delete all pods, whose nodes are gone, as the garbage collector would after a minute: no kubelet can."""
        self.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")

    def kubectl(self, *args: str, text: str | None = None, check: bool = True) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args, input=text, check=check)

    def read(self, plural: str, name: str = "", *, selector: str = "") -> Any:
        """An object of the namespace, or without a name the list of them."""
        return self.cluster.read(plural, name, namespace=self.namespace, selector=selector)

    def items(self, plural: str, selector: str = "") -> list[Object]:
        """The objects of a kind in the namespace."""
        found: list[Object] = self.read(plural, selector=selector)["items"]
        return found

    def submit(self, name: str, simulate: dict[str, str] | None = None, **spec: Any) -> None:
        """Apply a TrainingJob; `simulate` says how its simulated pods behave (run-for, exit-code ...)."""
        self.apply(training_job(name, simulate, **spec))

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def patch(self, name: str, spec: Object) -> None:
        self.kubectl("patch", "tj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def job(self, name: str) -> Object:
        found: Object = self.read("trainingjobs", name)
        return found

    def status(self, name: str) -> Object:
        status: Object = self.job(name).get("status", {})
        return status

    def phase(self, name: str) -> str:
        return str(self.status(name).get("phase", ""))

    def reason(self, name: str) -> str:
        return str(self.status(name).get("queue", {}).get("reason", ""))

    def pods(self, name: str | None = None) -> list[Object]:
        return self.items("pods", f"stokehold.dev/job={name}" if name else "")

    def live_pods(self, name: str | None = None) -> list[Object]:
        return [pod for pod in self.pods(name) if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def nodes_of(self, name: str) -> list[str]:
        return [pod["spec"].get("nodeName", "") for pod in self.live_pods(name)]

    def events(self, name: str) -> list[str]:
        return [event["reason"] for event in self.items("events") if event["involvedObject"]["name"] == name]

    def wait_phase(self, name: str, *phases: str, within: float = 20) -> Object:
        wait_until(lambda: self.phase(name) in phases, within, lambda: f"{name} is {self.status(name)}")
        return self.status(name)

    def wait_reason(self, name: str, reason: str, within: float = 20) -> Object:
        wait_until(lambda: self.reason(name) == reason, within, lambda: f"{name} is {self.status(name)}")
        queue: Object = self.status(name)["queue"]
        return queue


def training_job(name: str, simulate: dict[str, str] | None = None, **spec: Any) -> Object:
    if simulate:
        annotations = {f"{SIMULATOR}/{key}": value for key, value in simulate.items()}
        spec["podTemplate"] = {"metadata": {"annotations": annotations}, **spec.get("podTemplate", {})}
    return {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {"image": "registry.local/train:1", **spec},
    }


def wait_until(holds: Callable[[], object], within: float, seen: Callable[[], object] = lambda: "") -> float:
    """Return the seconds until it held; AssertionError with what was seen last when it never did."""
    began = time.monotonic()
    while time.monotonic() - began < within:
        if holds():
            return time.monotonic() - began
        time.sleep(min(0.5, 0.1 + (time.monotonic() - began) / 20))  # a look may cost a process
    raise AssertionError(f"did not hold within {within} s; seen last: {seen()}")

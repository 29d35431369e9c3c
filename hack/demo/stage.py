"""Where the demo plays: the cluster, the operator, and the ways in which a step looks and waits."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.cluster import LocalCluster
from hack.engines import Engines
from hack.installation import OperatorProcess
from hack.simulated_agent import SimulatedAgent

OBJECTS = Path(__file__).parent / "objects"
NAMESPACE = "team-a"
Object = dict[str, Any]


class StepFailedError(Exception):
    """Something that the demo promises did not come true; the message says what was seen instead."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What every step is given."""

    cluster: LocalCluster
    operator: OperatorProcess
    engines: Engines
    agent: SimulatedAgent
    program: Path
    """`stokehold` as users install it."""
    refused_before: int
    """Requests that were refused before the operator started."""

    def open_namespace(self) -> None:
        """Create the namespace and declare the pools, unless an earlier scenario has."""
        text = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.cluster.kubectl("apply", "-f", "-", input=text)
        self.apply("pools.yaml")

    def apply(self, name: str) -> None:
        """Apply one of the demo's files, as a user would."""
        self.cluster.kubectl("-n", NAMESPACE, "apply", "-f", str(OBJECTS / name))

    def jobs(self) -> list[Object]:
        """All TrainingJobs of the demo."""
        return self._list("trainingjobs")

    def serving_pools(self) -> list[Object]:
        """All InferencePools of the demo."""
        return self._list("inferencepools.stokehold.dev")

    def workspaces(self) -> list[Object]:
        """All DevWorkspaces of the demo."""
        return self._list("devworkspaces")

    def names(self, kinds: str) -> list[str]:
        """The objects of these kinds, as kind/name."""
        return self.cluster.kubectl("-n", NAMESPACE, "get", kinds, "-o", "name").split()

    def status(self, job: str) -> Object:
        """The status of one."""
        return next((j.get("status", {}) for j in self.jobs() if j["metadata"]["name"] == job), {})

    def pods(self, job: str | None = None) -> list[Object]:
        """The pods of one job, or all."""
        return self._list("pods", *(["-l", f"stokehold.dev/job={job}"] if job else []))

    def nodes(self) -> list[Object]:
        """The cluster's nodes."""
        return self._list("nodes")

    def crash(self, pod: str) -> None:
        """Make the program of a simulated pod exit with an error."""
        behaviour = ("sim.stokehold.dev/run-for=0s", "sim.stokehold.dev/exit-code=1")
        self.cluster.kubectl("-n", NAMESPACE, "annotate", "pod", pod, *behaviour)

    def why(self, job: str) -> str:
        """What `stokehold why` says."""
        return self.stokehold("why", f"tj/{job}")

    def stokehold(self, *arguments: str) -> str:
        """What a command of ours prints."""
        command = [str(self.program), *arguments, "-n", NAMESPACE]
        command += ["--kubeconfig", str(self.cluster.kubeconfig)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def hold(self, what: str, holds: Callable[[], object], seconds: float) -> None:
        """Look for so long; StepFailedError when it does not hold all the time."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if not holds():
                raise StepFailedError(f"{what}: that did not hold for {seconds:.0f} s")
            time.sleep(0.2)

    def wait(self, what: str, holds: Callable[[], object], within: float = 20.0) -> float:
        """Seconds until it held; StepFailedError with the jobs as they were when it never did."""
        began = time.monotonic()
        while time.monotonic() - began < within:
            if holds():
                return time.monotonic() - began
            time.sleep(0.2)
        seen = ", ".join(f"{j['metadata']['name']} {j.get('status', {}).get('phase')}" for j in self.jobs())
        raise StepFailedError(f"{what} did not come true within {within:.0f} s; seen: {seen}")

    def wait_phase(self, job: str, phase: str, within: float = 20.0) -> Object:
        """The status once the job has reached the phase."""
        self.wait(f"{job} {phase}", lambda: self.status(job).get("phase") == phase, within)
        return self.status(job)

    def _list(self, kind: str, *options: str) -> list[Object]:
        found: Object = json.loads(self.cluster.kubectl("-n", NAMESPACE, "get", kind, *options, "-o", "json"))
        items: list[Object] = found["items"]
        return items


def expect(holds: object, otherwise: str) -> None:
    """Fail the step unless it holds."""
    if not holds:
        raise StepFailedError(otherwise)

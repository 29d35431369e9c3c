"""A data scientist with a namespace: applies YAML, waits, and asks the command line."""

import json
import subprocess
import sys
from typing import Any

from e2e.targets import Target

from kit.jobs import Team


class User(Team):
    """A team whose programs run for real where nodes are real, and as simulated where they are not."""

    cluster: Target

    def run(self, name: str, *, seconds: int = 3, exit_code: int = 0, **spec: Any) -> None:
        """Submit a job whose program sleeps and then exits."""
        program = f"sleep {seconds}; exit {exit_code}"
        command = ["sh", "-c", program]
        resources = {"requests": {"cpu": "50m", "memory": "32Mi"}}
        simulate = {"run-for": f"{seconds}s", "exit-code": str(exit_code)}
        self.submit(name, simulate, **{"image": self.cluster.image, "command": command, "resources": resources, **spec})

    def stokehold(self, *args: str) -> str:
        """What `stokehold ...` prints."""
        command = [sys.executable, "-m", "stokehold.cli.main", *args, "-n", self.namespace]
        return subprocess.run(command, env=self.cluster.environment, capture_output=True, text=True, check=True).stdout

    def left_over(self) -> list[str]:
        """What is still there of jobs in this namespace."""
        return self.kubectl("get", "tj,pods,services", "-o", "name").split()

    def conditions(self, name: str) -> dict[str, str]:
        """Status by type of condition."""
        return {c["type"]: c["status"] for c in self.status(name).get("conditions", [])}

    def explain(self, field: str) -> str:
        """What `kubectl explain` says."""
        return self.kubectl("explain", field)

    def refused(self, *objects: dict[str, Any]) -> str:
        """The API server's words when it refuses these."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        try:
            self.kubectl("apply", "--server-side", "-f", "-", text=text)
        except (AssertionError, subprocess.CalledProcessError) as error:
            return str(error)
        raise AssertionError("it was taken")

"""Stokehold on a local cluster: the chart's objects through helm, and the operator as a process of its own.

There are no images on a local cluster, so the operator runs beside it, under the service account that the chart
makes for it: a missing right shows up here and not at a user's.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from hack import binaries
from hack.cluster import LocalCluster

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm" / "stokehold"
NAMESPACE = "stokehold-system"
SERVICE_ACCOUNT = "stokehold-operator"
READY_WITHIN_SECONDS = 30.0


def install(cluster: LocalCluster) -> None:
    """Put the chart on the cluster and wait until its kinds are served."""
    helm = binaries.ensure(["helm"]).path("helm")
    homes = {f"HELM_{kind}_HOME": str(cluster.kubeconfig.parent / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
    subprocess.run(
        [helm, "install", "stokehold", CHART, "--namespace", NAMESPACE, "--create-namespace", "--wait"],
        env={**os.environ, **homes, "KUBECONFIG": str(cluster.kubeconfig)},
        check=True,
        capture_output=True,
        text=True,
    )
    names = [f"crd/{path.stem}.stokehold.dev" for path in sorted((ROOT / "crds").glob("*.yaml"))]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)


class OperatorProcess:
    """`stokehold run` against a local cluster; it can be killed, paused and started again."""

    def __init__(self, cluster: LocalCluster, identity: str, log: Path, options: Sequence[str] = ()) -> None:
        self.identity = identity
        self.log = log
        self._port_file = log.with_suffix(".port")
        self._command = [
            sys.executable,
            *("-m", "stokehold.cli.main", "run"),
            *("--kubeconfig", str(cluster.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT))),
            *("--identity", identity, "--metrics-port", "0", "--port-file", str(self._port_file)),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls, cluster: LocalCluster, identity: str = "operator", log: Path | None = None, options: Sequence[str] = ()
    ) -> Self:
        """Start one and wait until it is ready."""
        folder = cluster.kubeconfig.parent.parent
        operator = cls(cluster, identity, log or folder / f"{identity}.log", options)
        operator.restart()
        return operator

    def restart(self, *, wait: bool = True) -> None:
        """Start the process again after it has ended."""
        if self.is_running:
            raise RuntimeError(f"{self.identity} runs already")
        self._port_file.unlink(missing_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
            )
        if wait:
            self.wait_ready()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise RuntimeError(f"{self.identity} was never started")
        return self._process.pid

    @property
    def port(self) -> int:
        """Where it serves /metrics and probes; OSError until it listens."""
        return int(self._port_file.read_text())

    def wait_ready(self, within_seconds: float = READY_WITHIN_SECONDS) -> float:
        """Return the seconds until /readyz said ok; RuntimeError with the end of its log when it does not."""
        began = time.monotonic()
        while time.monotonic() - began < within_seconds:
            if not self.is_running:
                raise RuntimeError(f"{self.identity} ended:\n{self.tail()}")
            if self.get("/readyz") == "ok\n":
                return time.monotonic() - began
            time.sleep(0.05)
        raise RuntimeError(f"{self.identity} is not ready after {within_seconds:.0f} s:\n{self.tail()}")

    def get(self, path: str) -> str:
        """What its HTTP server answers; the empty string when it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                body: bytes = answer.read()
                return body.decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except (OSError, ValueError):
            return ""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric with these labels; 0 without any."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = [line for line in self.get("/metrics").splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    def kill(self) -> None:
        """SIGKILL, as a node that loses power."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as a rollout; returns the exit code."""
        return self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_end(self, within_seconds: float) -> int:
        """The exit code; subprocess.TimeoutExpired when it goes on."""
        if self._process is None:
            raise RuntimeError(f"{self.identity} was never started")
        return self._process.wait(within_seconds)

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def logged(self, level: str) -> list[str]:
        """The messages of one level in its JSON log."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                found.append(line)  # whatever is no JSON was not meant to be there
                continue
            if entry.get("level") == level:
                found.append(line)
        return found

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self.is_running:
            self._process.send_signal(how)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(5)

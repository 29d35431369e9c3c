"""Starts the real agent over the fake NVML, the fake kubelet and a stand-in for the API server."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from kit.nvml.driver import FakeNvml
from kit.pod_resources import FakeKubelet

NODE = "n1"
INTERVAL_SECONDS = 0.2


class FakeApiServer:
    """Holds GPUNodes; refuses when told so. What SSA and schemas do is the cluster tests' matter."""

    def __init__(self, directory: Path) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self.refusing = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self, None)

            def do_PATCH(self) -> None:
                outer.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "fake",
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                    "clusters": [
                        {"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
                    ],
                    "users": [{"name": "fake", "user": {"token": "secret"}}],
                }
            )
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: dict[str, Any] | None) -> None:
        path = request.path.partition("?")[0]
        self.paths.add(path)
        name = path.split("/gpunodes/")[1].split("/")[0]
        if self.refusing:
            self._reply(request, self.refusing, {"message": "as told"})
        elif name not in self.objects and (body is None or path.endswith("/status")):
            self._reply(request, 404, {"reason": "NotFound"})
        elif body is None:
            self._reply(request, 200, self.objects[name])
        elif path.endswith("/status"):
            self.objects[name]["status"] = body["status"]
            self.writes.append(body["status"])
            self._reply(request, 200, self.objects[name])
        else:
            self.objects[name] = body
            self._reply(request, 201, body)

    @staticmethod
    def _reply(request: BaseHTTPRequestHandler, code: int, body: dict[str, Any]) -> None:
        encoded = json.dumps(body).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(encoded)))
        request.end_headers()
        request.wfile.write(encoded)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.objects.get(NODE, {}).get("status", {})
        return status

    def gpu(self, index: int) -> dict[str, Any]:
        return next((gpu for gpu in self.status().get("gpus", ()) if gpu["index"] == index), {})

    def activity(self, index: int) -> str:
        state: str = self.gpu(index).get("activity", {}).get("state", "")
        return state

    def evidence(self, index: int) -> str:
        evidence: str = self.gpu(index).get("activity", {}).get("evidence", "")
        return evidence

    def owners(self, index: int) -> list[str]:
        return [owner["pod"] for owner in self.gpu(index).get("owners", ())]


@dataclass
class World:
    """Everything around one agent."""

    directory: Path
    nvml: FakeNvml
    kubelet: FakeKubelet
    api: FakeApiServer
    proc: Path
    pod_logs: Path
    agents: list["AgentProcess"] = field(default_factory=list)

    def start_agent(self, *options: str, interval: float = INTERVAL_SECONDS, window: float = 0.6) -> "AgentProcess":
        agent = AgentProcess.start(self, options, interval, window)
        self.agents.append(agent)
        return agent

    def run_process(self, pid: int, pod_uid: str = "", command: str = "python", started: int = 100) -> None:
        """Makes /proc and a cgroup v2 path for a process."""
        directory = self.proc / str(pid)
        directory.mkdir(exist_ok=True)
        fields = " ".join(["S", *("0" for _ in range(18)), str(started)])
        (directory / "stat").write_text(f"{pid} ({command}) {fields}\n")
        slice_ = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_uid.replace('-', '_')}.slice"
        container = f"cri-containerd-{pid:064x}.scope"
        (directory / "cgroup").write_text(f"0::/{slice_}/{container}\n" if pod_uid else "0::/system.slice/x.service\n")

    def log_pod(self, namespace: str, pod: str, uid: str) -> None:
        (self.pod_logs / f"{namespace}_{pod}_{uid}").mkdir()


class AgentProcess:
    """`python -m stokehold.agent` and what it serves."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    @classmethod
    def start(cls, world: World, options: tuple[str, ...], interval: float, window: float) -> "AgentProcess":
        port = free_port()
        log = world.directory / f"agent-{port}.log"
        arguments = {
            "--node-name": NODE,
            "--interval": f"{interval}s",
            "--window": f"{window}s",
            "--nvml-timeout": "1s",
            "--pod-resources-timeout": "500ms",
            "--pod-resources-dir": str(world.kubelet.directory),
            "--proc-dir": str(world.proc),
            "--pod-logs-dir": str(world.pod_logs),
            "--metrics-address": f"127.0.0.1:{port}",
            "--kubeconfig": str(world.api.kubeconfig),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - ourselves
                [
                    *(sys.executable, "-m", "stokehold.agent"),
                    *(part for pair in arguments.items() for part in pair),
                    *options,
                ],
                env={**os.environ, **world.nvml.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        agent = cls(process, port, log)
        eventually(agent.is_serving)
        return agent

    def is_serving(self) -> bool:
        try:
            return bool(self.get("/healthz"))
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return False

    def metrics(self) -> dict[str, float]:
        """Each series as scraped, by its name and labels."""
        lines = self.get("/metrics").splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
            body: bytes = reply.read()
        return body.decode()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)


def free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return int(server.server_port)


def eventually(holds: Callable[[], object], seconds: float = 15.0) -> None:
    """Waits until it holds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.05)
    assert holds()


def steadily(holds: Callable[[], object], seconds: float) -> None:
    """Asserts that it holds all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert holds()
        time.sleep(0.05)

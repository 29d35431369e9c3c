"""The real node agent beside a local cluster: over the NVML test library, with a kubelet that says who has the GPU."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kit.nvml.driver import FakeNvml, build, uuid_of
from tests.kit.pod_resources import FakeKubelet, with_gpus

from hack.cluster import LocalCluster
from hack.installation import OF_THIS_TREE, kubeconfig_for_agent


class SimulatedAgent:
    """One agent for one node; GPU 0 is the one that is looked at."""

    def __init__(self, program: Sequence[str] = OF_THIS_TREE) -> None:
        """`program` is how `stokehold` is started."""
        self._program = program
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._nvml: FakeNvml | None = None
        self._folder = Path(self._stack.enter_context(TemporaryDirectory()))

    def start(self, cluster: LocalCluster, node: str, namespace: str, pod: str, uid: str) -> None:
        """Watch the node, on which the pod has GPU 0; the GPU is busy until `set_utilization` says otherwise."""
        if shutil.which("gcc") is None:
            raise RuntimeError("the NVML test library is built with gcc, which is not on the PATH: install it")
        if self._nvml is None:
            self._nvml = self._stack.enter_context(FakeNvml(build(self._folder), self._folder / "nvml.ctl"))
            self.set_utilization(80)
        sockets, logs = self._folder / f"kubelet-{uid}", self._folder / "logs"
        sockets.mkdir()
        kubelet = self._stack.enter_context(FakeKubelet(sockets))
        kubelet.give(with_gpus(namespace, pod, uuid_of(0)))
        (logs / f"{namespace}_{pod}_{uid}").mkdir(parents=True)
        self._process = subprocess.Popen(
            [
                *(*self._program, "agent", "--node-name", node),
                *("--kubeconfig", str(kubeconfig_for_agent(cluster, node))),
                *("--interval", "0.2s", "--window", "0.6s", "--heartbeat", "1s", "--metrics-address", "127.0.0.1:0"),
                *("--pod-resources-dir", str(sockets), "--pod-logs-dir", str(logs), "--proc-dir", str(self._folder)),
            ],
            env={**os.environ, **self._nvml.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def set_utilization(self, percent: int) -> None:
        """How busy the GPU is from now on."""
        if self._nvml is None:
            raise RuntimeError("no agent has been started")
        self._nvml[0].utilization = percent

    def fall_silent(self) -> None:
        """Kill the agent."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)

    def stop(self) -> None:
        """End the agent and what is around it."""
        self.fall_silent()
        self._stack.close()

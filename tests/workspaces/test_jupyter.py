"""A real Jupyter server with real kernels, asked by the same prober as in a cluster."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from agent.processes import eventually, free_port, steadily
from kit.desks import Desks

pytestmark = pytest.mark.cluster

TOKEN = "letmein"  # noqa: S105 - of a server on loopback, for seconds
LONGER_THAN_IDLE_SECONDS = 14


@dataclass
class Jupyter:
    """One server, and the kernel that somebody has started in it."""

    port: int
    runtime: Path

    def post(self, path: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/{path}", data=b"{}", method="POST")
        request.add_header("Authorization", f"token {TOKEN}")
        with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310 - http on loopback
            body: bytes = reply.read()
        return body

    def serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/status?token={TOKEN}", timeout=2):
                return True
        except OSError:
            return False

    def kernel(self) -> BlockingKernelClient:
        """The kernel that runs, as a notebook would reach it."""
        (connection,) = self.runtime.glob("kernel-*.json")
        client = BlockingKernelClient(connection_file=str(connection))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=30)
        return client


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[Jupyter]:
    made = Jupyter(free_port(), tmp_path / "runtime")
    made.runtime.mkdir()
    environment = {"JUPYTER_RUNTIME_DIR": str(made.runtime), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    options = ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={made.port}", f"--IdentityProvider.token={TOKEN}"]
    options += ["--ServerApp.port_retries=0", "--no-browser", "--allow-root", f"--ServerApp.root_dir={tmp_path}"]
    with (tmp_path / "jupyter.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the real server
            [sys.executable, "-m", "jupyter_server", *options],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        eventually(made.serves, 60)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def test_silent_busy_kernel_is_kept_and_an_idle_one_reaped(desks: Desks, jupyter: Jupyter):
    kernel = jupyter.post("kernels")
    client = jupyter.kernel()
    client.execute("import time; time.sleep(600)")  # prints nothing: no output, no connection, only work
    desks.open(
        "joe",
        gpus=0,
        env=[{"name": "JUPYTER_TOKEN", "value": TOKEN}],
        idle={"signals": {"jupyter": {"port": jupyter.port}}},
    )
    desks.wait_why("joe", "InUse")

    steadily(lambda: desks.phase("joe") == "Active", LONGER_THAN_IDLE_SECONDS)
    assert "kernel" in desks.condition("joe")["message"]

    identity = kernel.decode().split('"id": "')[1].split('"')[0]
    jupyter.post(f"kernels/{identity}/interrupt")
    began = time.monotonic()
    status = desks.wait_phase("joe", "Stopped", within=90)

    assert status["stopReason"] == "Idle"
    assert time.monotonic() - began >= 9  # spec.idle.after, from the end of the work
    client.stop_channels()

"""Kueue as a rival on the local cluster: its own manifests from its module, its own binary, nothing of it changed.

It runs only while it is measured, or plain Jobs would pay for its webhooks. What helps it is granted: it is a cluster
administrator (no RBAC to evaluate), integrates batch Jobs alone, elects no leader, and has as many requests a second
as the controller manager has.
"""

import base64
import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hack.cluster import LocalCluster
from hack.cluster.certificates import Authority

from hack import binaries, go

QUEUE = "bench"
LABELS = {"kueue.x-k8s.io/queue-name": QUEUE}
MODULE = "sigs.k8s.io/kueue"
OUR_KINDS = ("jobs", "clusterqueues", "resourceflavors", "workloads", "cohorts")
"""Webhooks for other kinds would point at integrations that are off."""
METRICS_CERTIFICATES = Path("/etc/kueue/metrics/certs")  # Kueue has no option for it
READY_SECONDS = 60


class Kueue:
    """Kueue installed on a cluster; `running` starts and stops it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._binary = binaries.ensure(["kueue"]).path("kueue")
        self._manifests = _module_folder() / "config" / "components"
        self._folder = cluster.layout.folder / "kueue"
        self._ports = {name: _free_port() for name in ("webhook", "health")}
        self.pid = 0

    def install(self, gpus: int) -> None:
        """Its kinds, its configuration, and one queue that takes everything."""
        self._folder.mkdir()
        for path in sorted((self._manifests / "crd" / "bases").glob("*.yaml")):
            self._cluster.kubectl("create", "-f", str(path))
        self._cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        self._cluster.kubectl("create", "namespace", "kueue-system")
        self._authority = Authority.create(self._folder, "ca")
        self._authority.server(self._folder, "tls")
        configuration = {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._ports['health']}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": self._ports["webhook"], "certDir": str(self._folder)},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "clientConnection": {"qps": 500, "burst": 1000},
            "featureGates": {"VisibilityOnDemand": False},
            "integrations": {"frameworks": ["batch/job"]},
        }
        (self._folder / "config.yaml").write_text(yaml.safe_dump(configuration))
        with self.running():
            self._cluster.kubectl("create", "-f", "-", input=yaml.safe_dump_all(_queues(gpus)))

    def admit(self, namespace: str) -> None:
        """Give a namespace its LocalQueue."""
        queue = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE, "namespace": namespace},
            "spec": {"clusterQueue": QUEUE},
        }
        self._cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(queue))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The process and its webhooks, for as long as the block lasts."""
        webhooks = yaml.safe_dump_all(self._webhooks())
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._metrics_certificate())
            stack.enter_context(self._process())
            self._cluster.kubectl("create", "-f", "-", input=webhooks)
            stack.callback(self._cluster.kubectl, "delete", "-f", "-", input=webhooks)
            time.sleep(2)  # the API server takes new webhooks over within a second
            yield

    @contextlib.contextmanager
    def _process(self) -> Iterator[None]:
        kubeconfig = self._cluster.kubeconfig_for("kueue", ["system:masters"])
        command: list[str | Path] = [self._binary, "--kubeconfig", kubeconfig]
        command += ["--config", self._folder / "config.yaml", "--zap-log-level=error"]
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait_ready(process)
            self.pid = process.pid
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + READY_SECONDS
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{self._ports['health']}/readyz", timeout=2).close()
                return
            time.sleep(0.2)
        tail = (self._folder / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"Kueue is not ready:\n{tail}")

    @contextlib.contextmanager
    def _metrics_certificate(self) -> Iterator[None]:
        """Kueue reads a metrics certificate at a fixed path even when it serves no metrics."""
        top = next(p for p in (METRICS_CERTIFICATES, *METRICS_CERTIFICATES.parents) if p.parent.exists())
        if METRICS_CERTIFICATES.exists():
            raise SystemExit(f"{METRICS_CERTIFICATES} exists already; it is somebody else's")
        try:
            METRICS_CERTIFICATES.mkdir(parents=True)
        except PermissionError:
            raise SystemExit(f"Kueue wants a certificate in {METRICS_CERTIFICATES}: run --kueue as root") from None
        try:
            for name in ("tls.crt", "tls.key"):
                shutil.copy(self._folder / name, METRICS_CERTIFICATES / name)
            yield
        finally:
            shutil.rmtree(top)

    def _webhooks(self) -> list[dict[str, Any]]:
        """Its webhook configurations, with a URL in place of a Service that the API server cannot reach."""
        authority = base64.b64encode(self._authority.files.certificate.read_bytes()).decode()
        found = []
        for configuration in yaml.safe_load_all((self._manifests / "webhook" / "manifests.yaml").read_text()):
            kept = []
            for webhook in configuration["webhooks"]:
                if webhook["rules"][0]["resources"][0] not in OUR_KINDS:
                    continue
                path = webhook["clientConfig"]["service"]["path"]
                url = f"https://127.0.0.1:{self._ports['webhook']}{path}"
                kept.append(webhook | {"clientConfig": {"url": url, "caBundle": authority}})
            configuration["metadata"]["name"] = f"kueue-{configuration['metadata']['name']}"
            found.append(configuration | {"webhooks": kept})
        return found


def _queues(gpus: int) -> list[dict[str, Any]]:
    quota = {"cpu": 100 * gpus, "memory": f"{100 * gpus}Gi", "nvidia.com/gpu": gpus}
    resources = [{"name": name, "nominalQuota": amount} for name, amount in quota.items()]
    group = {"coveredResources": list(quota), "flavors": [{"name": QUEUE, "resources": resources}]}
    version = "kueue.x-k8s.io/v1beta2"
    return [
        {"apiVersion": version, "kind": "ResourceFlavor", "metadata": {"name": QUEUE}},
        {
            "apiVersion": version,
            "kind": "ClusterQueue",
            "metadata": {"name": QUEUE},
            "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
        },
    ]


def _module_folder() -> Path:
    """Where the pinned module's sources lie: the build has downloaded them."""
    folder = binaries.choose(("kueue",))[0].folder
    toolchain = go.find(binaries.cache_folder())

    def ask(*arguments: str) -> str:
        command = [str(toolchain.command), *arguments]
        found = subprocess.run(
            command, cwd=folder, env=toolchain.environment(), check=True, capture_output=True, text=True
        )
        return found.stdout.strip()

    ask("mod", "download", MODULE)  # a no-op after a build
    return Path(ask("list", "-m", "-f", "{{.Dir}}", MODULE))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

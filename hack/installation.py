"""Stokehold on a local cluster: the chart's objects through helm, and the programs as processes of their own.

There are no images on a local cluster, so operator and agents run beside it, under the service accounts that the chart
makes for them: a missing right shows up here and not at a user's. The API server calls their admission by URL.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from hack import binaries
from hack.cluster import LocalCluster, kubeconfigs
from hack.cluster.certificates import KeyPair

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm" / "stokehold"
RELEASE = "stokehold"
NAMESPACE = "stokehold-system"
SERVICE_ACCOUNT = "stokehold-operator"
AGENT_ACCOUNT = "stokehold-agent"
READY_WITHIN_SECONDS = 30.0
OF_THIS_TREE = (sys.executable, "-m", "stokehold.cli.main")


class HelmError(RuntimeError):
    """helm ended with an error; the message is what it said."""


def install(cluster: LocalCluster, values: Mapping[str, object] | None = None) -> None:
    """Put the chart on the cluster and wait until its kinds are served."""
    helm(cluster, "install", RELEASE, str(CHART), "--create-namespace", "--wait", values=beside(cluster, values))
    names = [f"crd/{path.stem}.stokehold.dev" for path in sorted((ROOT / "crds").glob("*.yaml"))]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    fetch_certificate(cluster)


def helm(cluster: LocalCluster, *arguments: str, values: Mapping[str, object] | None = None) -> str:
    """What helm prints, run as admin in the release's namespace; `values` by their path, as with --set."""
    homes = {f"HELM_{kind}_HOME": str(cluster.kubeconfig.parent / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
    settings = [
        part for path, value in (values or {}).items() for part in ("--set-json", f"{path}={json.dumps(value)}")
    ]
    done = subprocess.run(
        [binaries.ensure(["helm"]).path("helm"), *arguments, "--namespace", NAMESPACE, *settings],
        env={**os.environ, **homes, "KUBECONFIG": str(cluster.kubeconfig)},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def beside(cluster: LocalCluster, values: Mapping[str, object] | None = None) -> dict[str, object]:
    """Values for programs that run beside the cluster: no pods, and admission by URL."""
    return {
        "operator.replicas": 0,
        "simulatedProvider.enabled": True,
        "agent.nodeSelector": {"stokehold.dev/runs-beside-the-cluster": "true"},
        "webhook.url": f"https://127.0.0.1:{cluster.layout.ports['webhook']}",
        **(values or {}),
    }


def kubeconfig_for_agent(cluster: LocalCluster, node: str) -> Path:
    """A kubeconfig for `stokehold agent` on a node: its token is that of a stand-in pod there, for an agent may write
    only the object of the node that its pod runs on."""
    name = f"agent-{node}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "serviceAccountName": AGENT_ACCOUNT,
            "containers": [{"name": "agent", "image": "agent"}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    cluster.kubectl("apply", "-f", "-", input=json.dumps(pod))
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}")
    token = cluster.kubectl("create", "token", AGENT_ACCOUNT, "-n", NAMESPACE, *bound).strip()
    return kubeconfigs.write_with_token(cluster.layout.kubeconfig(name), cluster.url, cluster.ca_file, token)


def fetch_certificate(cluster: LocalCluster) -> None:
    """The kubelet would mount the Secret; here the files lie beside the cluster's own."""
    found = cluster.kubectl("get", "secret", f"{RELEASE}-webhook", "-n", NAMESPACE, "--ignore-not-found", "-o", "json")
    if not found:
        return
    data, files = json.loads(found)["data"], _certificate(cluster)
    files.key.touch(mode=0o600)
    files.key.write_bytes(base64.b64decode(data["tls.key"]))
    files.certificate.write_bytes(base64.b64decode(data["tls.crt"]))


def _certificate(cluster: LocalCluster) -> KeyPair:
    return KeyPair(cluster.layout.pki / "webhook.crt", cluster.layout.pki / "webhook.key")


class OperatorProcess:
    """`stokehold run` against a local cluster; it can be killed, paused and started again.

    All operators of a cluster share the port of admission: the kernel gives each connection to one of them.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        identity: str,
        log: Path,
        options: Sequence[str] = (),
        program: Sequence[str] = OF_THIS_TREE,
        *,
        kubeconfig: Path | None = None,
    ) -> None:
        """`kubeconfig` is another way to the cluster than the plain one, for example through a proxy."""
        own = kubeconfig or cluster.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        self.identity = identity
        self.log = log
        self._port_file = log.with_suffix(".port")
        self._command = [
            *program,
            "run",
            *("--kubeconfig", str(own)),
            *("--identity", identity, "--metrics-port", "0", "--port-file", str(self._port_file)),
            *self._admission(cluster),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        cluster: LocalCluster,
        identity: str = "operator",
        log: Path | None = None,
        options: Sequence[str] = (),
        program: Sequence[str] = OF_THIS_TREE,
        *,
        kubeconfig: Path | None = None,
    ) -> Self:
        """Start one and wait until it is ready."""
        folder = cluster.kubeconfig.parent.parent
        log = log or folder / f"{identity}.log"
        operator = cls(cluster, identity, log, options, program, kubeconfig=kubeconfig)
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

    @staticmethod
    def _admission(cluster: LocalCluster) -> tuple[str, ...]:
        files = _certificate(cluster)
        if not files.certificate.exists():
            return ()
        port = str(cluster.layout.ports["webhook"])
        listen = ("--webhook-address", "127.0.0.1", "--webhook-port", port)
        return (*listen, "--webhook-cert", str(files.certificate), "--webhook-key", str(files.key))

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

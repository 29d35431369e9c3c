"""One local cluster: started, used, broken on purpose and stopped by tests, the demo and benchmarks."""

import datetime as dt
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from hack import binaries as builds
from hack.cluster import kubeconfigs, nodes, ports, registry, servers
from hack.cluster.api import MERGE_PATCH, STRATEGIC_PATCH, AdminApi, ApiError, Health
from hack.cluster.processes import Command, Processes
from hack.cluster.spec import ClusterSpec

START_SECONDS = 60.0
NODES_SECONDS = 120.0
KUBECTL_SECONDS = 120.0
TOKEN_LIFETIME = "24h"  # noqa: S105 - a duration, not a secret
API_SERVER = "kube-apiserver"
NAME_PATTERN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class KubectlError(RuntimeError):
    """kubectl ended with an error; the message is what it said."""


class LocalCluster:
    """A running control plane. Use it as a context manager, or call stop()."""

    def __init__(self, name: str, layout: servers.Layout, spec: ClusterSpec, binaries: builds.Binaries) -> None:
        self.name = name
        self.spec = spec
        self.layout = layout
        self._binaries = binaries
        self._processes = Processes(layout.run)
        self._api: AdminApi | None = None

    @classmethod
    def start(
        cls,
        spec: ClusterSpec,
        name: str | None = None,
        state: Path | None = None,
        *,
        stays: bool = False,
    ) -> Self:
        """A cluster whose nodes are Ready and schedulable.

        Without a name its state is a fresh temporary folder. `stays` means that it is to outlive
        this process; without it `python -m hack.cluster down` takes it for an orphan afterwards.
        """
        binaries = builds.ensure()
        name = name or f"run-{secrets.token_hex(4)}"
        if not NAME_PATTERN.fullmatch(name):
            raise ValueError(f"{name!r}: a cluster's name has lower case letters, digits and dashes")
        with registry.locked():
            if (before := registry.find(name)) is not None:
                if Processes(before.folder / "run").pids():
                    raise FileExistsError(f"the cluster {name} runs already")
                registry.clean(before)
            claimed = [port for entry in registry.entries() for port in entry.ports.values()]
            chosen = ports.choose(servers.PORTS, claimed)
            folder = _new_folder(state)
            registry.write(_entry(name, folder, chosen, stays=stays))
        cluster = cls(name, servers.Layout(folder, chosen), spec, binaries)
        try:
            cluster._bring_up()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def attach(cls, name: str) -> Self | None:
        """A cluster that another process started, or None."""
        entry = registry.find(name)
        if entry is None or not Processes(entry.folder / "run").pids():
            return None
        document = json.loads((entry.folder / "description.json").read_text())
        layout = servers.Layout(entry.folder, entry.ports)
        return cls(name, layout, ClusterSpec.parse(document), builds.ensure())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops every server by pid and removes the state; a second call does nothing."""
        if self._api is not None:
            self._api.close()
            self._api = None
        self._processes.kill()
        shutil.rmtree(self.layout.folder, ignore_errors=True)
        registry.remove(self.name)

    @property
    def kubeconfig(self) -> Path:
        """The admin's."""
        return self.layout.kubeconfig(servers.ADMIN)

    @property
    def url(self) -> str:
        """The API server's address."""
        return self.layout.url

    @property
    def ca_file(self) -> Path:
        """The authority of the API server's certificate."""
        return self.layout.ca_file

    def bin(self, name: str) -> Path:
        """A built binary, for example kubectl or helm."""
        return self._binaries.path(name)

    def processes(self) -> dict[str, int]:
        """The pid of each server that runs."""
        return self._processes.pids()

    def log(self, name: str) -> Path:
        """Where a server's output goes."""
        return self._processes.log(name)

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        check: bool = True,
    ) -> str:
        """What kubectl prints, run as admin; a KubectlError when it fails and `check` is true."""
        command: list[str | Path] = [
            self.bin("kubectl"), "--kubeconfig", self.kubeconfig,
            # kubectl caches discovery by address, and another cluster may get this one's port.
            "--cache-dir", self.layout.folder / "kubectl-cache", *arguments,
        ]  # fmt: skip
        result = subprocess.run(
            command, input=input, capture_output=True, text=True, check=False,
            timeout=KUBECTL_SECONDS,
        )  # fmt: skip
        if check and result.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def read(self, plural: str, name: str = "", *, namespace: str = "", selector: str = "") -> Any:
        """One object, or without a name the list of them. For loops: it costs a hundredth of a kubectl."""
        return self._admin().read(plural, name, namespace=namespace, selector=selector)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a client certificate of this user."""
        client = self.layout.authority().client(self.layout.pki, user, groups)
        path = self.layout.kubeconfig(user)
        return kubeconfigs.write_with_certificate(path, self.url, self.ca_file, client)

    def kubeconfig_for_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a fresh token of an existing service account."""
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration", TOKEN_LIFETIME)
        path = self.layout.kubeconfig(f"system:serviceaccount:{namespace}:{name}")
        return kubeconfigs.write_with_token(path, self.url, self.ca_file, token.strip())

    def refused_requests(self) -> int:
        """How many requests the API server has answered with 403 since it started, whoever made them."""
        metrics = self.kubectl("get", "--raw", "/metrics")
        counts = dict(re.findall(r'^authorization_attempts_total\{result="(.*)"\} (.*)$', metrics, re.MULTILINE))
        if "allowed" not in counts:
            raise RuntimeError("the API server's metrics have no authorization_attempts_total to count refusals by")
        return sum(int(float(count)) for result, count in counts.items() if result != "allowed")

    def pause_api_server(self) -> None:
        """The API server stops answering but keeps its connections."""
        self._processes.signal(API_SERVER, signal.SIGSTOP)

    def resume_api_server(self) -> None:
        """Ends a pause."""
        self._processes.signal(API_SERVER, signal.SIGCONT)

    def stop_api_server(self) -> None:
        """Ends the API server; etcd keeps its data."""
        self._processes.stop(API_SERVER)

    def start_api_server(self) -> None:
        """Starts the API server again with the same port and data, and waits until it is ready."""
        self._start(servers.api_server(self.layout, self._binaries, self.spec))

    def add_node(self, pool_name: str, name: str) -> None:
        """Adds a node like those of a pool; its rack and zone are those of the pool's first node."""
        node = nodes.node(self.spec.pool(pool_name), name, 0, _now())
        self._admin().call("POST", "/api/v1/nodes", node)
        self._wait_schedulable({name})

    def delete_node(self, name: str) -> None:
        """Removes a node object, as a cloud does when the machine is gone."""
        self._admin().call("DELETE", f"/api/v1/nodes/{name}")

    def set_ready(self, name: str, is_ready: bool) -> None:
        """Makes a node NotReady or Ready until the next call; its kubelet still lives."""
        condition = nodes.ready_condition(is_ready=is_ready, now=_now())
        body = {"status": {"conditions": [condition]}}
        self._patch_node(f"{name}/status", body, STRATEGIC_PATCH)

    def set_allocatable(self, name: str, amounts: Mapping[str, int | str]) -> None:
        """Changes what of a node can be used, as a device plugin does when GPUs fail."""
        allocatable = {resource: str(amount) for resource, amount in amounts.items()}
        self._patch_node(f"{name}/status", {"status": {"allocatable": allocatable}}, MERGE_PATCH)

    def set_silent(self, name: str) -> None:
        """The node's kubelet dies: no lease is renewed, no pod starts, no deletion is finished."""
        body = {"metadata": {"labels": {nodes.KUBELET_LABEL: nodes.DEAD}}}
        self._patch_node(name, body, MERGE_PATCH)

    def set_heard(self, name: str) -> None:
        """The silent node's kubelet comes back."""
        body = {"metadata": {"labels": {nodes.KUBELET_LABEL: nodes.ALIVE}}}
        self._patch_node(name, body, MERGE_PATCH)
        self.set_ready(name, True)

    def _bring_up(self) -> None:
        servers.prepare(self.layout, self.spec)
        description = json.dumps(self.spec.document())
        (self.layout.folder / "description.json").write_text(description)
        layout, binaries, spec = self.layout, self._binaries, self.spec
        self._start(servers.etcd(layout, binaries))
        self._start(servers.api_server(layout, binaries, spec))
        followers = (
            servers.controller_manager(layout, binaries, spec),
            servers.scheduler(layout, binaries, spec),
            servers.kwok(layout, binaries),
        )
        for command in followers:
            self._processes.start(command)
        all_nodes = list(nodes.nodes_of(spec, _now()))
        self._admin().create_all("/api/v1/nodes", all_nodes)
        for command in followers:
            self._wait_ready(command)
        self._wait_default_service_account()
        self._wait_schedulable({node["metadata"]["name"] for node in all_nodes})

    def _start(self, command: Command) -> None:
        self._processes.start(command)
        self._wait_ready(command)

    def _wait_ready(self, command: Command) -> None:
        health = Health(self.layout)
        self._processes.wait_ready(command.name, lambda: health.is_ready(command.ready_url), START_SECONDS)

    def _wait_default_service_account(self) -> None:
        """Without it the first pods would be refused."""

        def exists() -> bool:
            try:
                self._admin().call("GET", "/api/v1/namespaces/default/serviceaccounts/default")
            except ApiError:
                return False
            return True

        self._processes.wait_ready("kube-controller-manager", exists, START_SECONDS)

    def _wait_schedulable(self, names: set[str]) -> None:
        """Returns when the nodes have a lease and the taint that every new node gets is gone."""

        def are_schedulable() -> bool:
            leases = self._admin().call(
                "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?resourceVersion=0"
            )
            held = {lease["metadata"]["name"] for lease in leases["items"]}
            if not names <= held:
                return False
            listed = self._admin().call("GET", "/api/v1/nodes?resourceVersion=0")["items"]
            return names <= {node["metadata"]["name"] for node in listed if not _is_new(node)}

        # Listing a thousand nodes twenty times a second would slow down what it waits for.
        poll_seconds = max(0.05, len(names) / 1000)
        self._processes.wait_ready("kwok", are_schedulable, NODES_SECONDS, poll_seconds)

    def _patch_node(self, path: str, body: object, content: str) -> None:
        self._admin().call("PATCH", f"/api/v1/nodes/{path}", body, content)

    def _admin(self) -> AdminApi:
        if self._api is None:
            self._api = AdminApi(self.layout)
        return self._api


def _is_new(node: Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]]) -> bool:
    taints = node["spec"].get("taints", ())
    return any(taint["key"] == "node.kubernetes.io/not-ready" for taint in taints)


def _new_folder(state: Path | None) -> Path:
    if state is None:
        return Path(tempfile.mkdtemp(prefix="stokehold-"))
    state.mkdir(parents=True, mode=0o700)  # an older cluster's data must not show up in a new one
    return state.absolute()


def _entry(name: str, folder: Path, chosen: Mapping[str, int], *, stays: bool) -> registry.Entry:
    if stays:
        return registry.Entry(name, folder, chosen)
    started = psutil.Process().create_time()
    return registry.Entry(name, folder, chosen, os.getpid(), started)


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251 - nodes live in real time

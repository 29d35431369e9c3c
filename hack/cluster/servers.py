"""The command line of each server. Everything listens on 127.0.0.1 and speaks TLS, kwok's health port excepted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from hack.binaries import Binaries
from hack.cluster import certificates, kubeconfigs, stages
from hack.cluster.nodes import ALIVE, KUBELET_LABEL
from hack.cluster.processes import Command
from hack.cluster.spec import ClusterSpec

# The last is for the admission of an operator beside the cluster: the API server must know it before that one runs.
PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "webhook")
SERVICE_CIDR = "10.96.0.0/16"
POD_CIDR = "10.128.0.0/9"
# The defaults (20 and 50 requests a second) would be what a test or a benchmark measures.
CONTROLLER_MANAGER_QPS, CONTROLLER_MANAGER_BURST = 500, 1000
SCHEDULER_QPS, SCHEDULER_BURST = 1000, 2000
KWOK_PARALLELISM = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a cluster's files are, and which ports it has."""

    folder: Path
    ports: Mapping[str, int]

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.folder / "pki"

    @property
    def run(self) -> Path:
        """Pid files and logs."""
        return self.folder / "run"

    @property
    def url(self) -> str:
        """The API server's address."""
        return self.address("kube-apiserver")

    def address(self, server: str, scheme: str = "https") -> str:
        """The base URL of a server."""
        return f"{scheme}://127.0.0.1:{self.ports[server]}"

    @property
    def ca_file(self) -> Path:
        """The authority that the API server's certificate is checked against."""
        return self.pki / "ca.crt"

    def authority(self) -> certificates.Authority:
        """Signs further client certificates."""
        return certificates.Authority(certificates.KeyPair(self.ca_file, self.pki / "ca.key"))

    def client(self, user: str) -> certificates.KeyPair:
        """The files of a certificate that was issued before."""
        name = user.replace(":", "-")
        return certificates.KeyPair(self.pki / f"{name}.crt", self.pki / f"{name}.key")

    def kubeconfig(self, user: str) -> Path:
        """Where a user's kubeconfig is."""
        return self.folder / "kubeconfigs" / f"{user.replace(':', '-')}.yaml"


ADMIN = "admin"
KCM = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
# kwok plays every kubelet at once, which no single node's identity may: it is trusted whole.
KWOK = "kwok"
USERS: Mapping[str, tuple[str, ...]] = {
    ADMIN: ("system:masters",),
    KCM: (),
    SCHEDULER: (),
    KWOK: ("system:masters",),
}


def prepare(layout: Layout, spec: ClusterSpec) -> None:
    """Writes all that the servers read at their start."""
    layout.pki.mkdir(parents=True)
    authority = certificates.Authority.create(layout.pki, "ca")
    authority.server(
        layout.pki,
        "serving",
        (*certificates.API_SERVER_NAMES, *certificates.API_SERVER_ADDRESSES),
    )
    etcd = certificates.Authority.create(layout.pki, "etcd-ca")
    etcd.server(layout.pki, "etcd")
    etcd.client(layout.pki, "etcd-client")
    certificates.create_service_account_keys(layout.pki)
    for user, groups in USERS.items():
        client = authority.client(layout.pki, user, groups)
        path = layout.kubeconfig(user)
        kubeconfigs.write_with_certificate(path, layout.url, layout.ca_file, client)
    _write_configurations(layout, spec)


def _write_configurations(layout: Layout, spec: ClusterSpec) -> None:
    scheduler = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(layout.kubeconfig(SCHEDULER)),
            "qps": SCHEDULER_QPS,
            "burst": SCHEDULER_BURST,
        },
    }
    (layout.folder / "scheduler.yaml").write_text(yaml.safe_dump(scheduler))
    kwok = {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": {
            "manageNodesWithLabelSelector": f"{KUBELET_LABEL}={ALIVE}",
            "nodeLeaseDurationSeconds": spec.lease_seconds,
            "nodeLeaseParallelism": KWOK_PARALLELISM,
            "podPlayStageParallelism": KWOK_PARALLELISM,
            "nodePlayStageParallelism": KWOK_PARALLELISM,
            "podsOnNodeSyncParallelism": 4,
            "cidr": POD_CIDR,
            "nodeIP": "127.0.0.1",
            "serverAddress": f"127.0.0.1:{layout.ports['kwok']}",
            "enableDebuggingHandlers": False,
        },
    }
    content = yaml.safe_dump(kwok) + "---\n" + stages.render()
    (layout.folder / "kwok.yaml").write_text(content)


def etcd(layout: Layout, binaries: Binaries) -> Command:
    """The store. Without fsync: it is thrown away with the cluster."""
    client, peer = layout.address("etcd"), layout.address("etcd-peer")
    pki = layout.pki
    arguments = {
        "name": "default",
        "data-dir": layout.folder / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "cert-file": pki / "etcd.crt",
        "key-file": pki / "etcd.key",
        "client-cert-auth": "true",
        "trusted-ca-file": pki / "etcd-ca.crt",
        "peer-cert-file": pki / "etcd.crt",
        "peer-key-file": pki / "etcd.key",
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": pki / "etcd-ca.crt",
        "unsafe-no-fsync": "true",
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": "10000",
        "quota-backend-bytes": str(4 << 30),
        "log-level": "warn",
    }
    return _command("etcd", binaries, arguments, f"{client}/health")


def api_server(layout: Layout, binaries: Binaries, spec: ClusterSpec) -> Command:
    """The API server. GOGC=400: on two cores its garbage collection is what bounds the rate."""
    pki = layout.pki
    arguments = {
        "etcd-servers": layout.address("etcd"),
        "etcd-cafile": pki / "etcd-ca.crt",
        "etcd-certfile": pki / "etcd-client.crt",
        "etcd-keyfile": pki / "etcd-client.key",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": layout.ports["kube-apiserver"],
        "endpoint-reconciler-type": "none",
        "cert-dir": pki,
        "tls-cert-file": pki / "serving.crt",
        "tls-private-key-file": pki / "serving.key",
        "client-ca-file": layout.ca_file,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "service-accounts.pub",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "service-cluster-ip-range": SERVICE_CIDR,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "profiling": "false",
    }
    ready = f"{layout.url}/readyz"
    return _command("kube-apiserver", binaries, arguments | _gates(spec), ready, {"GOGC": "400"})


def controller_manager(layout: Layout, binaries: Binaries, spec: ClusterSpec) -> Command:
    """Jobs, garbage collection, node lifecycle, service accounts."""
    kubeconfig = layout.kubeconfig(KCM)
    arguments = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": layout.ports["kube-controller-manager"],
        "tls-cert-file": layout.pki / "serving.crt",
        "tls-private-key-file": layout.pki / "serving.key",
        "service-account-private-key-file": layout.pki / "service-accounts.key",
        "root-ca-file": layout.ca_file,
        "cluster-signing-cert-file": layout.ca_file,
        "cluster-signing-key-file": layout.pki / "ca.key",
        "use-service-account-credentials": "true",
        "leader-elect": "false",
        "node-monitor-grace-period": f"{spec.node_grace_seconds}s",
        "kube-api-qps": CONTROLLER_MANAGER_QPS,
        "kube-api-burst": CONTROLLER_MANAGER_BURST,
        "profiling": "false",
    }
    ready = f"{layout.address('kube-controller-manager')}/healthz"
    return _command("kube-controller-manager", binaries, arguments | _gates(spec), ready)


def scheduler(layout: Layout, binaries: Binaries, spec: ClusterSpec) -> Command:
    """The default scheduler, faster than by default."""
    kubeconfig = layout.kubeconfig(SCHEDULER)
    arguments = {
        "config": layout.folder / "scheduler.yaml",
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": layout.ports["kube-scheduler"],
        "tls-cert-file": layout.pki / "serving.crt",
        "tls-private-key-file": layout.pki / "serving.key",
    }
    ready = f"{layout.address('kube-scheduler')}/healthz"
    return _command("kube-scheduler", binaries, arguments | _gates(spec), ready)


def kwok(layout: Layout, binaries: Binaries) -> Command:
    """Every node's kubelet."""
    arguments = {"kubeconfig": layout.kubeconfig(KWOK), "config": layout.folder / "kwok.yaml"}
    ready = f"{layout.address('kwok', 'http')}/healthz"
    # kwok reads ~/.kwok/kwok.yaml beside --config; a user's own settings are not ours.
    environment = {"KWOK_WORKDIR": str(layout.folder / "kwok")}
    return _command("kwok", binaries, arguments, ready, environment)


def _gates(spec: ClusterSpec) -> dict[str, str]:
    if not spec.feature_gates:
        return {}
    gates = sorted(spec.feature_gates.items())
    return {"feature-gates": ",".join(f"{gate}={str(on).lower()}" for gate, on in gates)}


def _command(
    name: str,
    binaries: Binaries,
    arguments: Mapping[str, object],
    ready_url: str,
    environment: Mapping[str, str] | None = None,
) -> Command:
    flags = (f"--{flag}={value}" for flag, value in arguments.items())
    return Command(name, (str(binaries.path(name)), *flags), ready_url, environment or {})

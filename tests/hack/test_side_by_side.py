"""Clusters do not see each other, and leave nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hack.cluster import ClusterSpec, LocalCluster, ports, registry
from hack.cluster.processes import Processes

pytestmark = pytest.mark.cluster

SERVERS = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}
EMPTY = ClusterSpec.parse({"pools": [{"name": "cpu", "nodes": 1}]})


def listening(pids: list[int]) -> set[tuple[str, int]]:
    found = set()
    for pid in pids:
        for connection in psutil.Process(pid).net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add((connection.laddr.ip, connection.laddr.port))
    return found


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter


def test_two_clusters_run_side_by_side_and_leave_nothing() -> None:
    with LocalCluster.start(EMPTY) as one, LocalCluster.start(EMPTY) as two:
        one.kubectl("create", "namespace", "only-in-one")
        clusters = (one, two)
        folders = [cluster.layout.folder for cluster in clusters]
        pids = [pid for cluster in clusters for pid in cluster.processes().values()]
        sockets = listening(pids)

        assert "only-in-one" not in two.kubectl("get", "namespaces", "-o", "name")
        assert set(one.processes()) == set(two.processes()) == SERVERS
        assert {address for address, _ in sockets} == {"127.0.0.1"}
        # The webhook's is kept for an operator.
        reserved = {p for c in clusters for name, p in c.layout.ports.items() if name != "webhook"}
        assert {port for _, port in sockets} == reserved

    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not [folder for folder in folders if folder.exists()]
    assert all(ports.is_free(port) for _, port in sockets)
    assert not {one.name, two.name} & {entry.name for entry in registry.entries()}


def test_second_cluster_of_a_name_is_refused(simulated: LocalCluster) -> None:
    with pytest.raises(FileExistsError, match="runs already"):
        LocalCluster.start(EMPTY, simulated.name)


def test_cluster_of_another_process_can_be_attached(simulated: LocalCluster) -> None:
    attached = LocalCluster.attach(simulated.name)

    assert attached is not None
    assert attached.processes() == simulated.processes()
    assert attached.spec == simulated.spec


def test_down_stops_a_cluster_whose_starter_was_killed(tmp_path: Path) -> None:
    program = (
        "import json, os, signal\n"
        "from hack.cluster import ClusterSpec, LocalCluster\n"
        "cluster = LocalCluster.start(ClusterSpec.parse({'pools': []}))\n"
        "print(json.dumps([cluster.name, str(cluster.layout.folder)]), flush=True)\n"
        f"os.kill(os.getpid(), signal.{signal.SIGKILL.name})\n"
    )
    starter = python("-c", program)
    assert starter.returncode == -signal.SIGKILL, starter.stderr
    name, folder = json.loads(starter.stdout.splitlines()[-1])
    pids = Processes(Path(folder) / "run").pids()
    assert set(pids) == SERVERS

    output = python("-m", "hack.cluster", "down", "--name", "no-such-cluster").stdout

    assert f"{name} is down" in output
    assert not [pid for pid in pids.values() if psutil.pid_exists(pid)]
    assert not Path(folder).exists()


def test_up_ends_with_the_line_to_export_and_down_leaves_nothing(tmp_path: Path) -> None:
    description = tmp_path / "small.yaml"
    description.write_text("pools: [{name: cpu, nodes: 1}]")
    name = f"up-{tmp_path.name.replace('_', '-')[:20].strip('-')}"
    up = python("-m", "hack.cluster", "up", str(description), "--name", name)
    entry = registry.find(name)
    assert entry is not None, up.stderr
    pids = Processes(entry.folder / "run").pids()
    export, kubeconfig = up.stdout.splitlines()[-1].split("=")
    assert (export, Path(kubeconfig).is_file()) == ("export KUBECONFIG", True)

    assert python("-m", "hack.cluster", "down", "--name", name).returncode == 0

    assert set(pids) == SERVERS
    assert not [pid for pid in pids.values() if psutil.pid_exists(pid)]
    assert not entry.folder.exists()
    assert registry.find(name) is None

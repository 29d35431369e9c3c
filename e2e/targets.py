"""The clusters that the suite can run on: each gives a kubectl that works and a Stokehold that runs."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hack.cluster import ClusterSpec, LocalCluster
from hack.cluster.api import GROUPS
from hack.installation import CHART, NAMESPACE, ROOT, OperatorProcess, install

OWN_KINDS = GROUPS["/apis/stokehold.dev/v1alpha1"]
GPU = "nvidia.com/gpu"
IMAGE = "stokehold:e2e"


@dataclass(frozen=True)
class Target:
    """A cluster with Stokehold on it, and how to talk to it."""

    name: str
    kubectl_path: str
    kubeconfig: Path | None
    small: bool
    """It may be too small for a scenario, which is skipped then."""
    image: str = field(default_factory=lambda: os.environ.get("E2E_IMAGE", "busybox:1.37"))
    """An image with a shell, for the programs of the scenarios."""

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002 - as in subprocess
        """Run kubectl and return what it prints; CalledProcessError with its words when it fails."""
        run = subprocess.run(
            [self.kubectl_path, *args],
            input=input,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and run.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {run.stderr}")
        return run.stdout

    def read(self, plural: str, name: str = "", *, namespace: str = "", selector: str = "") -> Any:
        """One object, or without a name the list of them."""
        kind = f"{plural}.stokehold.dev" if plural in OWN_KINDS else plural  # others have inferencepools, too
        where = ["-n", namespace] if namespace else ["-A"]
        chosen = [name] if name else ["-l", selector] if selector else []
        return json.loads(self.kubectl("get", kind, *chosen, *where, "-o", "json"))

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which kubectl, helm and stokehold find this cluster."""
        return {**os.environ, **({"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {})}

    def gpu_nodes(self) -> list[dict[str, Any]]:
        """The nodes that offer at least one GPU and take work."""
        nodes: list[dict[str, Any]] = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        return [
            node
            for node in nodes
            if int(node["status"].get("allocatable", {}).get(GPU, "0")) and not node["spec"].get("unschedulable")
        ]

    def needs(self, nodes: int) -> None:
        """Skip the scenario on somebody's own cluster when it has too few GPU nodes; fail anywhere else."""
        found = len(self.gpu_nodes())
        if found >= nodes:
            return
        told = f"needs {nodes} nodes with GPUs, this cluster has {found}"
        if self.small:
            pytest.skip(told)
        pytest.fail(told)


@contextmanager
def local() -> Iterator[Target]:
    """The local control plane, with the operator as a process."""
    with LocalCluster.start(ClusterSpec.load(ROOT / "hack" / "clusters" / "test.yaml")) as cluster:
        install(cluster)
        operator = OperatorProcess.start(cluster, "e2e")
        try:
            yield Target("local", str(cluster.bin("kubectl")), cluster.kubeconfig, small=False)
        finally:
            operator.stop()


@contextmanager
def kind(folder: Path) -> Iterator[Target]:
    """A kind cluster whose workers claim GPUs, with the image and the chart of this tree."""
    try:
        from pytest_kind.cluster import KindCluster  # noqa: PLC0415 - an optional extra with many dependencies
    except ImportError:
        raise pytest.UsageError("pytest-kind is missing: pip install -e '.[kind]'") from None
    for tool in ("docker", "helm"):
        if shutil.which(tool) is None:
            raise pytest.UsageError(f"{tool} is not on the PATH; a kind cluster needs docker and helm")
    cluster = KindCluster("stokehold-e2e", folder / "kubeconfig")
    cluster.create(config_file=Path(__file__).parent / "kind.yaml")
    try:
        subprocess.run(["docker", "build", "--tag", IMAGE, ROOT], check=True)
        cluster.load_docker_image(IMAGE)
        target = Target("kind", str(cluster.kubectl_path), cluster.kubeconfig_path, small=False)
        _claim_gpus(target)
        repository, tag = IMAGE.split(":")
        values = ["--set", f"image.repository={repository},image.tag={tag},agent.enabled=false"]
        command = ["helm", "install", "stokehold", CHART, "--namespace", NAMESPACE, "--create-namespace", "--wait"]
        subprocess.run([*command, *values], env=target.environment, check=True)
        yield target
    finally:
        cluster.delete()


@contextmanager
def current() -> Iterator[Target]:
    """The current context."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise pytest.UsageError("kubectl is not on the PATH")
    target = Target("current", kubectl, None, small=True)
    if "trainingjobs" not in target.kubectl("api-resources", "--api-group=stokehold.dev", "-o", "name"):
        raise pytest.UsageError("the current context has no Stokehold: helm install it first (docs/guides/install.md)")
    yield target


def _claim_gpus(target: Target) -> None:
    """Let each worker offer eight GPUs that nobody has, with the label that GPU Feature Discovery would write."""
    for name in target.kubectl("get", "nodes", "-l", "!node-role.kubernetes.io/control-plane", "-o", "name").split():
        target.kubectl("label", name, "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3")
        status = {"status": {"capacity": {GPU: "8"}, "allocatable": {GPU: "8"}}}
        target.kubectl("patch", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))

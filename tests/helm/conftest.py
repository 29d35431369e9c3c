"""A cluster of its own, for the chart comes and goes on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hack.cluster import ClusterSpec, LocalCluster
from hack.installation import RELEASE, OperatorProcess, helm, install

from conftest import CLUSTERS


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster.start(ClusterSpec.load(CLUSTERS / "test.yaml")) as started:
        yield started


@pytest.fixture(scope="module")
def installed(cluster: LocalCluster) -> Iterator[LocalCluster]:
    install(cluster)
    yield cluster
    helm(cluster, "uninstall", RELEASE, "--wait")


@pytest.fixture
def start_operator(installed: LocalCluster, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    running: list[OperatorProcess] = []

    def start(identity: str = "operator", *options: str) -> OperatorProcess:
        running.append(OperatorProcess.start(installed, identity, tmp_path / f"{identity}.log", options))
        return running[-1]

    yield start
    for operator in running:
        operator.kill()

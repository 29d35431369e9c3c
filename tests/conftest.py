"""Fixtures that several suites share: one real control plane for the session, and operators on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hack.cluster import ClusterSpec, LocalCluster
from hack.installation import OperatorProcess, install
from hypothesis import HealthCheck, settings

# Tests are not timed: a busy machine would fail them at random.
settings.register_profile("stokehold", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stokehold")

CLUSTERS = Path(__file__).parent.parent / "hack" / "clusters"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left alone with them at the end."""
    items.sort(key=lambda item: ("crash" not in item.keywords, "cluster" not in item.keywords))


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A running cluster of 4 H100 and 2 A100 nodes with the chart installed; shared, so clean up after yourself."""
    with LocalCluster.start(ClusterSpec.load(CLUSTERS / "test.yaml")) as started:
        install(started)
        yield started


@pytest.fixture
def start_operator(cluster: LocalCluster, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Starts operators under the chart's service account; all are gone after the test."""
    running: list[OperatorProcess] = []

    def start(identity: str = "operator", *options: str, kubeconfig: Path | None = None) -> OperatorProcess:
        log = tmp_path / f"{identity}.log"
        operator = OperatorProcess(cluster, identity, log, options, kubeconfig=kubeconfig)
        running.append(operator)  # before it is ready: one that never is must not stay behind
        operator.restart()
        return operator

    yield start
    for operator in running:
        if operator.is_running:
            operator.resume()
        operator.stop()  # gives the Lease back: the next test's operator need not wait until it has run out

"""A cluster of its own for the tests that break things."""

from collections.abc import Callable, Iterator

import pytest
from hack.cluster import ClusterSpec, LocalCluster
from hack.fault_proxy import FaultProxy
from hack.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install

from conftest import CLUSTERS
from kit.jobs import Team
from kit.witness import Witness


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster.start(ClusterSpec.load(CLUSTERS / "test.yaml")) as started:
        install(started)
        yield started


@pytest.fixture
def team(cluster: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Team]:
    made = Team.create(cluster, f"crash-{abs(hash(request.node.name)) % 10_000}")
    yield made
    cluster.kubectl("delete", "namespace", made.namespace, "--wait=false", check=False)


@pytest.fixture
def witness(cluster: LocalCluster) -> Iterator[Witness]:
    """Looks on for the whole test."""
    looking = Witness(cluster)
    looking.start()
    yield looking
    looking.stop()


@pytest.fixture
def start_behind_proxy(
    cluster: LocalCluster, start_operator: Callable[..., OperatorProcess]
) -> Iterator[Callable[..., tuple[OperatorProcess, FaultProxy]]]:
    """Starts operators that reach the API server through a proxy of their own."""
    running: list[tuple[OperatorProcess, FaultProxy]] = []

    def start(identity: str, *options: str) -> tuple[OperatorProcess, FaultProxy]:
        proxy = FaultProxy.start(cluster, identity)
        direct = cluster.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        running.append((start_operator(identity, *options, kubeconfig=proxy.kubeconfig(direct)), proxy))
        return running[-1]

    yield start
    for operator, proxy in running:
        operator.kill()
        proxy.stop()

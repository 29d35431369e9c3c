"""One operator for each file, told to ask the test's engines or a real Prometheus; each test has its own namespace."""

import itertools
from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster
from hack.engines import Engines
from hack.installation import OperatorProcess

from kit.operators import one_operator
from kit.prometheus import Prometheus
from kit.serving import ServingTeam

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_engines() -> Iterator[Engines]:
    engines = Engines.start()
    yield engines
    engines.stop()


@pytest.fixture
def engines(shared_engines: Engines) -> Engines:
    """The engines, idle."""
    shared_engines.clients, shared_engines.silent, shared_engines.separator = 0, False, ":"
    return shared_engines


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus.start(tmp_path_factory.mktemp("prometheus"))
    yield server
    server.stop()


@pytest.fixture
def gateway(prometheus: Prometheus, engines: Engines) -> Iterator[Engines]:
    """The engines as one gateway before all replicas, which Prometheus scrapes: to scrape them is to have a share."""
    prometheus.scrape("agent", engines.port)
    yield engines
    prometheus.scrape("agent")


@pytest.fixture(scope="module")
def operator(
    cluster: LocalCluster, shared_engines: Engines, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    options = ["--scrape-via", shared_engines.address, "--scrape-interval", "2s", "--bind-timeout", "8s"]
    options += ["--prometheus-url", prometheus.url, "--settle-time", "1s"]
    with one_operator(cluster, tmp_path_factory.mktemp("operator"), options) as running:
        yield running


@pytest.fixture
def team(cluster: LocalCluster, operator: OperatorProcess, engines: Engines) -> Iterator[ServingTeam]:
    made = ServingTeam.create(cluster, f"serve-{next(_numbers)}")
    yield made
    made.delete()

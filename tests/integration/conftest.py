"""One operator for each file; each test has a namespace of its own."""

import itertools
from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.jobs import Team
from kit.operators import one_operator

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def operator(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    options = ["--bind-timeout", "8s", "--settle-time", "6s", "--refusals-remembered", "25s"]
    with one_operator(cluster, tmp_path_factory.mktemp("operator"), options) as running:
        yield running


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, f"team-{next(_numbers)}")
    yield made
    made.delete()

"""One operator for each file, impatient enough for tests; each test has pools and a namespace of its own."""

import itertools
from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.burst import Cloud
from kit.jobs import Team
from kit.operators import one_operator

_numbers = itertools.count(1)

IMPATIENT = (
    *("--node-ready-within", "60s", "--node-gpus-within", "3s"),
    *("--orphan-after", "2s", "--capacity-backoff", "4s", "--burst-age", "2s"),
)


@pytest.fixture(scope="module")
def operator(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with one_operator(cluster, tmp_path_factory.mktemp("operator"), IMPATIENT) as running:
        yield running


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, f"burst-{next(_numbers)}")
    yield made
    made.delete()


@pytest.fixture
def cloud(team: Team, operator: OperatorProcess) -> Iterator[Cloud]:
    """Own H100 nodes, and a pool of simulated ones; after the test nothing of it is left."""
    made = Cloud(team.cluster)
    yield made
    team.empty()
    made.delete()

"""One operator for each file; each test has a namespace of its own."""

import itertools
from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from kit.jobs import Team

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def operator(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    started = OperatorProcess.start(cluster, "operator", log, ["--bind-timeout", "8s"])
    yield started
    started.stop()


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, f"team-{next(_numbers)}")
    yield made
    made.delete()

"""A cluster of its own for the tests that break things."""

from collections.abc import Iterator

import pytest
from hack.cluster import ClusterSpec, LocalCluster
from hack.installation import install

from conftest import CLUSTERS


@pytest.fixture(scope="package")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster.start(ClusterSpec.load(CLUSTERS / "test.yaml")) as started:
        install(started)
        yield started

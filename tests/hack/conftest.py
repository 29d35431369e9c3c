"""One small cluster for all the tests of the simulator."""

from collections.abc import Iterator

import pytest
from hack.cluster import ClusterSpec, LocalCluster

SMALL = ClusterSpec.parse(
    {
        "pools": [
            {"name": "h100", "nodes": 2, "gpu": "h100", "gpusPerNode": 8},
            {"name": "cpu", "nodes": 1},
        ],
        "nodeGraceSeconds": 12,
        "leaseSeconds": 12,
    }
)


@pytest.fixture(scope="session")
def small_spec() -> ClusterSpec:
    return SMALL


@pytest.fixture(scope="session")
def simulated() -> Iterator[LocalCluster]:
    with LocalCluster.start(SMALL) as cluster:
        yield cluster

"""One operator for each file, with volumes to bind, and the real agent over the NVML test library."""

import itertools
from collections.abc import Iterator

import pytest
from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

from agent.conftest import kubelet, nvml, nvml_library, world
from kit.desks import Desks, offer_volumes
from kit.jobs import Team
from kit.operators import one_operator

__all__ = ["kubelet", "nvml", "nvml_library", "world"]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def operator(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """Agents and Jupyter servers are believed for seconds here, not minutes; servers listen on loopback."""
    offer_volumes(cluster, 12)
    options = ["--bind-timeout", "8s", "--agent-silent-after", "5s"]
    options += ["--notebook-url", "http://127.0.0.1:{port}", "--notebook-interval", "1s"]
    with one_operator(cluster, tmp_path_factory.mktemp("operator"), options) as running:
        yield running


@pytest.fixture
def desks(cluster: LocalCluster, operator: OperatorProcess) -> Iterator[Desks]:
    team = Team.create(cluster, f"desks-{next(_numbers)}")
    made = Desks(team)
    yield made
    made.close()
    team.delete()
    cluster.kubectl("delete", "gpunodes", "--all", check=False)

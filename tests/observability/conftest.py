"""The agent's world, and a Prometheus that has loaded every alert."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.conftest import kubelet, nvml, nvml_library, world  # noqa: F401 - fixtures
from kit.prometheus import Prometheus

ALERTS = sorted((Path(__file__).parents[2] / "helm/stokehold/alerts").glob("*.yaml"))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus.start(tmp_path_factory.mktemp("prometheus"), ALERTS)
    yield server
    server.stop()

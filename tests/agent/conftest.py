"""One compiled NVML for the session, and a world around an agent for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.processes import FakeApiServer, World
from kit.nvml.driver import FakeNvml, build
from kit.pod_resources import FakeKubelet


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path) -> Iterator[FakeNvml]:
    with FakeNvml(nvml_library, tmp_path / "nvml.ctl") as fake:
        yield fake


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[FakeKubelet]:
    directory = tmp_path / "pr"
    directory.mkdir()
    with FakeKubelet(directory) as fake:
        yield fake


@pytest.fixture
def world(nvml: FakeNvml, kubelet: FakeKubelet, tmp_path: Path) -> Iterator[World]:
    api = FakeApiServer(tmp_path)
    made = World(tmp_path, nvml, kubelet, api, tmp_path / "proc", tmp_path / "logs")
    made.proc.mkdir()
    made.pod_logs.mkdir()
    yield made
    for agent in made.agents:
        agent.kill()
    api.close()

"""One cluster for the session, chosen by --target; each scenario has a namespace of its own."""

import itertools
import os
from collections.abc import Iterator

import e2e.targets as targets
import pytest
from e2e.user import User

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--target", choices=("local", "kind", "current"), default="local", help="the cluster to run the scenarios on"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[targets.Target]:
    match request.config.getoption("--target"):
        case "kind":
            opened = targets.kind(tmp_path_factory.mktemp("kind"))
        case "current":
            opened = targets.current()
        case _:
            opened = targets.local()
    with opened as found:
        yield found


@pytest.fixture
def user(target: targets.Target) -> Iterator[User]:
    made = User.create(target, f"stokehold-e2e-{os.getpid()}-{next(_numbers)}")
    yield made
    made.delete()

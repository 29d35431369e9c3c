"""One operator for the tests of a file, and what must not be in its log when they are over."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hack.cluster import LocalCluster
from hack.installation import OperatorProcess

_numbers = itertools.count(1)


@contextmanager
def one_operator(cluster: LocalCluster, folder: Path, options: Sequence[str] = ()) -> Iterator[OperatorProcess]:
    """Runs under the chart's service account; it ends without an error logged and without having lacked a right."""
    identity = f"operator-{next(_numbers)}"  # with one name, one that was left behind would take the Lease
    operator = OperatorProcess.start(cluster, identity, folder / "operator.log", options)
    try:
        yield operator
    finally:
        operator.stop()
    assert_clean(operator)


def assert_clean(operator: OperatorProcess) -> None:
    """No error in its log, and no right that its service account lacks."""
    assert operator.logged("error") == []
    lines = operator.log.read_text(errors="replace").splitlines()
    assert [line for line in lines if "cannot" in line and "system:serviceaccount" in line] == []

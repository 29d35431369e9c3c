"""Which clusters run on this machine: so that a dead test run's servers can be found and stopped."""

import contextlib
import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from hack.binaries import cache_folder
from hack.cluster.processes import Processes

OWNER_START_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One cluster that was started and not yet stopped."""

    name: str
    folder: Path
    ports: Mapping[str, int] = field(default_factory=dict)
    owner_pid: int | None = None  # None: it outlives the process that started it
    owner_started: float = 0.0

    def is_orphan(self) -> bool:
        """Whether the process that was to stop it is gone."""
        if self.owner_pid is None:
            return False
        try:
            started = psutil.Process(self.owner_pid).create_time()
        except psutil.Error:
            return True
        return abs(started - self.owner_started) > OWNER_START_TOLERANCE_SECONDS


def folder() -> Path:
    """Where the entries are."""
    return cache_folder() / "clusters"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One change at a time: two clusters that start together must not choose the same ports."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def entries() -> list[Entry]:
    """Every entry, by name."""
    found = []
    for path in sorted(folder().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            values = json.loads(path.read_text())
            found.append(Entry(**values | {"folder": Path(values["folder"])}))
    return found


def find(name: str) -> Entry | None:
    """The entry of this name."""
    return next((entry for entry in entries() if entry.name == name), None)


def write(entry: Entry) -> None:
    """Adds or replaces an entry."""
    values = dataclasses.asdict(entry) | {"folder": str(entry.folder), "ports": dict(entry.ports)}
    temporary = _path(entry.name).with_suffix(".new")
    temporary.write_text(json.dumps(values))
    temporary.rename(_path(entry.name))


def remove(name: str) -> None:
    """Forgets a cluster."""
    _path(name).unlink(missing_ok=True)


def clean(entry: Entry) -> None:
    """Stops what is left of a cluster by its pid files and removes its files."""
    Processes(entry.folder / "run").kill()
    shutil.rmtree(entry.folder, ignore_errors=True)
    remove(entry.name)


def _path(name: str) -> Path:
    return folder() / f"{name}.json"

"""Which pod a process runs in, from /proc and the kubelet's log directory. Reads, never writes.

Needs hostPID: the driver names processes as the host counts them. The log directory names pods by
`namespace_name_uid`, so that no right to read pods in the API is needed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stokehold.agent.attribution import ProcessOwner

# cgroup v1 and v2, cgroupfs and systemd drivers; the latter writes the UID with underscores.
_POD_UID = re.compile(
    r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})"
    r"(?=[./]|$)"
)


@dataclass(frozen=True, slots=True)
class _Process:
    """What stays true of a process; the start time tells it from a later one of the same pid."""

    started: str
    command: str
    pod_uid: str


class ProcessTable:
    """Remembers processes only as long as they hold a GPU."""

    def __init__(self, proc: Path, pod_logs: Path) -> None:
        self._proc = proc
        self._pod_logs = pod_logs
        self._known: dict[int, _Process] = {}

    def owners_of(self, pids: Iterable[int]) -> dict[int, ProcessOwner]:
        """The owner of each process that /proc shows; the others are left out."""
        pids = set(pids)
        current = {pid: process for pid in pids if (process := self._look_up(pid)) is not None}
        self._known = current
        names = self._pod_names() if any(p.pod_uid for p in current.values()) else {}
        return {
            pid: ProcessOwner(process.command, process.pod_uid, *names.get(process.pod_uid, ()))
            for pid, process in current.items()
        }

    def pod_uids(self) -> dict[tuple[str, str], str]:
        """The UID of each pod by namespace and name; a name with two UIDs is left out."""
        uids: dict[tuple[str, str], str] = {}
        doubtful = set()
        for uid, name in self._pod_names().items():
            if name in uids:
                doubtful.add(name)
            uids[name] = uid
        return {name: uid for name, uid in uids.items() if name not in doubtful}

    def boot_id(self) -> str:
        """The kernel's name for the present boot, empty when it does not say."""
        try:
            return (self._proc / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""

    def _look_up(self, pid: int) -> _Process | None:
        directory = self._proc / str(pid)
        try:
            # The command stands in brackets and may itself hold blanks and brackets.
            head, _, tail = _read(directory / "stat").rpartition(")")
            command, started = head.partition("(")[2], tail.split()[19]
            known = self._known.get(pid)
            if known is not None and known.started == started:
                return known
            match = _POD_UID.search(_read(directory / "cgroup"))
        except (OSError, IndexError):
            return None
        return _Process(started, command, match[1].replace("_", "-") if match else "")

    def _pod_names(self) -> dict[str, tuple[str, str]]:
        """Namespace and name by UID; neither may hold an underscore, so the split is exact."""
        try:
            entries = [entry.name.split("_") for entry in self._pod_logs.iterdir()]
        except OSError:
            return {}
        return {parts[2]: (parts[0], parts[1]) for parts in entries if len(parts) == 3}


def _read(file: Path) -> str:
    """Its text; a process names itself as it likes, and a long name is cut in the middle of a character."""
    return file.read_text(encoding="utf-8", errors="replace")

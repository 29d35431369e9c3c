"""Starts servers in sessions of their own and stops them by pid; it knows nothing of what they serve."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STOP_SECONDS = 5.0
KILL_SECONDS = 10.0
POLL_SECONDS = 0.05
LOG_TAIL_LINES = 15
# psutil derives a start time from the boot time, which moves a little with the clock.
START_TIME_TOLERANCE_SECONDS = 2.0


class ServerError(RuntimeError):
    """A server ended or did not become ready; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and which URL answers once it is ready."""

    name: str
    arguments: tuple[str, ...]
    ready_url: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Processes:
    """The servers of one cluster; their pid files let any later process stop them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, command: Command) -> None:
        """Runs a server, with its output in NAME.log."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log(command.name).open("ab") as log:
            child = subprocess.Popen(
                command.arguments,
                cwd=self._folder,
                env=dict(os.environ) | dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[command.name] = child
        started = psutil.Process(child.pid).create_time()
        self._pid_file(command.name).write_text(json.dumps({"pid": child.pid, "started": started}))

    def log(self, name: str) -> Path:
        """Where a server's output goes."""
        return self._folder / f"{name}.log"

    def pids(self) -> dict[str, int]:
        """The servers that run now."""
        return {name: process.pid for name, process in self._running().items()}

    def wait_ready(
        self, name: str, is_ready: Callable[[], bool], seconds: float, poll_seconds: float = POLL_SECONDS
    ) -> None:
        """Returns when the server answers; raises with its log when it ends or time runs out."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            if name not in self.pids():
                raise ServerError(f"{name} ended:\n{self._tail(name)}")
            if time.monotonic() > deadline:
                raise ServerError(f"{name} not ready after {seconds:.0f} s:\n{self._tail(name)}")
            time.sleep(poll_seconds)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to one running server."""
        process = self._running().get(name)
        if process is None:
            raise ServerError(f"{name} does not run")
        process.send_signal(number)

    def kill(self) -> None:
        """Ends every server at once: for a cluster whose data goes with it."""
        self._end(self._running(), grace_seconds=0.0)

    def stop(self, name: str) -> None:
        """Asks a server to end, and kills it when it does not."""
        running = self._running()
        if name in running:
            self._end({name: running[name]}, grace_seconds=STOP_SECONDS)

    def _end(self, chosen: Mapping[str, psutil.Process], grace_seconds: float) -> None:
        for process in chosen.values():
            _send(process, signal.SIGTERM)
            _send(process, signal.SIGCONT)  # a paused server would never see the other signal
        _, stubborn = psutil.wait_procs(list(chosen.values()), timeout=grace_seconds)
        for process in stubborn:
            _send(process, signal.SIGKILL)
        psutil.wait_procs(stubborn, timeout=KILL_SECONDS)
        for name in chosen:
            self._pid_file(name).unlink(missing_ok=True)
            if (child := self._children.pop(name, None)) is not None:
                child.wait(KILL_SECONDS)

    def _running(self) -> dict[str, psutil.Process]:
        found: dict[str, psutil.Process] = {}
        for path in sorted(self._folder.glob("*.pid")):
            if (process := _identify(path)) is not None:
                found[path.stem] = process
        return found

    def _pid_file(self, name: str) -> Path:
        return self._folder / f"{name}.pid"

    def _tail(self, name: str) -> str:
        with contextlib.suppress(OSError):
            lines = self.log(name).read_text(errors="replace").splitlines()
            return "\n".join(lines[-LOG_TAIL_LINES:])
        return ""


def _identify(pid_file: Path) -> psutil.Process | None:
    """The process that a pid file means: the pid alone may be another program's by now."""
    try:
        record = json.loads(pid_file.read_text())
        process = psutil.Process(record["pid"])
        is_same = abs(process.create_time() - record["started"]) < START_TIME_TOLERANCE_SECONDS
        if is_same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except (OSError, ValueError, KeyError, psutil.Error):
        pass
    return None


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)

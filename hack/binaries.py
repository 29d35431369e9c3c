"""Builds the control plane's binaries from pinned Go modules into the user's cache.

Each tool has a folder hack/tools/NAME with its own go.mod and go.sum: a shared one would raise
common dependencies to versions that no release was tested with. The pins, the flags and the Go
version name a build's folder in the cache, so a changed pin is a new build and an unchanged one
is a no-op.

    python -m hack.binaries              the default tools
    python -m hack.binaries kueue etcd   these only
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hack import go as toolchain
from hack.progress import Progress

TOOLS_FOLDER = Path(__file__).parent / "tools"
BUILD_TIMEOUT_SECONDS = 3600
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Tool:
    """One pinned module and the commands to build from it."""

    name: str  # the folder below hack/tools
    module: str  # whose version in go.mod is the tool's version
    commands: Mapping[str, str]  # binary: main package
    stamps: tuple[str, ...] = ()  # -X settings; {version}, {major} and {minor} are filled in
    tags: tuple[str, ...] = ()  # Go's build tags
    default: bool = True  # False: built only when asked for by name

    @property
    def folder(self) -> Path:
        """Where the pins are."""
        return TOOLS_FOLDER / self.name

    def version(self) -> str:
        """The pinned version, for example v1.36.2."""
        return pinned_version((self.folder / "go.mod").read_text(), self.module)

    def ldflags(self) -> str:
        """Stamps the version, or Kubernetes says v0.0.0; -s -w leave out the debugger's tables."""
        version = self.version()
        major, minor = version.removeprefix("v").split(".")[:2]
        stamps = (s.format(version=version, major=major, minor=minor) for s in self.stamps)
        return " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in stamps)])


COMPONENT_STAMPS = (
    "k8s.io/component-base/version.gitVersion={version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
)

TOOLS = (
    Tool(
        "etcd",
        "go.etcd.io/etcd/server/v3",
        {"etcd": "go.etcd.io/etcd/server/v3"},
    ),
    Tool(
        "kubernetes",
        "k8s.io/kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        },
        stamps=COMPONENT_STAMPS,
    ),
    Tool(
        "kwok",
        "sigs.k8s.io/kwok",
        {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
        stamps=("sigs.k8s.io/kwok/pkg/consts.Version={version}",),
    ),
    Tool(
        "helm",
        "helm.sh/helm/v4",
        {"helm": "helm.sh/helm/v4/cmd/helm"},
        stamps=("helm.sh/helm/v4/internal/version.version={version}",),
    ),
    Tool(
        "kueue",
        "sigs.k8s.io/kueue",
        {"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
        stamps=("sigs.k8s.io/kueue/pkg/version.GitVersion={version}",),
        default=False,
    ),
    Tool(
        "prometheus",
        "github.com/prometheus/prometheus",
        {name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")},
        stamps=("github.com/prometheus/common/version.Version={version}",),
        # Targets come from files here: without the clouds' SDKs a third less is compiled.
        tags=("remove_all_sd",),
        default=False,
    ),
)


class BuildError(RuntimeError):
    """A tool could not be built; the message has the end of Go's output."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where each built command is."""

    paths: Mapping[str, Path] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """The binary of this name."""
        try:
            return self.paths[name]
        except KeyError:
            raise BuildError(f"{name} was not asked for; there are {sorted(self.paths)}") from None


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """STOKEHOLD_CACHE, else stokehold in the user's cache directory."""
    if chosen := environment.get("STOKEHOLD_CACHE"):
        return Path(chosen).absolute()
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "stokehold"


def ensure(names: Iterable[str] = ()) -> Binaries:
    """The binaries of the named tools (none: the default ones), built when they are missing."""
    tools = choose(tuple(names))
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    missing: list[Tool] = []
    go: toolchain.Go | None = None
    for tool in tools:
        provided = from_assets(tool)
        paths |= provided
        if provided.keys() == tool.commands.keys():
            continue
        if go is None:
            with _lock(cache / "go.lock"):  # it may have to be installed into the cache
                go = toolchain.find(cache)
        folder = cache / "tools" / f"{tool.name}-{digest(tool, go.version)}"
        paths |= {name: folder / name for name in tool.commands if name not in provided}
        if not _is_complete(folder, tool.commands.keys() - provided.keys()):
            missing.append(tool)
    if missing and go is not None:
        with _lock(cache / "build.lock"):
            for tool in missing:
                _build(tool, go, {n: p for n, p in paths.items() if n in tool.commands})
    return Binaries(paths)


def choose(names: tuple[str, ...]) -> tuple[Tool, ...]:
    """The tools of these names, or the default ones."""
    if not names:
        return tuple(tool for tool in TOOLS if tool.default)
    known = {tool.name: tool for tool in TOOLS}
    if unknown := sorted(set(names) - known.keys()):
        raise BuildError(f"unknown tool {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(known[name] for name in names)


def pinned_version(go_mod: str, module: str) -> str:
    """The version that a go.mod requires of a module."""
    match = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise BuildError(f"go.mod does not require {module}")
    return match.group(1)


def digest(tool: Tool, go_version: str) -> str:
    """Names a build by all that goes into it: pins, Go version, flags."""
    content = hashlib.sha256()
    for part in ((tool.folder / "go.mod").read_bytes(), (tool.folder / "go.sum").read_bytes()):
        content.update(hashlib.sha256(part).digest())
    recipe = [go_version, tool.ldflags(), dict(tool.commands), *toolchain.BUILD_ENVIRONMENT.items(), *tool.tags]
    content.update(json.dumps(recipe).encode())
    return content.hexdigest()[:12]


def from_assets(tool: Tool) -> dict[str, Path]:
    """What KUBEBUILDER_ASSETS has of a tool in the right version; never all of Kubernetes."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return {}
    found: dict[str, Path] = {}
    for name in tool.commands:
        path = Path(assets).absolute() / name
        if not path.is_file():
            continue
        version = _version_of(path)
        if same_minor(version, tool.version()):
            found[name] = path
        else:
            print(f"{name}: {version or 'no version'} in KUBEBUILDER_ASSETS, {tool.version()} wanted")
    return found


def _version_of(path: Path) -> str | None:
    """The version that a binary reports of itself."""
    arguments = ["version", "--client"] if path.name == "kubectl" else ["--version"]
    try:
        output = subprocess.run([path, *arguments], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+\.\d+\.\d+\S*)", output)
    return match.group(1) if match else None


def same_minor(version: str | None, wanted: str) -> bool:
    """Whether two versions share major and minor: patches may differ, API fields may not."""
    if version is None:
        return False
    return version.lstrip("v").split(".")[:2] == wanted.lstrip("v").split(".")[:2]


def _is_complete(folder: Path, names: Iterable[str]) -> bool:
    """Whether every binary is there in the size that its build wrote down."""
    manifest = _manifest(folder)
    for name in names:
        path = folder / name
        if name not in manifest or not path.is_file():
            return False
        if path.stat().st_size != manifest[name]["size"]:
            return False
    return True


def _manifest(folder: Path) -> dict[str, dict[str, int | str]]:
    try:
        manifest: dict[str, dict[str, int | str]] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One build or installation at a time per cache; the kernel drops the lock when its holder dies."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build that uses this cache", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(tool: Tool, go: toolchain.Go, targets: Mapping[str, Path]) -> None:
    for name, path in targets.items():
        folder = path.parent
        # Checked again here, under the lock: another process may have built it meanwhile.
        if folder.name.startswith(f"{tool.name}-") and not _is_complete(folder, [name]):
            _build_one(tool, name, go, path)


def _build_one(tool: Tool, name: str, go: toolchain.Go, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{name}.unfinished")
    command: list[str | Path] = [
        go.command, "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false",
        "-tags", ",".join(tool.tags), "-ldflags", tool.ldflags(), "-o", unfinished, tool.commands[name],
    ]  # fmt: skip
    started = time.monotonic()
    with Progress(f"{name} {tool.version()}") as progress:
        tail = _run_build(command, tool.folder, go.environment(), progress)
        if tail is not None:
            raise BuildError(f"{name} did not build:\n{tail}")
        progress.done(f"built in {time.monotonic() - started:.0f} s")
    manifest = _manifest(path.parent)
    checksum = hashlib.sha256(unfinished.read_bytes()).hexdigest()
    manifest[name] = {"size": unfinished.stat().st_size, "sha256": checksum}
    unfinished.rename(path)
    (path.parent / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def _run_build(command: list[str | Path], folder: Path, environment: dict[str, str], progress: Progress) -> str | None:
    """Runs Go and counts the packages that it names; the end of its output when it fails."""
    packages = downloads = 0
    tail: list[str] = []
    deadline = time.monotonic() + BUILD_TIMEOUT_SECONDS
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            tail = [*tail[-30:], line]
            if line.startswith("go: downloading"):
                downloads += 1
            else:
                packages += 1
            progress.say(f"{downloads} modules fetched, {packages} packages compiled")
            if time.monotonic() > deadline:
                process.kill()
    return "".join(tail) if process.returncode != 0 else None


def main() -> int:
    """The command line of `make binaries`."""
    parser = argparse.ArgumentParser(description="Build the local cluster's binaries.")
    parser.add_argument("tools", nargs="*", help="default: all but those built on demand")
    parser.add_argument("--list", action="store_true", help="say where each binary is")
    arguments = parser.parse_args()
    try:
        binaries = ensure(arguments.tools)
    except (BuildError, toolchain.NoGoError) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.list:
        for name, path in sorted(binaries.paths.items()):
            print(f"{name}\t{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line of `make cluster-up` and `make cluster-down`."""

import os
import sys
import time
from pathlib import Path

import click

from hack.binaries import BuildError
from hack.cluster import registry
from hack.cluster.local import LocalCluster
from hack.cluster.processes import Processes, ServerError
from hack.cluster.spec import ClusterSpec, SpecError
from hack.go import NoGoError

DEFAULT_NAME = "local"
DEFAULT_SPEC = Path(__file__).parent.parent / "clusters" / "demo.yaml"


@click.group()
def main() -> None:
    """A local control plane with simulated GPU nodes."""


@main.command()
@click.argument("description", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="Several can run at once.")
def up(description: Path | None, name: str) -> None:
    """Start a cluster (hack/clusters/demo.yaml); the last line is the KUBECONFIG to export."""
    try:
        running = LocalCluster.attach(name)
        if running is not None:
            click.echo(f"{name} is up already")
        else:
            running = _start(name, ClusterSpec.load(description or DEFAULT_SPEC))
    except (BuildError, NoGoError, ServerError, SpecError, FileExistsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"export KUBECONFIG={running.kubeconfig}")


def _start(name: str, spec: ClusterSpec) -> LocalCluster:
    started = time.monotonic()
    nodes = sum(pool.nodes for pool in spec.pools)
    click.echo(f"starting {name}: {nodes} nodes, {spec.gpus} GPUs")
    cluster = LocalCluster.start(spec, name, registry.folder() / "state" / name, stays=True)
    click.echo(f"{name} is up at {cluster.url} after {time.monotonic() - started:.1f} s")
    return cluster


@main.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True)
@click.option("--all", "is_all", is_flag=True, help="Every cluster, even one whose tests still run.")
def down(name: str, *, is_all: bool) -> None:
    """Stop a cluster, and those whose starter has died, by pid; remove their state."""
    with registry.locked():
        for entry in registry.entries():
            if is_all or entry.name == name or entry.is_orphan():
                registry.clean(entry)
                click.echo(f"{entry.name} is down")


@main.command("list")
def list_() -> None:
    """Show the clusters of this machine."""
    for entry in registry.entries():
        pids = Processes(entry.folder / "run").pids()
        state = "orphan" if entry.is_orphan() else "up" if pids else "dead"
        click.echo(f"{entry.name}\t{state}\t{len(pids)} processes\t{entry.folder}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())

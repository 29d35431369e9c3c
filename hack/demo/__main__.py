"""Runs the demo's scenarios and says of each step whether it came true."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from hack import wheel
from hack.cluster import ClusterSpec, LocalCluster, registry
from hack.demo import burst, idle, serving, training
from hack.demo.show import Board, picture
from hack.demo.stage import Stage, StepFailedError, expect
from hack.engines import Engines
from hack.installation import OperatorProcess, install
from hack.simulated_agent import SimulatedAgent

NAME = "demo"
SPEC = Path(__file__).parent.parent / "clusters" / "demo.yaml"
Step = Callable[[Stage], str]
SCENARIOS: Mapping[str, Sequence[Step]] = {
    "training": training.SCENARIO,
    "burst": burst.SCENARIO,
    "serving": serving.SCENARIO,
    "idle": idle.SCENARIO,
}


def main() -> int:
    """Play the scenario that SCENARIO names, or all; 0 if every step came true."""
    console = Console() if sys.stdout.isatty() else Console(width=110, soft_wrap=True)
    wanted = os.environ.get("SCENARIO", "")
    if wanted and wanted not in SCENARIOS:
        console.print(f"SCENARIO={wanted} is not known; choose one of {', '.join(SCENARIOS)}, or leave it out for all")
        return 2
    began = time.monotonic()
    stage = _set_the_stage(console)
    try:
        steps = [step for name, scenario in SCENARIOS.items() if wanted in ("", name) for step in scenario]
        steps.append(nothing_was_refused)
        with Board(console, stage):
            failed = play(steps, stage, console)
        console.print(picture(stage))
        verdict = "FAILED" if failed else "all steps came true"
        console.print(f"{len(steps)} steps in {time.monotonic() - began:.0f} s: {verdict}")
        return 1 if failed else 0
    finally:
        _leave(stage, console)


def nothing_was_refused(stage: Stage) -> str:
    """All of it with the rights of the chart's service accounts: no request was answered with 403."""
    refused = stage.cluster.refused_requests() - stage.refused_before
    expect(refused == 0, f"{refused} requests were refused")
    errors = stage.operator.logged("error")
    expect(not errors, f"the operator's log has {len(errors)} errors; the first: {errors[:1]}")
    return "and the operator's log has no error"


def play(steps: Sequence[Step], stage: Stage, console: Console) -> int:
    """Run the steps in order; the number that failed. Later steps build on earlier ones, so the first one ends it."""
    for step in steps:
        title = (step.__doc__ or step.__name__).strip().rstrip(".")
        began = time.monotonic()
        try:
            detail = step(stage)
        except (StepFailedError, RuntimeError, OSError, KeyError) as error:
            console.print(f"[red]FAILED[/red] {escape(title)}\n       {escape(str(error))}")
            console.print(escape(stage.operator.tail(15)))
            return 1
        console.print(f"[green]ok[/green]     {escape(title)} ({time.monotonic() - began:.1f} s)")
        console.print(f"       {escape(detail)}", style="dim")
    return 0


def _set_the_stage(console: Console) -> Stage:
    spec = ClusterSpec.load(SPEC)
    console.print(f"a control plane with {sum(pool.nodes for pool in spec.pools)} nodes and {spec.gpus} simulated GPUs")
    with registry.locked():
        for entry in registry.entries():
            if entry.name == NAME:
                registry.clean(entry)  # what an earlier KEEP=1 has left
    cluster = LocalCluster.start(spec, NAME, registry.folder() / "state" / NAME, stays=True)
    engines = Engines.start(serving.CLIENTS_PER_REPLICA)
    try:
        install(cluster)
        program = wheel.install(cluster.kubeconfig.parent.parent / "wheel")
        refused = cluster.refused_requests()
        options = [
            "--scrape-via",
            engines.address,
            "--scrape-interval",
            f"{serving.SCRAPE_SECONDS}s",
            "--agent-silent-after",
            "5s",
        ]
        operator = OperatorProcess.start(cluster, options=options, program=[str(program)])
    except BaseException:
        engines.stop()
        cluster.stop()
        raise
    console.print(f"Stokehold, installed from its wheel, runs beside it as process {operator.pid}")
    return Stage(cluster, operator, engines, SimulatedAgent([str(program)]), program, refused)


def _leave(stage: Stage, console: Console) -> None:
    stage.engines.stop()
    stage.agent.stop()
    if os.environ.get("KEEP"):
        console.print("Left running. Look around:")
        console.print(f"  export KUBECONFIG={stage.cluster.kubeconfig}")
        console.print("  .venv/bin/stokehold why tj/impossible -n team-a; kubectl get tj,pods -n team-a -o wide")
        console.print(f"  tail -f {stage.operator.log}")
        console.print(f"Stop it with: kill {stage.operator.pid}; make cluster-down NAME={NAME}")
        return
    stage.operator.stop()
    stage.cluster.stop()


if __name__ == "__main__":
    sys.exit(main())

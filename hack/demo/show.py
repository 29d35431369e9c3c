"""What people see: a live table on a terminal, plain lines elsewhere."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hack.demo.stage import Stage

COLOURS = {"Running": "green", "Succeeded": "blue", "Failed": "red", "Pending": "yellow", "Restarting": "magenta"}
BAR_CELLS = 40
GPU = "nvidia.com/gpu"


def job_table(jobs: Sequence[dict[str, Any]]) -> Table:
    """One row a job: where it stands, and why."""
    table = Table(title="TrainingJobs", title_justify="left", expand=True)
    for name in ("job", "phase", "nodes x GPUs", "attempt", "on / why"):
        table.add_column(name, overflow="fold")
    for job in jobs:
        spec, status = job["spec"], job.get("status", {})
        phase = status.get("phase", "new")
        queue, placement = status.get("queue", {}), status.get("placement", {})
        told = f"{queue['reason']}: {queue['message']}" if queue else ", ".join(placement.get("nodes", ()))
        shape = f"{spec.get('numNodes', 1)} x {spec.get('gpusPerNode', 1)}"
        colour = COLOURS.get(phase, "white")
        attempt = str(status.get("attempt", ""))
        table.add_row(job["metadata"]["name"], Text(phase, style=colour), shape, attempt, told)
    return table


def serving_table(pools: Sequence[dict[str, Any]]) -> Table:
    """One row a serving pool: how many replicas, and why as many."""
    table = Table(title="InferencePools", title_justify="left", expand=True)
    for name in ("pool", "phase", "ready", "desired", "why"):
        table.add_column(name, overflow="fold")
    for pool in pools:
        status = pool.get("status", {})
        decided = (status.get("decisions") or [{}])[-1]
        why = f"{decided.get('reason', '')}: {decided.get('message', '')}"
        counts = (str(status.get(name, 0)) for name in ("readyReplicas", "desiredReplicas"))
        table.add_row(pool["metadata"]["name"], status.get("phase", "new"), *counts, why)
    return table


def pool_bars(nodes: Sequence[dict[str, Any]], pods: Sequence[dict[str, Any]]) -> Table:
    """One bar a GPU product: used and free."""
    has: Counter[str] = Counter()
    used: Counter[str] = Counter()
    product_of = {}
    for node in nodes:
        product = node["metadata"]["labels"].get("nvidia.com/gpu.product", "")
        product_of[node["metadata"]["name"]] = product
        has[product] += int(node["status"]["allocatable"].get(GPU, 0))
    for pod in pods:
        if pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            used[product_of.get(pod["spec"]["nodeName"], "")] += _gpus(pod)
    bars = Table.grid(padding=(0, 2))
    for product in sorted(has):
        full = round(BAR_CELLS * used[product] / has[product]) if has[product] else 0
        bar = Text("█" * full, style="green") + Text("░" * (BAR_CELLS - full), style="dim")
        bars.add_row(product, bar, f"{used[product]} of {has[product]} GPUs")
    return bars


class Board:
    """Redraws the tables while the steps run; without a terminal it draws nothing."""

    def __init__(self, console: Console, stage: Stage) -> None:
        self._console = console
        self._stage = stage
        self._done = threading.Event()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._thread = threading.Thread(target=self._redraw, daemon=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._live is not None:
            self._thread.join(5)
            self._live.stop()

    def _redraw(self) -> None:
        while self._live is not None and not self._done.wait(0.5):
            try:
                self._live.update(picture(self._stage), refresh=True)
            except (RuntimeError, KeyError, ValueError):
                time.sleep(0.5)  # the namespace is not there yet


def picture(stage: Stage) -> Group:
    """Jobs, serving pools and GPUs as they are now."""
    tables = [job_table(stage.jobs())] if stage.jobs() else []
    if pools := stage.serving_pools():
        tables.append(serving_table(pools))
    return Group(*tables, pool_bars(stage.nodes(), stage.pods()))


def _gpus(pod: dict[str, Any]) -> int:
    limits = (container.get("resources", {}).get("limits", {}) for container in pod["spec"]["containers"])
    return sum(int(limit.get(GPU, 0)) for limit in limits)

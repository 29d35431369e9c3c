"""The loop that asks Jupyter servers, beside the cycles: no server's silence ever holds up a plan."""

import asyncio
from collections.abc import Callable

from stokehold.cluster.notebooks import NotebookProber
from stokehold.model.snapshot import Notebook, Snapshot
from stokehold.observability import logs, metrics

log = logs.get("notebooks")


async def ask(
    prober: NotebookProber, read: Callable[[], Snapshot], wake: Callable[[], None], interval_seconds: float
) -> None:
    """One round each interval, until cancelled; a round that fails leaves old answers, which grow stale."""
    while True:
        try:
            answers = await prober.round(read().workspaces.values())
        except Exception:
            log.exception("round failed")
            answers = []
        for answer in answers:
            metrics.NOTEBOOK_PROBES.labels(_outcome(answer)).inc()
        if answers:
            wake()
        await asyncio.sleep(interval_seconds)


def _outcome(answer: Notebook) -> str:
    if answer.error:
        return "unknown"
    return "busy" if answer.busy_kernels else "idle"

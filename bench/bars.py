"""The bars of the admission benchmark, and whether a run has reached them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

MANY_JOBS = 3000


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure and its limit."""

    load: str
    what: str
    measured: float
    limit: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def bars(results: Mapping[str, Mapping[str, Any]]) -> Iterator[Bar]:
    """The bars of each load; `results` are the benchmark's, by load."""
    for load, found in results.items():
        ours, single = found["ours"], found["pods_per_job"] == 1
        least = 0.65 if not single else 1.1 if found["jobs"] >= MANY_JOBS else 0.9
        yield Bar(load, "rate to plain Jobs'", ours["rate_ratio"], least, at_least=True)
        yield Bar(load, "API-server CPU to plain Jobs'", ours["api_cpu_ratio"], 1.0, at_least=False)
        if single:
            yield Bar(load, "writes for one job", ours["writes_per_job"], 10.0, at_least=False)
        if "rate_ratio_to_kueue" in ours:
            yield Bar(load, "rate to Kueue's", ours["rate_ratio_to_kueue"], 2.5, at_least=True)


def table(reached: list[Bar]) -> Table:
    """One row a bar, for people."""
    shown = Table("load", "what", "measured", "bar", title="bars", title_justify="left")
    for bar in reached:
        colour, sign = "green" if bar.holds else "red", ">=" if bar.at_least else "<="
        shown.add_row(bar.load, bar.what, f"[{colour}]{bar.measured:.3g}[/]", f"{sign} {bar.limit:g}")
    return shown

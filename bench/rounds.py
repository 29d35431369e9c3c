"""Runs of a load and what they are compared by: each rival with its plain neighbours."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.measuring import Reading

LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Load:
    """So many gangs of so many one-GPU pods."""

    gangs: int
    size: int


@dataclass(frozen=True, slots=True)
class Result:
    """One run of a load."""

    seconds: float
    reading: Reading
    load: Load

    @property
    def rate(self) -> float:
        """Finished gangs a second."""
        return self.load.gangs / self.seconds

    @property
    def api_cpu_ms(self) -> float:
        """CPU of the API server for one gang."""
        return 1000 * self.reading.cpu_seconds["kube-apiserver"] / self.load.gangs

    @property
    def writes(self) -> float:
        """Writes for one gang."""
        return sum(self.reading.writes.values()) / self.load.gangs


@dataclass(slots=True)
class Rounds:
    """The rounds of one load: per rival its runs, each with the plain runs before and after it."""

    load: Load
    tries: int = 0
    steady: list[dict[str, tuple[Result, Result, Result]]] = field(default_factory=list)
    unsteady: list[dict[str, tuple[Result, Result, Result]]] = field(default_factory=list)

    @property
    def counted(self) -> list[dict[str, tuple[Result, Result, Result]]]:
        """The steady rounds; where the machine never gave enough of them, all."""
        return self.steady if len(self.steady) >= LEAST_ROUNDS else self.steady + self.unsteady

    def ratio(self, who: str, value: Callable[[Result], float]) -> float:
        """The median over rounds of a rival's figure to the mean of its plain neighbours'."""
        ratios = [
            value(mine) / statistics.mean((value(left), value(right)))
            for left, mine, right in (counted[who] for counted in self.counted)
        ]
        return statistics.median(ratios)

    def median(self, who: str, value: Callable[[Result], float]) -> float:
        """The median of a rival's own figure."""
        return statistics.median(value(counted[who][1]) for counted in self.counted)

    def plain(self, value: Callable[[Result], float]) -> float:
        """The median of plain Jobs' figure."""
        runs = [run for counted in self.counted for left, _, right in counted.values() for run in (left, right)]
        return statistics.median(value(run) for run in runs)

"""How fast jobs run through: plain Jobs against TrainingJobs, side by side on one real control plane.

Pods are simulated, run for a second and succeed; everything else is real and shares the machine's cores. Rounds are
interleaved (plain, ours, plain, ours, ..., plain) and each of ours is compared with the mean of its two neighbours;
where those differ by more than 15 % the machine was busy with something else and the round is repeated. Medians count.

A gang of ours has a headless Service, the plain Indexed Job beside it has none: that write is in our figures.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from hack.cluster import ClusterSpec, LocalCluster
from hack.installation import OperatorProcess, install
from rich.console import Console
from rich.table import Table

from bench.measuring import Reading, read
from stokehold.cluster.client import KubeApi
from stokehold.cluster.informers import Informer
from stokehold.cluster.resources import TRAINING_JOBS, Resource
from stokehold.cluster.wire import Condition, Metadata

JOBS = Resource("batch", "v1", "jobs", "Job", True)
NAMESPACE = "bench"
CREATORS = 20
MOST_DRIFT = 0.15
RUN_FOR = {"sim.stokehold.dev/run-for": "1s"}
POD_RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}}
console = Console(width=120)


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


class Status(msgspec.Struct):
    """How far a job is, of either kind."""

    phase: str = ""
    conditions: list[Condition] = []


class Watched(msgspec.Struct):
    """A job of either kind."""

    metadata: Metadata
    status: Status = msgspec.field(default_factory=Status)


class Finish:
    """Hears of jobs and knows when all have succeeded; a failed one ends the benchmark."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._done: set[str] = set()
        self.reached = asyncio.Event()

    def on_upsert(self, key: tuple[str, str], old: Watched | None, new: Watched) -> None:
        """Count it if it is over."""
        complete = any(c.type == "Complete" and c.status == "True" for c in new.status.conditions)
        if complete or new.status.phase == "Succeeded":
            self._done.add(new.metadata.name)
        if len(self._done) >= self._expected:
            self.reached.set()

    def on_delete(self, key: tuple[str, str], old: Watched) -> None:
        """Not before the end."""


def plain_job(index: int, size: int) -> dict[str, Any]:
    """A Job, indexed if it is a gang."""
    container = {"name": "main", "image": "registry.local/train:1", "resources": _with_gpu()}
    template = {
        "metadata": {"annotations": RUN_FOR},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    gang = {"completions": size, "parallelism": size, "completionMode": "Indexed"} if size > 1 else {}
    spec = {"backoffLimit": 0, "template": template, **gang}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"job-{index}"}, "spec": spec}


def training_job(index: int, size: int) -> dict[str, Any]:
    """The same as a TrainingJob."""
    spec = {
        "image": "registry.local/train:1",
        "numNodes": size,
        "resources": POD_RESOURCES,
        "podTemplate": {"metadata": {"annotations": RUN_FOR}},
    }
    return {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": f"job-{index}"},
        "spec": spec,
    }


def _with_gpu() -> dict[str, Any]:
    return {"requests": POD_RESOURCES["requests"], "limits": {"nvidia.com/gpu": "1"}}


class Bench:
    """A cluster, an operator, and runs of loads on them."""

    def __init__(self, cluster: LocalCluster, operator: OperatorProcess, api: KubeApi) -> None:
        self._cluster = cluster
        self._operator = operator
        self._api = api

    async def run(self, resource: Resource, make: Callable[[int, int], dict[str, Any]], load: Load) -> Result:
        """Create everything at once and wait until all have succeeded."""
        await self._empty()
        finish = Finish(load.gangs)
        informer = Informer(
            self._api, resource, wire=Watched, convert=lambda raw: raw, listener=finish, namespace=NAMESPACE
        )
        watching = asyncio.create_task(informer.run())
        await informer.wait_synced()
        processes = {"operator": self._operator.pid}
        before = await asyncio.to_thread(read, self._cluster, processes)
        began = time.monotonic()
        await self._create(resource, make, load)
        async with asyncio.timeout(600):
            await finish.reached.wait()
        seconds = time.monotonic() - began
        await asyncio.sleep(1)  # what trails behind, finalizers for one, is part of the price
        after = await asyncio.to_thread(read, self._cluster, processes)
        watching.cancel()
        return Result(seconds, after.since(before), load)

    async def _create(self, resource: Resource, make: Callable[[int, int], dict[str, Any]], load: Load) -> None:
        numbers = iter(range(load.gangs))

        async def creator() -> None:
            for index in numbers:
                await self._api.create(resource, make(index, load.size), NAMESPACE)

        await asyncio.gather(*(creator() for _ in range(CREATORS)))

    async def _empty(self) -> None:
        """Delete what the run before has left, and wait until it is gone and the garbage collector is at rest."""
        base = f"namespaces/{NAMESPACE}"
        for path in (
            f"/apis/batch/v1/{base}/jobs?propagationPolicy=Background",
            f"/apis/stokehold.dev/v1alpha1/{base}/trainingjobs?propagationPolicy=Background",
            f"/api/v1/{base}/pods?gracePeriodSeconds=0",
            f"/api/v1/{base}/events",
        ):
            await asyncio.to_thread(self._cluster.kubectl, "delete", "--raw", path)
        while await asyncio.to_thread(  # noqa: ASYNC110 - kubectl has no event to wait for
            self._cluster.kubectl, "-n", NAMESPACE, "get", "pods,jobs,tj,services", "-o", "name"
        ):
            await asyncio.sleep(1)
        await asyncio.sleep(3)


async def compare(bench: Bench, load: Load, rounds: int) -> dict[str, Any]:
    """Interleaved rounds of one load; prints them and returns the medians."""
    what = f"{load.gangs} jobs of {load.size} pod{'s' if load.size > 1 else ''}"
    plain = [await bench.run(JOBS, plain_job, load)]
    ours: list[Result] = []
    neighbours: list[tuple[Result, Result]] = []
    tries = 0
    while len(ours) < rounds and tries < 2 * rounds + 2:
        tries += 1
        mine = await bench.run(TRAINING_JOBS, training_job, load)
        plain.append(await bench.run(JOBS, plain_job, load))
        left, right = plain[-2:]
        drift = abs(left.rate - right.rate) / min(left.rate, right.rate)
        verdict = "repeated: plain Jobs drifted" if drift > MOST_DRIFT else "ok"
        console.print(
            f"{what}, try {tries}: plain {left.rate:.1f} and {right.rate:.1f}/s, ours {mine.rate:.1f}/s  {verdict}"
        )
        if drift <= MOST_DRIFT:
            ours.append(mine)
            neighbours.append((left, right))
    if not ours:
        raise SystemExit("no round was steady enough to count: the machine is too busy")
    show(what, plain[-1], ours[-1])
    return {
        "jobs": load.gangs,
        "pods_per_job": load.size,
        "rounds": len(ours),
        "plain_rate": round(statistics.median(r.rate for pair in neighbours for r in pair), 1),
        "rate": round(statistics.median(r.rate for r in ours), 1),
        "rate_ratio": _ratio(ours, neighbours, lambda r: r.rate),
        "api_cpu_ms_per_job": round(statistics.median(r.api_cpu_ms for r in ours), 2),
        "api_cpu_ratio": _ratio(ours, neighbours, lambda r: r.api_cpu_ms),
        "writes_per_job": round(statistics.median(r.writes for r in ours), 2),
        "plain_writes_per_job": round(statistics.median(r.writes for pair in neighbours for r in pair), 2),
    }


def _ratio(ours: list[Result], neighbours: list[tuple[Result, Result]], value: Callable[[Result], float]) -> float:
    ratios = [
        value(mine) / statistics.mean((value(left), value(right)))
        for mine, (left, right) in zip(ours, neighbours, strict=True)
    ]
    return round(statistics.median(ratios), 3)


def show(what: str, plain: Result, ours: Result) -> None:
    """Writes by object and verb and CPU by process, of the last runs."""
    table = Table(title=f"{what}: writes for one job", title_justify="left")
    for name in ("object", "verb", "plain", "ours"):
        table.add_column(name, justify="right" if name in ("plain", "ours") else "left")
    for key in sorted(plain.reading.writes.keys() | ours.reading.writes.keys()):
        numbers = [run.reading.writes[key] / run.load.gangs for run in (plain, ours)]
        if max(numbers) >= 0.01:
            table.add_row(*key, *(f"{number:.2f}" for number in numbers))
    table.add_row("all", "", f"{plain.writes:.2f}", f"{ours.writes:.2f}")
    console.print(table)
    table = Table(title=f"{what}: CPU milliseconds for one job", title_justify="left")
    for name in ("process", "plain", "ours"):
        table.add_column(name, justify="left" if name == "process" else "right")
    for name in ours.reading.cpu_seconds:
        numbers = [1000 * run.reading.cpu_seconds[name] / run.load.gangs for run in (plain, ours)]
        table.add_row(name, *(f"{number:.1f}" for number in numbers))
    console.print(table)


async def measure(cluster: LocalCluster, operator: OperatorProcess, loads: list[Load], rounds: int) -> dict[str, Any]:
    """All loads."""
    api = await KubeApi.connect(kubeconfig=str(cluster.kubeconfig), qps=2000, burst=4000, user_agent="bench")
    try:
        bench = Bench(cluster, operator, api)
        warm_up = Load(100, 1)
        await bench.run(JOBS, plain_job, warm_up)
        await bench.run(TRAINING_JOBS, training_job, warm_up)
        return {f"{load.gangs}x{load.size}": await compare(bench, load, rounds) for load in loads}
    finally:
        await api.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default="1000x1,300x4", help="jobs x pods, comma-separated")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    loads = [Load(*map(int, text.split("x"))) for text in arguments.loads.split(",")]
    pods = max(load.gangs * load.size for load in loads)
    pool = {"name": "gpu", "nodes": max(32, -(-pods * 5 // 4 // 8)), "gpu": "h100", "gpusPerNode": 8}
    spec = ClusterSpec.parse({"leaseSeconds": 100, "pools": [pool]})
    with LocalCluster.start(spec) as cluster:
        install(cluster)
        cluster.kubectl("create", "namespace", NAMESPACE)
        operator = OperatorProcess.start(
            cluster, "bench", options=["--kube-api-qps", "500", "--kube-api-burst", "1000"]
        )
        try:
            results = asyncio.run(measure(cluster, operator, loads, arguments.rounds))
        finally:
            operator.stop()
    console.print()
    print(json.dumps({"bench": "admission", **results}))


if __name__ == "__main__":
    main()

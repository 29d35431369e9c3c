"""How fast jobs run through: TrainingJobs against plain Jobs, and against Kueue's, on one real control plane.

Pods are simulated, run for a second and succeed; everything else is real and shares the machine's cores. Rounds are
interleaved (plain, ours, plain, ours, ..., plain) and each is compared with the mean of the plain runs before and
after it; where those differ by more than 15 % the machine was busy with something else and the round is repeated.
Medians of the ratios count. Each run has a namespace of its own, emptied and deleted outside the measured time.

The operator runs all the time, as it does in a cluster that has both; its share of a plain run is printed. A gang of
ours has a headless Service, by which its workers find each other; its Endpoints and EndpointSlice are a quarter of its
writes. So a gang of plain Jobs is what does the same: an Indexed Job with the same Service. `--bare-gangs` leaves the
Service out of the plain ones.

    python -m bench.admission                          1,000 one-GPU jobs, then 300 gangs of 4
    python -m bench.admission --jobs 3000 --gangs 0 --kueue
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from hack.cluster import ClusterSpec, LocalCluster
from hack.installation import OperatorProcess, install
from rich.console import Console
from rich.table import Table

from bench.bars import bars, table
from bench.contenders import BARE, KUEUE, OURS, PLAIN, Contender
from bench.kueue import Kueue
from bench.measuring import read
from bench.rounds import LEAST_ROUNDS, Load, Result, Rounds
from stokehold.cluster.client import KubeApi
from stokehold.cluster.errors import NotFoundError
from stokehold.cluster.informers import Informer
from stokehold.cluster.resources import NAMESPACES, Resource
from stokehold.cluster.wire import Condition, Metadata

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True)
CREATORS = 20
MOST_DRIFT = 0.15
STABLE = 0.04
"""Medians are stable when the latest round has moved them by less than this share."""
console = Console(width=120)


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
        self.failed = ""
        self.reached = asyncio.Event()

    def on_upsert(self, key: tuple[str, str], old: Watched | None, new: Watched) -> None:
        """Count it if it is over."""
        true = {condition.type for condition in new.status.conditions if condition.status == "True"}
        if "Complete" in true or new.status.phase == "Succeeded":
            self._done.add(new.metadata.name)
        elif "Failed" in true or new.status.phase == "Failed":
            self.failed = new.metadata.name
        if self.failed or len(self._done) >= self._expected:
            self.reached.set()

    def on_delete(self, key: tuple[str, str], old: Watched) -> None:
        """Not before the end."""


class Bench:
    """A cluster, an operator, perhaps Kueue, and runs of loads on them."""

    def __init__(
        self, cluster: LocalCluster, operator: OperatorProcess, api: KubeApi, plain: Contender, kueue: Kueue | None
    ) -> None:
        self.plain = plain
        self._cluster = cluster
        self._operator = operator
        self._api = api
        self._kueue = kueue
        self._runs = 0

    @property
    def rivals(self) -> tuple[Contender, ...]:
        """Who is measured beside plain Jobs."""
        return (OURS, KUEUE) if self._kueue else (OURS,)

    async def run(self, who: Contender, load: Load) -> Result:
        """Create everything at once and wait until all have succeeded, in a namespace of its own."""
        self._runs += 1
        namespace = f"bench-{self._runs}"
        await self._add_namespace(namespace)
        try:
            if who is not KUEUE or self._kueue is None:
                return await self._measure(who, load, namespace, {"operator": self._operator.pid})
            with self._kueue.running():
                self._kueue.admit(namespace)
                pids = {"operator": self._operator.pid, "kueue": self._kueue.pid}
                try:
                    return await self._measure(who, load, namespace, pids)
                finally:
                    await self._empty(namespace)  # while Kueue is there to take its finalizers off
        finally:
            await self._remove_namespace(namespace)

    async def _measure(self, who: Contender, load: Load, namespace: str, processes: dict[str, int]) -> Result:
        finish = Finish(load.gangs)
        informer = Informer(
            self._api, who.resource, wire=Watched, convert=lambda raw: raw, listener=finish, namespace=namespace
        )
        watching = asyncio.create_task(informer.run())
        await informer.wait_synced()
        before = await asyncio.to_thread(read, self._cluster, processes)
        began = time.monotonic()
        await self._create(who, load, namespace)
        async with asyncio.timeout(600):
            await finish.reached.wait()
        seconds = time.monotonic() - began
        if finish.failed:
            raise SystemExit(f"{finish.failed} of {who.name} has failed")
        await asyncio.sleep(1)  # what trails behind, finalizers for one, is part of the price
        after = await asyncio.to_thread(read, self._cluster, processes)
        watching.cancel()
        return Result(seconds, after.since(before), load)

    async def _create(self, who: Contender, load: Load, namespace: str) -> None:
        numbers = iter(range(load.gangs))

        async def creator() -> None:
            for index in numbers:
                for resource, manifest in who.make(index, load.size):
                    await self._api.create(resource, manifest, namespace)

        await asyncio.gather(*(creator() for _ in range(CREATORS)))

    async def _add_namespace(self, name: str) -> None:
        await self._api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        async with asyncio.timeout(60):
            while not await self._has_service_account(name):  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.1)

    async def _has_service_account(self, namespace: str) -> bool:
        try:
            await self._api.get(SERVICE_ACCOUNTS, "default", namespace)
        except NotFoundError:
            return False
        return True

    async def _empty(self, namespace: str) -> None:
        """Delete what a run has left, and wait until it is gone."""
        base = f"namespaces/{namespace}"
        for path in (
            f"/apis/batch/v1/{base}/jobs?propagationPolicy=Background",
            f"/apis/stokehold.dev/v1alpha1/{base}/trainingjobs?propagationPolicy=Background",
            f"/api/v1/{base}/pods?gracePeriodSeconds=0",
            f"/api/v1/{base}/services",
            f"/api/v1/{base}/events",
        ):
            await self._kubectl("delete", "--raw", path)
        async with asyncio.timeout(300):
            listing = ("-n", namespace, "get", "pods,jobs,tj,services", "-o", "name")
            while await self._kubectl(*listing):  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(1)

    async def _remove_namespace(self, name: str) -> None:
        await self._empty(name)
        await self._kubectl("delete", "namespace", name, "--wait", "--timeout=120s")
        await asyncio.sleep(2)  # the garbage collector comes to rest

    async def _kubectl(self, *arguments: str) -> str:
        return await asyncio.to_thread(self._cluster.kubectl, *arguments)


def rate(result: Result) -> float:
    """Finished jobs a second."""
    return result.rate


def api_cpu_ms(result: Result) -> float:
    """CPU of the API server for one job."""
    return result.api_cpu_ms


def writes(result: Result) -> float:
    """Writes for one job."""
    return result.writes


async def compare(bench: Bench, load: Load, most_rounds: int, until: float) -> dict[str, Any]:
    """Interleaved rounds of one load until the medians are stable or time is up; prints them."""
    what = describe(load)
    rounds = Rounds(load)
    plain = await bench.run(bench.plain, load)
    last: tuple[float, float] | None = None
    while True:
        before, began = plain, time.monotonic()
        runs = {who.name: await bench.run(who, load) for who in bench.rivals}
        plain = await bench.run(bench.plain, load)
        rounds.tries += 1
        drift = abs(before.rate - plain.rate) / min(before.rate, plain.rate)
        round_ = {name: (before, run, plain) for name, run in runs.items()}
        (rounds.steady if drift <= MOST_DRIFT else rounds.unsteady).append(round_)
        shown = ", ".join(f"{name} {run.rate:.1f}/s" for name, run in runs.items())
        verdict = "ok" if drift <= MOST_DRIFT else f"repeated: plain Jobs moved by {drift:.0%}"
        console.print(f"{what}, try {rounds.tries}: plain {before.rate:.1f} and {plain.rate:.1f}/s, {shown}  {verdict}")
        now = (rounds.ratio(OURS.name, rate), rounds.ratio(OURS.name, api_cpu_ms))
        stable = last is not None and all(abs(a - b) <= STABLE * b for a, b in zip(now, last, strict=True))
        last = now
        enough = len(rounds.steady) >= LEAST_ROUNDS and (stable or len(rounds.steady) >= most_rounds)
        if enough or time.monotonic() + (time.monotonic() - began) > until:
            break
    show(what, {"plain": plain, **runs})
    return summarize(rounds, bench.rivals)


def describe(load: Load) -> str:
    """A load in words."""
    return f"{load.gangs} gangs of {load.size}" if load.size > 1 else f"{load.gangs} one-GPU jobs"


def summarize(rounds: Rounds, rivals: tuple[Contender, ...]) -> dict[str, Any]:
    """What counts, as plain data."""
    found: dict[str, Any] = {
        "jobs": rounds.load.gangs,
        "pods_per_job": rounds.load.size,
        "rounds": len(rounds.counted),
        "tries": rounds.tries,
        "steady": len(rounds.steady) >= LEAST_ROUNDS,
        "plain": {
            "rate": round(rounds.plain(rate), 1),
            "api_cpu_ms_per_job": round(rounds.plain(api_cpu_ms), 1),
            "writes_per_job": round(rounds.plain(writes), 2),
        },
    }
    for who in rivals:
        found[who.name] = {
            "rate": round(rounds.median(who.name, rate), 1),
            "rate_ratio": round(rounds.ratio(who.name, rate), 3),
            "api_cpu_ms_per_job": round(rounds.median(who.name, api_cpu_ms), 1),
            "api_cpu_ratio": round(rounds.ratio(who.name, api_cpu_ms), 3),
            "writes_per_job": round(rounds.median(who.name, writes), 2),
        }
    if KUEUE in rivals:
        against = [counted[OURS.name][1].rate / counted[KUEUE.name][1].rate for counted in rounds.counted]
        found["ours"]["rate_ratio_to_kueue"] = round(statistics.median(against), 2)
    return found


def show(what: str, runs: dict[str, Result]) -> None:
    """Writes by object and verb and CPU by process, of the last runs."""
    table = Table(title=f"{what}: writes for one job", title_justify="left")
    table.add_column("object")
    table.add_column("verb")
    for name in runs:
        table.add_column(name, justify="right")
    for key in sorted({key for run in runs.values() for key in run.reading.writes}):
        numbers = [run.reading.writes[key] / run.load.gangs for run in runs.values()]
        if max(numbers) >= 0.01:
            table.add_row(*key, *(f"{number:.2f}" for number in numbers))
    table.add_row("all", "", *(f"{run.writes:.2f}" for run in runs.values()))
    console.print(table)
    table = Table(title=f"{what}: CPU milliseconds for one job", title_justify="left")
    table.add_column("process")
    for name in runs:
        table.add_column(name, justify="right")
    for process in {process: None for run in runs.values() for process in run.reading.cpu_seconds}:
        seconds = [run.reading.cpu_seconds.get(process, 0.0) / run.load.gangs for run in runs.values()]
        table.add_row(process, *(f"{1000 * second:.1f}" for second in seconds))
    totals = [sum(run.reading.cpu_seconds.values()) / run.load.gangs for run in runs.values()]
    table.add_row("all", *(f"{1000 * total:.1f}" for total in totals))
    console.print(table)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and for how long at most."""

    loads: tuple[Load, ...]
    rounds: int
    minutes: float
    with_kueue: bool
    bare_gangs: bool

    @property
    def nodes(self) -> int:
        """Nodes of 8 GPUs, so many that nothing waits."""
        return max(32, -(-max(load.gangs * load.size for load in self.loads) * 5 // 4 // 8))


async def measure(cluster: LocalCluster, operator: OperatorProcess, plan: Plan) -> dict[str, Any]:
    """All loads, each with its share of the time."""
    kueue = None
    if plan.with_kueue:
        kueue = Kueue(cluster)
        await asyncio.to_thread(kueue.install, 8 * plan.nodes)
    api = await KubeApi.connect(kubeconfig=str(cluster.kubeconfig), qps=2000, burst=4000, user_agent="bench")
    try:
        bench = Bench(cluster, operator, api, BARE if plan.bare_gangs else PLAIN, kueue)
        for who in (bench.plain, *bench.rivals):
            await bench.run(who, Load(100, 1))  # warm up
        results = {}
        for load in plan.loads:
            until = time.monotonic() + 60 * plan.minutes / len(plan.loads)
            results[f"{load.gangs}x{load.size}"] = await compare(bench, load, plan.rounds, until)
        return results
    finally:
        await api.close()


def parse() -> Plan:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="one-GPU jobs in a run; 0 for none")
    parser.add_argument("--gangs", type=int, default=300, help="gangs in a run; 0 for none")
    parser.add_argument("--size", type=int, default=4, help="pods of a gang")
    parser.add_argument("--rounds", type=int, default=5, help="most steady rounds; stable medians end it earlier")
    parser.add_argument("--minutes", type=float, default=14, help="no round begins that would end later than this")
    parser.add_argument("--kueue", action="store_true", help="measure Kueue-labelled Jobs too (builds Kueue once)")
    parser.add_argument("--bare-gangs", action="store_true", help="plain gangs without a headless Service")
    arguments = parser.parse_args()
    loads = (Load(arguments.jobs, 1), Load(arguments.gangs, arguments.size))
    chosen = tuple(load for load in loads if load.gangs)
    if not chosen:
        parser.error("nothing to measure")
    return Plan(chosen, arguments.rounds, arguments.minutes, arguments.kueue, arguments.bare_gangs)


def main() -> int:
    """Run it; 0 if every bar was reached in steady rounds."""
    plan = parse()
    pool = {"name": "gpu", "nodes": plan.nodes, "gpu": "h100", "gpusPerNode": 8}
    with LocalCluster.start(ClusterSpec.parse({"leaseSeconds": 100, "pools": [pool]})) as cluster:
        install(cluster)
        options = ["--kube-api-qps", "500", "--kube-api-burst", "1000"]
        operator = OperatorProcess.start(cluster, "bench", options=options)
        try:
            results = asyncio.run(measure(cluster, operator, plan))
        finally:
            operator.stop()
    reached = list(bars(results))
    console.print(table(reached))
    steady = all(found["steady"] for found in results.values())
    if not steady:
        console.print(f"The machine was too busy: fewer than {LEAST_ROUNDS} rounds of a load were steady; run it again")
    passed = steady and all(bar.holds for bar in reached)
    print(json.dumps({"bench": "admission", "passed": passed, **results}))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())

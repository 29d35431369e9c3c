"""How long one planning cycle takes on large clusters that never existed, and what memory it costs.

A cluster starts half full; each cycle freezes it, plans, and carries the plan out on the indexes themselves: pods
appear, statuses are stored, some running work ends. So the cycles go from a cluster with room, in which hundreds of
gangs start at once, to a full one in which every waiting job is told why. Each scenario has a process of its own,
whose highest resident memory counts. The bars are for these two sizes; others are for curiosity.
"""

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.kit.world import World

from stokehold.api.v1alpha1.gpu_queue import GPUQueueSpec
from stokehold.controllers import memory
from stokehold.model.actions import AdmitJob, Placement
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Job, Namespace, Node, Queue
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

GPU = "nvidia.com/gpu"
PRODUCTS = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB", "NVIDIA-L40S")
TYPES = ((), ("h100",), ("h100", "a100-80gb"), ("l40s",))
TOPOLOGIES = (None, None, {"preferred": "rack"}, {"required": "rack"})
SIZES = (1, 1, 1, 1, 2, 4, 8, 16)
NODES_PER_RACK = 20
NAMESPACES = 40
DAEMONS = 3
SETTINGS = SchedulingSettings()
TICK = timedelta(seconds=5)
console = Console(width=120)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The size of a cluster and its queue, and the bar for the 99th percentile of a plan."""

    nodes: int
    pending: int
    bar_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """One scenario; times in milliseconds."""

    nodes: int
    pending: int
    shapes: int
    cycles: int
    admitted: int
    plan_p50_ms: float
    plan_p99_ms: float
    snapshot_p50_ms: float
    snapshot_p99_ms: float
    rss_mib: float
    bar_ms: float
    passed: bool


SCENARIOS = (Scenario(500, 4_000, 500.0), Scenario(5_000, 20_000, 5_000.0))
MOST_RSS_MIB = 1024.0


class Synthetic(World):
    """A large cluster whose pods run as soon as they are created."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        super().__init__(datetime(2026, 1, 1, 12, tzinfo=UTC), instant=True)
        self._random = random.Random(seed)
        self._add_queues()
        self._add_nodes(scenario.nodes)
        self._fill_half(scenario.nodes)
        self.carry_out(list(plan_scheduling(self.snapshot(), SETTINGS)))  # what runs is known to run
        self._add_pending(scenario.pending)

    def pass_time(self, ending: int) -> None:
        """The clock goes on, and so many of the running gangs succeed."""
        self.now += TICK
        running = [pods for pods in self.cluster.pods.by_owner.values() if not next(iter(pods.values())).is_over]
        for pods in self._random.sample(running, min(ending, len(running))):
            for pod in list(pods.values()):
                self.end_pod(pod, "Succeeded")

    def _add_queues(self) -> None:
        for i in range(NAMESPACES):
            name = f"team-{i}"
            labels = {"kubernetes.io/metadata.name": name}
            spec = GPUQueueSpec.model_validate({"namespaces": {"matchLabels": labels}})
            self.add_namespace(Namespace(name, labels))
            self.add_queue(
                Queue(
                    name=f"q-{i}",
                    uid=f"uid-q-{i}",
                    resource_version="1",
                    generation=1,
                    created_at=self.now,
                    spec=spec,
                )
            )

    def _add_nodes(self, count: int) -> None:
        amounts = {GPU: 8, "cpu": 192_000, "memory": 2**41, "ephemeral-storage": 2**42, "pods": 110}
        for i in range(count):
            name = f"node-{i:05}"
            labels = {
                "kubernetes.io/hostname": name,
                "nvidia.com/gpu.product": PRODUCTS[i * len(PRODUCTS) // count],
                "topology.kubernetes.io/rack": f"rack-{i // NODES_PER_RACK}",
            }
            self.add_node(Node(name, labels, amounts, amounts))
            for daemon in range(DAEMONS):
                key = ("kube-system", f"daemon-{daemon}-{name}")
                pod = Pod(*key, f"uid-{key[1]}", "Running", {"cpu": 250, "memory": 2**28, "pods": 1}, name, bound=True)
                self.add_pod(pod)

    def _fill_half(self, count: int) -> None:
        """Each node's GPUs are taken with probability one half, in pieces of one to eight."""
        for i in range(count):
            taken = 0
            while taken < 8 and self._random.random() < 0.6:
                gpus = min(8 - taken, self._random.choice((1, 2, 4, 8)))
                taken += gpus
                job = self._apply(f"old-{i}-{taken}", {"gpusPerNode": gpus})
                place = Placement("pool", "type", "on-prem", GPU, (f"node-{i:05}",))
                self.carry_out([AdmitJob(job, 1, 0, place, missing=(0,))])

    def _add_pending(self, count: int) -> None:
        pick = self._random.choice
        for i in range(count):
            size = pick(SIZES)
            amounts = {"cpu": str(pick((4, 8, 12, 16))), "memory": f"{pick((16, 32, 64, 96, 128))}Gi"}
            gpus = 8 if size > 1 else pick((1, 1, 2, 4, 8))
            fields: dict[str, Any] = {
                "gpusPerNode": gpus,
                "numNodes": size,
                "gpuTypes": pick(TYPES),
                "resources": {"requests": amounts},
            }
            if size > 1 and (topology := pick(TOPOLOGIES)):
                fields["topology"] = topology
            self._apply(f"job-{i}", fields)

    def _apply(self, name: str, fields: dict[str, Any]) -> Job:
        age = timedelta(seconds=self._random.randrange(10, 100_000))
        return self.add_job(f"team-{self._random.randrange(NAMESPACES)}", name, fields, self.now - age)


def measure(scenario: Scenario, cycles: int, seed: int) -> Result:
    """Run one scenario in this process."""
    world = Synthetic(scenario, seed)
    shapes = {(job.demand.gpus, job.demand.requests, job.demand.gpu_types) for job in world.jobs.values()}
    memory.settle()  # as the operator does
    times = list(_cycles(world, cycles, ending=scenario.pending // 200))
    snapshots = [snapshot for snapshot, _, _ in times]
    plans = [plan for _, plan, _ in times]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worst = _percentile(plans, 99)
    return Result(
        nodes=scenario.nodes,
        pending=scenario.pending,
        shapes=len(shapes),
        cycles=cycles,
        admitted=sum(admitted for _, _, admitted in times),
        plan_p50_ms=round(statistics.median(plans), 1),
        plan_p99_ms=round(worst, 1),
        snapshot_p50_ms=round(statistics.median(snapshots), 1),
        snapshot_p99_ms=round(_percentile(snapshots, 99), 1),
        rss_mib=round(rss, 1),
        bar_ms=scenario.bar_ms,
        passed=worst < scenario.bar_ms and rss < MOST_RSS_MIB,
    )


def _cycles(world: Synthetic, count: int, ending: int) -> Iterator[tuple[float, float, int]]:
    for _ in range(count):
        began = time.perf_counter()
        snapshot = world.snapshot()
        frozen = time.perf_counter()
        actions = list(plan_scheduling(snapshot, SETTINGS))
        planned = time.perf_counter()
        admitted = world.carry_out(actions)
        world.pass_time(ending)
        yield 1000 * (frozen - began), 1000 * (planned - frozen), admitted


def _percentile(values: list[float], percent: int) -> float:
    """The smallest value that so many percent of all do not exceed: with few values, the largest."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def _show(results: list[Result]) -> None:
    table = Table(
        "nodes", "pending", "shapes", "cycles", "started", "plan p50", "plan p99", "bar", "snapshot p99", "RSS"
    )
    for r in results:
        colour = "green" if r.passed else "red"
        times = (f"{r.plan_p50_ms:.0f} ms", f"[{colour}]{r.plan_p99_ms:.0f} ms[/]", f"{r.bar_ms:.0f} ms")
        sizes = (r.nodes, r.pending, r.shapes, r.cycles, r.admitted)
        table.add_row(*(f"{size:,}" for size in sizes), *times, f"{r.snapshot_p99_ms:.0f} ms", f"{r.rss_mib:.0f} MiB")
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=30, help="planning cycles in each scenario (default 30)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="only the scenario with this many nodes")
    arguments = parser.parse_args()
    results = []
    for scenario in SCENARIOS:
        if arguments.only in (None, scenario.nodes):
            with multiprocessing.get_context("spawn").Pool(1) as process:  # memory is counted by process
                results.append(process.apply(measure, (scenario, arguments.cycles, arguments.seed)))
    _show(results)
    passed = all(result.passed for result in results)
    print(json.dumps({"bench": "planner", "passed": passed, "scenarios": [asdict(result) for result in results]}))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())

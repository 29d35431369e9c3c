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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from stokehold.api.v1alpha1.gpu_queue import GPUQueueSpec
from stokehold.api.v1alpha1.training_job import TrainingJobSpec, TrainingJobStatus
from stokehold.cluster.snapshots import Cluster
from stokehold.model import names
from stokehold.model.actions import (
    Action,
    AdmitJob,
    DeletePod,
    FinishJob,
    ReleasePod,
    WriteStatus,
)
from stokehold.model.demand import demand_of
from stokehold.model.snapshot import Job, Namespace, Node, Pod, Queue, Resources, Worker
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


class World:
    """A cluster that carries plans out at once; the stand-in for API server, kube-scheduler and kubelets."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.cluster = Cluster(lambda: None, lambda: self.now)
        self.running: list[Job] = []
        self._random = random.Random(seed)
        self._pods: dict[tuple[str, str], Pod] = {}
        self._add_queues()
        self._add_nodes(scenario.nodes)
        self._fill_half(scenario.nodes)
        self.carry_out(list(plan_scheduling(self.cluster.snapshot(), SETTINGS)))  # what runs is known to run
        self._add_pending(scenario.pending)

    def carry_out(self, actions: list[Action]) -> int:
        """What the API server would make of the plan; returns how many gangs started."""
        admitted = 0
        for action in actions:
            match action:
                case AdmitJob():
                    admitted += 1
                    self._start(action)
                case WriteStatus():
                    if isinstance(action.subject, Job):
                        self._store(action.subject, action.status)
                case FinishJob():
                    self._store(replace(action.job, proof=action.proof), action.status or {})
                case ReleasePod() | DeletePod():
                    self._forget(action.pod)
                case _:
                    pass  # this world has jobs alone
        return admitted

    def pass_time(self, ending: int) -> None:
        """The clock goes on, and so many of the running gangs succeed."""
        self.now += TICK
        self._random.shuffle(self.running)
        for job in (self.running.pop() for _ in range(min(ending, len(self.running)))):
            for pod in list(self.cluster.pods.by_owner.get(job.uid, {}).values()):
                self._keep(replace(pod, phase="Succeeded", finished_at=self.now, exit_code=0))

    def _add_queues(self) -> None:
        for i in range(NAMESPACES):
            name = f"team-{i}"
            labels = {"kubernetes.io/metadata.name": name}
            spec = GPUQueueSpec.model_validate({"namespaces": {"matchLabels": labels}})
            self.cluster.namespaces.on_upsert(("", name), None, Namespace(name, labels))
            self.cluster.queues.on_upsert(("", f"q-{i}"), None, Queue(f"q-{i}", f"uid-q-{i}", spec))

    def _add_nodes(self, count: int) -> None:
        amounts = {GPU: 8, "cpu": 192_000, "memory": 2**41, "ephemeral-storage": 2**42, "pods": 110}
        for i in range(count):
            name = f"node-{i:05}"
            labels = {
                "kubernetes.io/hostname": name,
                "nvidia.com/gpu.product": PRODUCTS[i * len(PRODUCTS) // count],
                "topology.kubernetes.io/rack": f"rack-{i // NODES_PER_RACK}",
            }
            self.cluster.nodes.on_upsert(("", name), None, Node(name, labels, amounts, amounts))
            for daemon in range(DAEMONS):
                key = ("kube-system", f"daemon-{daemon}-{name}")
                pod = Pod(*key, f"uid-{key[1]}", "Running", {"cpu": 250, "memory": 2**28, "pods": 1}, name, bound=True)
                self._keep(pod)

    def _fill_half(self, count: int) -> None:
        """Each node's GPUs are taken with probability one half, in pieces of one to eight."""
        for i in range(count):
            taken = 0
            while taken < 8 and self._random.random() < 0.6:
                gpus = min(8 - taken, self._random.choice((1, 2, 4, 8)))
                taken += gpus
                job = self._job(f"old-{i}-{taken}", {"gpusPerNode": gpus})
                self._keep(self._worker(job, 0, 1, (f"node-{i:05}",), GPU))
                self.running.append(job)

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
            self._job(f"job-{i}", fields)

    def _job(self, name: str, fields: dict[str, Any]) -> Job:
        spec = TrainingJobSpec.model_validate({"image": "registry.local/train:1", **fields})
        job = Job(
            namespace=f"team-{self._random.randrange(NAMESPACES)}",
            name=name,
            uid=f"uid-{name}",
            resource_version="1",
            generation=1,
            created_at=self.now - timedelta(seconds=self._random.randrange(10, 100_000)),
            spec=spec,
            status=TrainingJobStatus(),
            demand=demand_of(spec),
        )
        self.cluster.jobs.on_upsert(job.key, None, job)
        return job

    def _start(self, action: AdmitJob) -> None:
        nodes = action.placement.nodes
        for index in action.missing:
            self._keep(self._worker(action.job, index, action.attempt, nodes, action.placement.gpu_resource))
        self.running.append(action.job)

    def _worker(self, job: Job, index: int, attempt: int, nodes: tuple[str, ...], gpu: str) -> Pod:
        requests: Resources = {**dict(job.demand.requests), gpu: job.demand.gpus}
        name = names.pod_name(job.name, attempt, index)
        worker = Worker(job.name, attempt, index, len(nodes), 0, "pool", "type", "on-prem", () if index else nodes)
        return Pod(
            namespace=job.namespace,
            name=name,
            uid=f"uid-{name}",
            phase="Running",
            requests=requests,
            node=nodes[index],
            bound=True,
            owner_uid=job.uid,
            worker=worker,
            tracked=True,
            created_at=self.now,
            started_at=self.now,
        )

    def _store(self, job: Job, status: dict[str, Any]) -> None:
        stored = replace(job, status=TrainingJobStatus.model_validate(status), pods=())
        self.cluster.jobs.on_upsert(job.key, job, stored)

    def _keep(self, pod: Pod) -> None:
        self.cluster.pods.on_upsert(pod.key, self._pods.get(pod.key), pod)
        self._pods[pod.key] = pod

    def _forget(self, pod: Pod) -> None:
        if known := self._pods.pop(pod.key, None):
            self.cluster.pods.on_delete(pod.key, known)


def measure(scenario: Scenario, cycles: int, seed: int) -> Result:
    """Run one scenario in this process."""
    world = World(scenario, seed)
    shapes = {
        (job.demand.gpus, job.demand.requests, job.demand.gpu_types) for job in world.cluster.jobs.values.values()
    }
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


def _cycles(world: World, count: int, ending: int) -> Iterator[tuple[float, float, int]]:
    for _ in range(count):
        began = time.perf_counter()
        snapshot = world.cluster.snapshot()
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

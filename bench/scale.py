"""A large cluster that is already there: how soon the operator is ready, what it holds, what idling costs, and ghosts.

1,000 simulated nodes and 2,000 bound pods on a real control plane; then the operator starts as a process of its own.
While it idles it is asked as a kubelet and a Prometheus ask it. For the ghosts its watches break, are not allowed to
go on from where they were, and pods and nodes are deleted meanwhile: its view, by its own metrics, must be right again
after it has listed anew. Bars: ready in 10 s, 250 MiB resident at the most, 5 % of a core idle, no ghost.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import psutil
from hack.cluster import ClusterSpec, LocalCluster
from hack.fault_proxy import FaultProxy
from hack.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install
from rich.console import Console
from rich.table import Table

from stokehold.cluster.client import KubeApi
from stokehold.cluster.resources import NODES, PODS

READY_BAR_SECONDS, RSS_BAR_MIB, CPU_BAR_PERCENT = 10.0, 250.0, 5.0
GHOST_BAR_SECONDS = 30.0
PROBE_SECONDS, SCRAPE_SECONDS = 10, 15
"""How often a kubelet asks for readiness, and a Prometheus for metrics."""
GPUS_PER_NODE = 8
POOL = "gpu"
AT_ONCE = 50
FILL_SECONDS = 300
MIB = 1 << 20
console = Console(width=120)


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured."""

    nodes: int
    pods: int
    ready_seconds: float
    rss_mib: float
    idle_seconds: float
    idle_cpu_percent: float
    ghosts: int
    ghosts_gone_seconds: float | None
    """From when the server could be asked again; None when they never went."""

    def bars(self) -> list[tuple[str, str, str, bool]]:
        """What, how much, the bar, and whether it holds."""
        gone = self.ghosts_gone_seconds
        return [
            ("ready", f"{self.ready_seconds:.1f} s", f"{READY_BAR_SECONDS:.0f} s", self.ready_seconds < 10),
            ("RSS, highest", f"{self.rss_mib:.0f} MiB", f"{RSS_BAR_MIB:.0f} MiB", self.rss_mib < RSS_BAR_MIB),
            (
                f"CPU of a core, idle for {self.idle_seconds:.0f} s",
                f"{self.idle_cpu_percent:.1f} %",
                f"{CPU_BAR_PERCENT:.0f} %",
                self.idle_cpu_percent < CPU_BAR_PERCENT,
            ),
            (
                f"{self.ghosts} ghosts gone after the relist",
                "never" if gone is None else f"{gone:.1f} s",
                f"{GHOST_BAR_SECONDS:.0f} s",
                gone is not None,
            ),
        ]


def pod_name(index: int) -> str:
    return f"there-{index:05}"


def node_name(index: int) -> str:
    return f"{POOL}-{index}"


def a_pod(index: int, nodes: int) -> dict[str, Any]:
    """A pod with one GPU that is bound already, so that no scheduler is needed."""
    resources = {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"nvidia.com/gpu": "1"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod_name(index), "labels": {"app": "there"}},
        "spec": {
            "nodeName": node_name(index % nodes),
            "containers": [{"name": "main", "image": "registry.local/train:1", "resources": resources}],
        },
    }


async def at_once(calls: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Make all calls, a bounded number at a time."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def make(call: Callable[[], Awaitable[object]]) -> None:
        async with slots:
            await call()

    await asyncio.gather(*(make(call) for call in calls))


async def with_api(cluster: LocalCluster, work: Callable[[KubeApi], Awaitable[None]]) -> None:
    """Do something as administrator."""
    api = await KubeApi.connect(kubeconfig=str(cluster.kubeconfig), qps=2000, burst=4000, user_agent="bench")
    try:
        await work(api)
    finally:
        await api.close()


def fill(cluster: LocalCluster, nodes: int, pods: int) -> None:
    """Create the pods and wait until they run: from then on nothing happens by itself."""

    async def create(api: KubeApi) -> None:
        await at_once(partial(api.create, PODS, a_pod(i, nodes), "default") for i in range(pods))

    async def run(api: KubeApi) -> None:
        for _ in range(FILL_SECONDS):
            if b'"phase":"Pending"' not in await api.list_page(PODS, namespace="default", limit=None):
                return
            await asyncio.sleep(1)
        raise RuntimeError("the pods do not run")

    asyncio.run(with_api(cluster, create))
    asyncio.run(with_api(cluster, run))


def idle(operator: OperatorProcess, seconds: float) -> tuple[float, float]:
    """Percent of a core, and MiB resident at the most, while nobody but probes and scrapes asks for anything."""
    process = psutil.Process(operator.pid)
    highest = process.memory_info().rss
    before, began = process.cpu_times(), time.monotonic()
    for second in range(1, round(seconds) + 1):
        time.sleep(max(0.0, began + second - time.monotonic()))
        if second % PROBE_SECONDS == 0:
            operator.get("/readyz")
        if second % SCRAPE_SECONDS == 0:
            operator.get("/metrics")
        highest = max(highest, process.memory_info().rss)
    after, took = process.cpu_times(), time.monotonic() - began
    used = after.user + after.system - before.user - before.system
    return 100 * used / took, highest / MIB


@dataclass(frozen=True, slots=True)
class Ghosts:
    """What is deleted behind the operator's back: some nodes, and the pods on them and on others."""

    pods: tuple[str, ...]
    nodes: tuple[str, ...]

    @classmethod
    def of(cls, nodes: int, pods: int) -> "Ghosts":
        """The pods of a quarter of all nodes, and a hundredth of all nodes."""
        emptied, gone = nodes // 4, nodes // 100
        return cls(tuple(pod_name(i) for i in range(pods) if i % nodes < emptied), tuple(map(node_name, range(gone))))

    async def delete(self, api: KubeApi) -> None:
        """Pods first, at once; kwok's nodes need no more."""
        await at_once(partial(api.delete, PODS, name, namespace="default", grace_seconds=0) for name in self.pods)
        await at_once(partial(api.delete, NODES, name) for name in self.nodes)


def banish(cluster: LocalCluster, proxy: FaultProxy, operator: OperatorProcess, ghosts: Ghosts) -> float | None:
    """Delete them while the watches are broken; seconds until the operator knows, None if it never does."""
    used, allocatable = gpus(operator, "used"), gpus(operator, "allocatable")
    right = (used - len(ghosts.pods), allocatable - GPUS_PER_NODE * len(ghosts.nodes))
    stopped = proxy.refuse(lambda call: call.is_watch, 410)
    held = proxy.hold(lambda call: call.method == "GET" and call.resource in ("pods", "nodes"))
    proxy.cut_watches()
    wait(lambda: {call.resource for call in held.caught} == {"pods", "nodes"})
    asyncio.run(with_api(cluster, ghosts.delete))
    if (gpus(operator, "used"), gpus(operator, "allocatable")) != (used, allocatable):
        raise RuntimeError("the watches were not broken: the operator knows already")
    proxy.end(stopped)
    proxy.end(held)
    began = time.monotonic()
    if wait(lambda: (gpus(operator, "used"), gpus(operator, "allocatable")) == right):
        return time.monotonic() - began
    return None


def measure(cluster: LocalCluster, nodes: int, pods: int, seconds: float) -> Result:
    """All of it, on a cluster whose nodes are there."""
    console.print(f"creating {pods:,} pods on {nodes:,} nodes")
    fill(cluster, nodes, pods)
    operator = OperatorProcess(cluster, "scale", cluster.kubeconfig.parent.parent / "scale.log")
    began = time.monotonic()
    operator.restart(wait=False)
    try:
        operator.wait_ready()
        ready = time.monotonic() - began
        wait(lambda: operator.metric("stokehold_leader") == 1)
        console.print(f"ready in {ready:.1f} s; idling for {seconds:.0f} s")
        cpu, rss = idle(operator, seconds)
    finally:
        operator.stop()
    ghosts = Ghosts.of(nodes, pods)
    console.print(f"breaking the watches while {len(ghosts.pods)} pods and {len(ghosts.nodes)} nodes go")
    with FaultProxy.start(cluster, "scale") as proxy:
        direct = cluster.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        operator = OperatorProcess.start(cluster, "ghosts", kubeconfig=proxy.kubeconfig(direct))
        try:
            gone = banish(cluster, proxy, operator, ghosts)
        finally:
            operator.stop()
    return Result(
        nodes=nodes,
        pods=pods,
        ready_seconds=round(ready, 2),
        rss_mib=round(rss, 1),
        idle_seconds=seconds,
        idle_cpu_percent=round(cpu, 2),
        ghosts=len(ghosts.pods) + len(ghosts.nodes),
        ghosts_gone_seconds=None if gone is None else round(gone, 2),
    )


def gpus(operator: OperatorProcess, state: str) -> float:
    """What the operator believes, over all pools."""
    return operator.metric("stokehold_gpus", state=state)


def wait(holds: Callable[[], bool]) -> bool:
    """Whether it held in time."""
    deadline = time.monotonic() + GHOST_BAR_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _show(result: Result) -> None:
    table = Table(
        "what", "measured", "bar", title=f"{result.nodes:,} nodes, {result.pods:,} pods", title_justify="left"
    )
    for what, measured, bar, holds in result.bars():
        table.add_row(what, f"[{'green' if holds else 'red'}]{measured}[/]", bar)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--pods", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=60, help="how long to idle (default 60)")
    arguments = parser.parse_args()
    pool = {"name": POOL, "nodes": arguments.nodes, "gpu": "h100", "gpusPerNode": GPUS_PER_NODE}
    with LocalCluster.start(ClusterSpec.parse({"leaseSeconds": 100, "pools": [pool]})) as cluster:
        install(cluster)
        result = measure(cluster, arguments.nodes, arguments.pods, arguments.seconds)
    _show(result)
    passed = all(holds for *_, holds in result.bars())
    print(json.dumps({"bench": "scale", "passed": passed, **asdict(result)}))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())

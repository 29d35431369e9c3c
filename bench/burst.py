"""Burst on a real control plane: how soon nodes are claimed for a gang that is short of them, and what is paid in vain.

All own nodes are held. One after the other, gangs of 4x8 come with a trigger age of nothing; the simulated provider
refuses some nodes by script, so that purchases are taken back and made in the next zone. One gang more can never start:
its pool delivers one node fewer than it needs. Seconds count from before the job is created until all its claims are
seen, looked for every 20 ms; paid is each simulated node from its creation until it is seen no more. Bars: 2 s at p99,
and 1 % of the paid GPU-minutes for gangs that never start.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from hack.cluster import ClusterSpec, LocalCluster
from hack.installation import OperatorProcess, install
from rich.console import Console
from rich.table import Table

from stokehold.cluster.client import KubeApi
from stokehold.cluster.resources import GPU_NODE_CLAIMS, NODES, TRAINING_JOBS, Resource
from stokehold.providers.simulated import POOL_LABEL, REQUEST

BAR_SECONDS, BAR_PERCENT = 2.0, 1.0
NODES_OF_A_GANG, GPUS = 4, 8
ZONES = 16
"""One that refuses is left alone for minutes; with half as many some runs had none left to ask."""
NAMESPACE = "default"
LOOK_SECONDS, WITNESS_SECONDS, PATIENCE_SECONDS = 0.02, 0.25, 120.0
IN_VAIN = "never"
SETTINGS = ("--burst-gpus", "1000000", "--burst-age", "0s")
"""Age alone is the trigger, and none is the least of it."""
console = Console(width=120)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured."""

    gangs: int
    p50_seconds: float
    p99_seconds: float
    slowest_seconds: float
    nodes_refused: int
    paid_gpu_minutes: float
    in_vain_gpu_minutes: float
    """Of gangs that never start."""
    taken_back_gpu_minutes: float
    """Of gangs that do, for nodes that came before one of their siblings was refused."""

    @property
    def in_vain_percent(self) -> float:
        """The share that was paid for gangs that never start."""
        return 100 * self.in_vain_gpu_minutes / self.paid_gpu_minutes if self.paid_gpu_minutes else 100.0

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """What, how much, the bar, and whether it holds."""
        share = self.in_vain_percent
        return [
            ("shortage to claims, p50", f"{self.p50_seconds:.2f} s", "", True),
            (
                "shortage to claims, p99",
                f"{self.p99_seconds:.2f} s",
                f"{BAR_SECONDS:.0f} s",
                self.p99_seconds < BAR_SECONDS,
            ),
            ("nodes refused by script, or failed with them", f"{self.nodes_refused}", "", True),
            ("paid GPU-minutes", f"{self.paid_gpu_minutes:.1f}", "", True),
            ("of them for purchases that were taken back", f"{self.taken_back_gpu_minutes:.2f}", "", True),
            ("of them for gangs that never start", f"{share:.2f} %", f"{BAR_PERCENT:.0f} %", share < BAR_PERCENT),
        ]


@dataclass(slots=True)
class Machine:
    """One simulated node: for whose gang it was bought, when it was there, and whether it was ever ready."""

    gang: str
    since: float
    until: float
    booted: bool = False


@dataclass(slots=True)
class Witness:
    """Looks at claims and simulated nodes again and again."""

    api: KubeApi
    machines: dict[str, Machine] = field(default_factory=dict)
    """By uid of the Node."""
    refused: set[str] = field(default_factory=set)
    """Uids of claims that failed."""
    _gangs: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for claim in await listed(self.api, GPU_NODE_CLAIMS):
                self._gangs[claim["metadata"]["uid"]] = claim["spec"].get("for", {}).get("name", "")
                if claim.get("status", {}).get("phase") == "Failed":
                    self.refused.add(claim["metadata"]["uid"])
            now = time.monotonic()
            for node in await listed(self.api, NODES, POOL_LABEL):
                meta = node["metadata"]
                gang = self._gangs.get(meta["annotations"][REQUEST], "")
                machine = self.machines.setdefault(meta["uid"], Machine(gang, now, now))
                machine.until = now
                machine.booted |= any(
                    c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]
                )
            await asyncio.sleep(WITNESS_SECONDS)

    def gpu_minutes(self, counts: Callable[[Machine], bool]) -> float:
        """What is paid for the machines; each was there for one look more than it was seen, on the average."""
        seconds = sum(m.until - m.since + WITNESS_SECONDS for m in self.machines.values() if counts(m))
        return GPUS * seconds / 60


async def listed(api: KubeApi, resource: Resource, labels: str | None = None) -> list[Object]:
    """All objects of a kind, from the API server itself."""
    found: list[Object] = json.loads(await api.list_page(resource, label_selector=labels, limit=None))["items"]
    return found


def a_cloud(name: str, gpu_type: str, simulated: Object, zones: int, most: int) -> Object:
    """A pool of simulated nodes."""
    spec = {
        "provider": {"simulated": {"bootTime": "5s", **simulated}},
        "gpuType": gpu_type,
        "gpusPerNode": GPUS,
        "nodeShape": {"cpu": 96, "memory": "512Gi", "labels": {"sim.stokehold.dev/kubelet": "alive"}},
        "capacityClass": "on-demand",
        "zones": [f"z{i}" for i in range(1, zones + 1)],
        "dataClasses": ["public"],
        "price": {"perNodeHour": "36", "currency": "USD"},
        "limits": {"maxNodes": most},
        "scaleDown": {"delay": "1s"},
    }
    return {"apiVersion": "stokehold.dev/v1alpha1", "kind": "GPUNodePool", "metadata": {"name": name}, "spec": spec}


def a_gang(name: str, nodes: int, gpu_type: str, run_for: float | None) -> Object:
    """A TrainingJob of whole nodes."""
    notes = {} if run_for is None else {"sim.stokehold.dev/run-for": f"{run_for:.0f}s"}
    spec = {
        "image": "registry.local/train:1",
        "numNodes": nodes,
        "gpusPerNode": GPUS,
        "gpuTypes": [gpu_type],
        "dataClass": "public",
        "podTemplate": {"metadata": {"annotations": notes}},
    }
    kind = {"apiVersion": "stokehold.dev/v1alpha1", "kind": "TrainingJob"}
    return {**kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def declare(cluster: LocalCluster, failure_percent: int, gangs: int) -> None:
    """Own nodes, a cloud that refuses some of what it is asked for, and one that has a node too few."""
    selector = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    own = {"apiVersion": "stokehold.dev/v1alpha1", "kind": "GPUNodePool", "metadata": {"name": "own"}}
    pools = [
        {**own, "spec": {"nodeSelector": selector, "gpuType": "h100"}},
        a_cloud("cloud", "h100", {"failurePercent": failure_percent}, ZONES, gangs * NODES_OF_A_GANG),
        a_cloud("scarce", "b200", {"availableNodes": 1}, 2, 2),
    ]
    cluster.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pools}))


async def phases(api: KubeApi) -> dict[str, str]:
    """Of all jobs, by name."""
    return {j["metadata"]["name"]: j.get("status", {}).get("phase", "") for j in await listed(api, TRAINING_JOBS)}


async def until(holds: Callable[[dict[str, str]], bool], api: KubeApi, within: float) -> None:
    """Wait until the jobs' phases are as they should be."""
    deadline = time.monotonic() + within
    while not holds(seen := await phases(api)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:.0f} s: {seen}")
        await asyncio.sleep(0.2)


def beneficiary(claim: Object) -> str:
    """For which job the node is: a spare one, of a purchase that was taken back, is kept for the next that needs it."""
    work = claim.get("status", {}).get("reusedFor") or claim["spec"].get("for", {})
    return str(work.get("name", ""))


async def claimed_in(api: KubeApi, gang: Object) -> float:
    """Create the gang; seconds until all its claims are there."""
    began, name = time.monotonic(), gang["metadata"]["name"]
    await api.create(TRAINING_JOBS, gang, NAMESPACE)
    while time.monotonic() - began < PATIENCE_SECONDS:
        claims = await listed(api, GPU_NODE_CLAIMS)
        if sum(beneficiary(claim) == name for claim in claims) >= gang["spec"]["numNodes"]:
            return time.monotonic() - began
        await asyncio.sleep(LOOK_SECONDS)
    raise TimeoutError(f"no claims for {name}: {await phases(api)}")


async def measure(cluster: LocalCluster, gangs: int, run_for: float) -> Result:
    """All gangs, with the one that never starts among them."""
    api = await KubeApi.connect(kubeconfig=str(cluster.kubeconfig), qps=500, burst=1000, user_agent="bench")
    witness = Witness(api)
    watching = asyncio.create_task(witness.run())
    seconds: list[float] = []
    try:
        await api.create(TRAINING_JOBS, a_gang("holder", 2, "h100", None), NAMESPACE)
        await until(lambda seen: seen.get("holder") == "Running", api, 60)
        await api.create(TRAINING_JOBS, a_gang(IN_VAIN, 2, "b200", run_for), NAMESPACE)
        for i in range(gangs):
            await asyncio.sleep(0.37 * (i % 3))  # so that creations fall everywhere between two whole seconds
            seconds.append(await claimed_in(api, a_gang(f"gang-{i}", NODES_OF_A_GANG, "h100", run_for)))
        console.print(f"all claimed; they run for {run_for:.0f} s")
        ours = {f"gang-{i}" for i in range(gangs)}
        await until(lambda seen: {seen[name] for name in ours} == {"Succeeded"}, api, run_for + 3 * PATIENCE_SECONDS)
        while await listed(api, NODES, POOL_LABEL):  # noqa: ASYNC110 - it is the server's state that is waited for
            await asyncio.sleep(0.5)
        if (await phases(api))[IN_VAIN] != "Pending":
            raise RuntimeError("the gang that can never start has started")
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await api.close()
    ranked = sorted(seconds)
    return Result(
        gangs=gangs,
        p50_seconds=round(statistics.median(ranked), 3),
        p99_seconds=round(ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))], 3),
        slowest_seconds=round(ranked[-1], 3),
        nodes_refused=len(witness.refused),
        paid_gpu_minutes=round(witness.gpu_minutes(lambda _: True), 2),
        in_vain_gpu_minutes=round(witness.gpu_minutes(lambda m: m.gang == IN_VAIN), 3),
        taken_back_gpu_minutes=round(witness.gpu_minutes(lambda m: m.gang != IN_VAIN and not m.booted), 3),
    )


def _show(result: Result) -> None:
    table = Table("what", "measured", "bar", title=f"{result.gangs} gangs of 4x8", title_justify="left")
    for what, measured, bar, holds in result.rows():
        table.add_row(what, f"[{'green' if holds else 'red'}]{measured}[/]", bar)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gangs", type=int, default=12)
    parser.add_argument("--run-for", type=float, default=60, help="how many seconds a gang runs (default 60)")
    parser.add_argument("--failure-percent", type=int, default=10, help="of the nodes that are asked for (default 10)")
    arguments = parser.parse_args()
    pool = {"name": "own", "nodes": 2, "gpu": "h100", "gpusPerNode": GPUS}
    with LocalCluster.start(ClusterSpec.parse({"pools": [pool]})) as cluster:
        install(cluster)
        log = cluster.kubeconfig.parent.parent / "burst.log"
        operator = OperatorProcess.start(cluster, "burst", log, SETTINGS)
        try:
            declare(cluster, arguments.failure_percent, arguments.gangs)
            result = asyncio.run(measure(cluster, arguments.gangs, arguments.run_for))
        finally:
            operator.stop()
    _show(result)
    passed = all(holds for *_, holds in result.rows())
    share = round(result.in_vain_percent, 3)
    print(json.dumps({"bench": "burst", "passed": passed, "in_vain_percent": share, **asdict(result)}))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())

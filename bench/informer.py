"""What watching costs: CPU for a list of pods, and for a stream of their events, over real HTTP.

A child process serves pods of 6 KB as an API server does; only this process' CPU counts. The bars: a
list of 5,000 pods in half a CPU-second, and 10,000 events per CPU-second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from aiohttp import web

from stokehold.cluster.client import KubeApi
from stokehold.cluster.informers import Informer
from stokehold.cluster.resources import PODS
from stokehold.cluster.store import Key
from stokehold.cluster.wire import Pod

PAGE = 500
FIRST_EVENT_VERSION = 1_000_000


def pod(index: int, version: int) -> dict[str, Any]:
    """A pod as a kubelet leaves it, about 6 KB with its managed fields."""
    env = [{"name": f"VARIABLE_{number}", "value": "value " * 6} for number in range(20)]
    entry: dict[str, Any] = {".": {}, "f:name": {}, "f:value": {}}
    fields = {f"f:field-{number}": entry for number in range(58)}
    name = f"train-{index // 8:05d}-{index % 8}"
    return {
        "metadata": {
            "name": name,
            "namespace": f"team-{index % 10}",
            "uid": f"00000000-0000-4000-8000-{index:012d}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-05T10:00:00Z",
            "labels": {"app": name, "stokehold.dev/job": name, "team": f"team-{index % 10}"},
            "annotations": {"note": "n" * 200},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": fields}],
        },
        "spec": {
            "nodeName": f"node-{index % 500}",
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/train:1",
                    "env": env,
                    "resources": {
                        "requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "8"},
                        "limits": {"nvidia.com/gpu": "8"},
                    },
                }
            ],
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "priority": 1000,
            "schedulerName": "default-scheduler",
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2026-01-05T10:00:05Z"}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {
                    "name": "main",
                    "ready": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-05T10:00:05Z"}},
                }
            ],
        },
    }


def serve(pods: int, events: int, ready: Pipe) -> None:
    """The child: one list in pages, then all events in one watch."""
    items = [json.dumps(pod(index, index + 1)).encode() for index in range(pods)]
    lines = [
        b'{"type":"MODIFIED","object":' + json.dumps(pod(number % pods, FIRST_EVENT_VERSION + number)).encode() + b"}\n"
        for number in range(events)
    ]

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            stream = web.StreamResponse()
            await stream.prepare(request)
            await asyncio.to_thread(ready.recv)
            for start in range(0, events, 20):
                await stream.write(b"".join(lines[start : start + 20]))
            await asyncio.sleep(600)
            return stream
        start = int(request.query.get("continue", "0"))
        more = f',"continue":"{start + PAGE}"' if start + PAGE < pods else ""
        head = f'{{"metadata":{{"resourceVersion":"{pods}"{more}}},"items":['.encode()
        return web.Response(body=head + b",".join(items[start : start + PAGE]) + b"]}")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.send((runner.addresses[0][1], sum(map(len, items)) // pods))
        await asyncio.sleep(600)

    asyncio.run(main())


class Count:
    """A listener that counts, so that the bench knows when all has arrived."""

    def __init__(self) -> None:
        self.upserts = 0

    def on_upsert(self, key: Key, old: Pod | None, new: Pod) -> None:
        """One more."""
        self.upserts += 1

    def on_delete(self, key: Key, old: Pod) -> None:
        """Never, here."""


async def measure(port: int, events: int, start_events: Pipe) -> dict[str, float]:
    """CPU-seconds of the list and of the events, and the memory that the cache keeps."""
    with TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(_kubeconfig(port))
        api = await KubeApi.connect(kubeconfig=str(kubeconfig))
    count = Count()
    informer = Informer(api, PODS, wire=Pod, convert=lambda pod: pod, listener=count)
    memory = psutil.Process().memory_info().rss
    began = time.process_time()
    task = asyncio.create_task(informer.run())
    await informer.wait_synced()
    listed, list_cpu = count.upserts, time.process_time() - began
    kept = psutil.Process().memory_info().rss - memory
    await asyncio.sleep(0.2)
    began, wall = time.process_time(), time.monotonic()
    start_events.send("go")
    while count.upserts < listed + events:  # noqa: ASYNC110 - polling costs less than an event each
        await asyncio.sleep(0.05)
    event_cpu, event_wall = time.process_time() - began, time.monotonic() - wall
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await api.close()
    return {
        "list_cpu_s": round(list_cpu, 3),
        "list_rss_mib": round(kept / 2**20, 1),
        "events_per_cpu_s": round(events / event_cpu),
        "events_per_s": round(events / event_wall),
    }


def _kubeconfig(port: int) -> str:
    cluster = {"name": "bench", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    user = {"name": "bench", "user": {"token": "bench"}}
    context = {"name": "bench", "context": {"cluster": "bench", "user": "bench"}}
    config = {"clusters": [cluster], "users": [user], "contexts": [context]}
    return json.dumps(config | {"current-context": "bench"})  # JSON is YAML


def main() -> None:
    """Print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=5_000)
    parser.add_argument("--events", type=int, default=20_000)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(options.pods, options.events, there), daemon=True
    )
    server.start()
    try:
        port, pod_bytes = here.recv()
        figures = asyncio.run(measure(port, options.events, here))
    finally:
        server.kill()
    sizes = {"pods": options.pods, "pod_bytes": pod_bytes, "events": options.events}
    passed = figures["list_cpu_s"] < 0.5 * options.pods / 5_000
    passed = passed and figures["events_per_cpu_s"] > 10_000
    print(json.dumps({"bench": "informer", **sizes, **figures, "pass": passed}))


if __name__ == "__main__":
    main()

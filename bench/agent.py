"""What the node agent costs: CPU and memory of both its processes at 8 GPUs and a look each 15 s.

A real agent runs over the fake NVML and a fake kubelet. CPU is measured at two intervals, so that
the cost of a cycle and the cost of merely being there come apart, and is then told for 15 s; a
scrape comes with each cycle. `--cycles` instead looks for leaks while pods and processes come and go.
Limit: the fake's calls cost microseconds, a driver's more; `stokehold agent probe` times those.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
from tests.kit.nvml.driver import MAX_GPUS, FakeNvml, build, uuid_of
from tests.kit.pod_resources import FakeKubelet, with_gpus

TOLD_INTERVAL_SECONDS = 15.0
CPU_BAR_PERCENT, MEMORY_BAR_MIB = 1.0, 80.0
MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """What both processes used."""

    cpu_seconds: float
    cycles: float
    wall_seconds: float


class Subject:
    """One agent and its surroundings."""

    def __init__(self, directory: Path, interval: float) -> None:
        self.nvml = FakeNvml(build(directory), directory / "ctl", gpus=MAX_GPUS)
        self.kubelet = FakeKubelet(directory)
        self.proc, self.logs = directory / "proc", directory / "logs"
        self.proc.mkdir()
        self.logs.mkdir()
        self.port = free_port()
        self._directory, self._interval = directory, interval

    @contextmanager
    def running(self) -> Iterator[psutil.Process]:
        """The agent, once it has looked for the first time."""
        options = {
            "--node-name": "n1",
            "--interval": f"{self._interval * 1e3:g}ms",
            "--pod-resources-dir": str(self._directory),
            "--proc-dir": str(self.proc),
            "--pod-logs-dir": str(self.logs),
            "--metrics-address": f"127.0.0.1:{self.port}",
        }
        command = [
            sys.executable,
            "-m",
            "stokehold.agent",
            "--no-write",
            *(word for option in options.items() for word in option),
        ]
        with self.kubelet, (self._directory / "log").open("wb") as log:
            self.populate(0)
            environment = {**os.environ, **self.nvml.environment}
            with subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
                try:
                    wait_for(self.cycles, 20.0)
                    yield psutil.Process(process.pid)
                finally:
                    process.terminate()

    def populate(self, generation: int) -> None:
        """Every GPU gets a new pod, and two processes in it."""
        for old in [*self.proc.iterdir(), *self.logs.iterdir()]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        containers = []
        for index in range(MAX_GPUS):
            uid = f"{generation:08x}-0000-0000-0000-{index:012x}"
            name = f"pod-{generation}-{index}"
            (self.logs / f"team_{name}_{uid}").mkdir()
            containers.append(with_gpus("team", name, uuid_of(index)))
            pids = [10_000 + (generation * 2 * MAX_GPUS + index * 2 + k) % 1_000_000 for k in range(2)]
            for pid in pids:
                directory = self.proc / str(pid)
                directory.mkdir()
                (directory / "stat").write_text(f"{pid} (python) S {'0 ' * 18}{generation} 0\n")
                (directory / "cgroup").write_text(f"0::/kubepods/pod{uid}/x\n")
            self.nvml[index].run(*((pid, 1 << 30) for pid in pids))
            self.nvml[index].utilization = (generation + index) % 2 * 90
        self.kubelet.give(*containers)

    def scrape(self) -> dict[str, float]:
        """All series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def cycles(self) -> float:
        """How many cycles the agent has done."""
        try:
            return self.scrape()["stokehold_agent_cycles_total"]
        except OSError:
            return 0.0

    def wait_cycles(self, until: float) -> float:
        """The number of cycles, once there are so many."""
        wait_for(lambda: self.cycles() >= until, 30.0)
        return self.cycles()


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="for each of the two intervals")
    parser.add_argument("--cycles", type=int, default=0, help="look for leaks over so many cycles instead")
    arguments = parser.parse_args()
    result = measure_leaks(arguments.cycles) if arguments.cycles else measure_cost(arguments.seconds)
    print(json.dumps(result))


def measure_cost(seconds: float) -> dict[str, object]:
    """CPU told for 15 s from a fast and a slow interval, and the memory of both processes."""
    (fast, memory), (slow, _) = (measure_at(interval, seconds) for interval in (0.25, 5.0))
    fast_share, slow_share = fast.cpu_seconds / fast.wall_seconds, slow.cpu_seconds / slow.wall_seconds
    fast_rate, slow_rate = fast.cycles / fast.wall_seconds, slow.cycles / slow.wall_seconds
    per_cycle = (fast_share - slow_share) / (fast_rate - slow_rate)
    resting = max(slow_share - per_cycle * slow_rate, 0.0)
    percent = (resting + per_cycle / TOLD_INTERVAL_SECONDS) * 100
    return {
        "bench": "agent",
        "gpus": MAX_GPUS,
        "interval_seconds": TOLD_INTERVAL_SECONDS,
        "cpu_percent_of_a_core": round(percent, 3),
        "cpu_ms_per_cycle": round(per_cycle * 1e3, 2),
        "cpu_percent_resting": round(resting * 100, 3),
        **memory,
        "bars_met": percent < CPU_BAR_PERCENT and float(str(memory["rss_mib"])) < MEMORY_BAR_MIB,
    }


def measure_at(interval: float, seconds: float) -> tuple[Cost, dict[str, object]]:
    """The cost of an agent at one interval, after a warm-up."""
    with tempfile.TemporaryDirectory() as directory:
        subject = Subject(Path(directory), interval)
        with subject.running() as agent:
            time.sleep(3.0)
            start, cpu, cycles = time.monotonic(), cpu_seconds(agent), subject.cycles()
            while time.monotonic() < start + seconds:
                time.sleep(interval)
                subject.scrape()
            used = cpu_seconds(agent) - cpu
            cost = Cost(used, subject.cycles() - cycles, time.monotonic() - start)
            return cost, memory_of(agent)


def measure_leaks(cycles: int) -> dict[str, object]:
    """Growth over many fast cycles, with new pods and processes each 20 and a scrape each 8."""
    with tempfile.TemporaryDirectory() as directory:
        subject = Subject(Path(directory), 0.005)
        with subject.running() as agent:
            samples: list[tuple[float, dict[str, object]]] = []
            generation, done = 0, 0.0
            while done < cycles:
                generation += 1
                subject.populate(generation)
                done = subject.wait_cycles(done + 20)
                if generation % 50 == 0:
                    samples.append((done, {**memory_of(agent), "series": len(subject.scrape())}))
            warm = samples[len(samples) // 4 :]
            (first_at, first), (last_at, last) = warm[0], warm[-1]
            grown = float(str(last["rss_mib"])) - float(str(first["rss_mib"]))
            return {
                "bench": "agent",
                "cycles": done,
                "pods": generation * MAX_GPUS,
                "pids": generation * 2 * MAX_GPUS,
                "rss_growth_mib_per_10000_cycles": round(grown / (last_at - first_at) * 1e4, 3),
                "first": first,
                "last": last,
            }


def cpu_seconds(agent: psutil.Process) -> float:
    """User and system time of the agent and of the process that holds NVML."""
    return sum(sum(p.cpu_times()[:2]) for p in (agent, *agent.children()))


def memory_of(agent: psutil.Process) -> dict[str, object]:
    """Memory, descriptors and threads of both processes together."""
    processes = (agent, *agent.children())
    full = [p.memory_full_info() for p in processes]
    return {
        "rss_mib": round(sum(m.rss for m in full) / MIB, 1),
        "rss_mib_each": [round(m.rss / MIB, 1) for m in full],
        "pss_mib": round(sum(m.pss for m in full) / MIB, 1),
        "descriptors": sum(p.num_fds() for p in processes),
        "threads": sum(p.num_threads() for p in processes),
    }


def wait_for(holds: Callable[[], object], seconds: float) -> None:
    """Wait until it holds, or give up."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return int(server.server_port)


if __name__ == "__main__":
    main()

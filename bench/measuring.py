"""What the control-plane benchmarks measure: writes by object and verb, CPU by process, rates over rounds."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from hack.cluster import LocalCluster

WRITES = ("POST", "PUT", "PATCH", "APPLY", "DELETE")
_SAMPLE = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
QUIET = ("leases", "nodes")
"""Heartbeats, which go on whatever is measured."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Totals at one instant; subtract two for what happened between them."""

    writes: Counter[tuple[str, str]]
    cpu_seconds: Mapping[str, float]

    def since(self, before: "Reading") -> "Reading":
        """What has happened since `before`."""
        cpu = {name: seconds - before.cpu_seconds.get(name, 0.0) for name, seconds in self.cpu_seconds.items()}
        return Reading(self.writes - before.writes, cpu)


def read(cluster: LocalCluster, processes: Mapping[str, int]) -> Reading:
    """The totals now: the API server's own count of requests, and the CPU time of each process."""
    cpu = {}
    for name, pid in {**cluster.processes(), **processes}.items():
        times = psutil.Process(pid).cpu_times()
        cpu[name] = times.user + times.system
    return Reading(_writes(cluster), cpu)


def _writes(cluster: LocalCluster) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for line in cluster.kubectl("get", "--raw", "/metrics").splitlines():
        if not (found := _SAMPLE.match(line)):
            continue
        labels = dict(_LABEL.findall(found[1]))
        if labels["verb"] not in WRITES or labels["resource"] in QUIET:
            continue
        thing = "/".join(filter(None, (labels["resource"], labels.get("subresource"))))
        counts[thing, labels["verb"]] += int(float(found[2]))
    return counts

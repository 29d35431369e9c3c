"""Who takes part in the admission bench: plain Jobs, Kueue's, and ours, all with the same simulated pods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.kueue import LABELS
from stokehold.cluster.resources import SERVICES, TRAINING_JOBS, Resource

JOBS = Resource("batch", "v1", "jobs", "Job", True)
RUN_FOR = {"sim.stokehold.dev/run-for": "1s"}
POD_RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}}

Manifest = dict[str, Any]
Manifests = list[tuple[Resource, Manifest]]


def plain_job(index: int, size: int) -> Manifests:
    """A Job, for a gang an indexed one with a headless Service."""
    job = bare_job(index, size)
    if size == 1:
        return job
    name = f"job-{index}"
    job[0][1]["spec"]["template"]["spec"]["subdomain"] = name
    service = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"batch.kubernetes.io/job-name": name},
        "ports": [{"name": "rendezvous", "port": 29500}],
    }
    return [(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}), *job]


def bare_job(index: int, size: int) -> Manifests:
    """A Job, indexed if it is a gang, whose workers cannot find each other."""
    container = {"name": "main", "image": "registry.local/train:1", "resources": _with_gpu()}
    template = {
        "metadata": {"annotations": RUN_FOR},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    gang = {"completions": size, "parallelism": size, "completionMode": "Indexed"} if size > 1 else {}
    spec = {"backoffLimit": 0, "template": template, **gang}
    return [(JOBS, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"job-{index}"}, "spec": spec})]


def kueue_job(index: int, size: int) -> Manifests:
    """The plain Job with the label by which Kueue takes it."""
    manifests = plain_job(index, size)
    manifests[-1][1]["metadata"]["labels"] = LABELS
    return manifests


def training_job(index: int, size: int) -> Manifests:
    """The same as a TrainingJob."""
    spec = {
        "image": "registry.local/train:1",
        "numNodes": size,
        "resources": POD_RESOURCES,
        "podTemplate": {"metadata": {"annotations": RUN_FOR}},
    }
    job = {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": f"job-{index}"},
        "spec": spec,
    }
    return [(TRAINING_JOBS, job)]


def _with_gpu() -> dict[str, Any]:
    return {"requests": POD_RESOURCES["requests"], "limits": {"nvidia.com/gpu": "1"}}


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to run a job."""

    name: str
    resource: Resource
    make: Callable[[int, int], Manifests]


PLAIN = Contender("plain", JOBS, plain_job)
BARE = Contender("plain", JOBS, bare_job)
OURS = Contender("ours", TRAINING_JOBS, training_job)
KUEUE = Contender("kueue", JOBS, kueue_job)

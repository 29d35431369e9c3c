"""Whose a GPU is: device ids of the kubelet matched with GPUs, and processes with pods. Pure.

An owner that is not known is said to be unknown; nobody is made one by elimination.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from stokehold.agent.pod_resources import Allocations
from stokehold.agent.readings import GpuReading, Missing, Processes, ProcessReading
from stokehold.agent.sampling import Signal, Verdict

DRA_DRIVER = "gpu.nvidia.com"
# Works for others' processes by design, so it is no intruder.
MPS_SERVER = "nvidia-cuda-mps-server"

# What device plugins call a device: a UUID, NVIDIA's legacy MIG path, or GKE's minor numbers;
# `::N` is a time-slice or MPS replica.
_UUID = re.compile(r"^((?:GPU|MIG)-[0-9a-f-]+)(?:::\d+)?$")
_LEGACY_MIG = re.compile(r"^MIG-(GPU-[0-9a-f-]+)/(\d+)/(\d+)$")
_MINOR = re.compile(r"^nvidia(\d+)(?:/gi(\d+))?(?:/vgpu\d+)?$")
_DRA_GPU = re.compile(r"^gpu-(\d+)$")


@dataclass(frozen=True, slots=True, order=True)
class PodRef:
    """A container that the kubelet gave a GPU."""

    namespace: str
    name: str
    container: str


@dataclass(frozen=True, slots=True)
class ProcessOwner:
    """The pod in whose cgroup a process runs; a host process has a command only."""

    command: str
    pod_uid: str = ""
    namespace: str = ""
    pod: str = ""

    def __str__(self) -> str:
        if self.pod:
            return f"{self.namespace}/{self.pod}"
        return f"pod {self.pod_uid}" if self.pod_uid else f"host process {self.command}"


class Relation(StrEnum):
    """How a process stands to the GPU it uses."""

    OWNER = "owner"
    FOREIGN = "foreign"
    UNCLEAR = "unclear"  # in a pod whose name is not known: the owner's, or another's


@dataclass(frozen=True, slots=True)
class User:
    """A process on a GPU."""

    owner: ProcessOwner
    relation: Relation


@dataclass(frozen=True, slots=True)
class Owners:
    """Which pods own which device, by the device's UUID; `unmatched` names what fits none."""

    by_device: Mapping[str, tuple[PodRef, ...]]
    unmatched: tuple[str, ...] = ()


Ownership = Owners | Missing


def match_owners(allocations: Allocations, gpus: Iterable[GpuReading]) -> Ownership:
    """Each allocated device's owners."""
    if isinstance(allocations, Missing):
        return allocations
    names = _device_names(gpus)
    by_device: dict[str, set[PodRef]] = {}
    unmatched = []
    for allocation in allocations:
        candidates = _candidate_names(allocation.resource, allocation.device_id)
        if not candidates:
            continue  # not a GPU
        uuid = next((names[name] for name in candidates if name in names), None)
        if uuid is None:
            unmatched.append(f"{allocation.namespace}/{allocation.pod}: {allocation.device_id}")
            continue
        pod = PodRef(allocation.namespace, allocation.pod, allocation.container)
        by_device.setdefault(uuid, set()).add(pod)
    return Owners({uuid: tuple(sorted(pods)) for uuid, pods in by_device.items()}, tuple(sorted(unmatched)))


def users_of(
    processes: Processes,
    owners: tuple[PodRef, ...],
    process_owners: Mapping[int, ProcessOwner],
) -> tuple[User, ...]:
    """Who uses the device, one entry for each process whose owner /proc shows."""
    if isinstance(processes, Missing):
        return ()
    pods = {(pod.namespace, pod.name) for pod in owners}
    return tuple(
        User(owner, _relation(process, owner, pods))
        for process in processes
        if (owner := process_owners.get(process.pid)) is not None
    )


def attributed(
    signal: Signal,
    ownership: Ownership,
    owners: tuple[PodRef, ...],
    users: tuple[User, ...],
) -> Signal:
    """What the device's signal says of its owners."""
    if isinstance(ownership, Missing):
        return Signal(Verdict.UNKNOWN, ownership.evidence)
    others = sorted({str(user.owner) for user in users if user.relation is not Relation.OWNER})
    if signal.verdict is Verdict.UNKNOWN or not others:
        return signal
    # Neither B's work nor its silence says anything of A, to whom the GPU was given.
    verdict = Verdict.UNKNOWN if owners else signal.verdict
    return Signal(verdict, f"used by {', '.join(others)}, not known as its owner; {signal.evidence}")


def _relation(process: ProcessReading, owner: ProcessOwner, pods: set[tuple[str, str]]) -> Relation:
    if owner.pod:
        return Relation.OWNER if (owner.namespace, owner.pod) in pods else Relation.FOREIGN
    if owner.pod_uid:
        return Relation.UNCLEAR if pods else Relation.FOREIGN
    # A display server draws on every GPU of a workstation.
    is_harmless = process.kind != "compute" or owner.command == MPS_SERVER
    return Relation.OWNER if is_harmless else Relation.FOREIGN


def _device_names(gpus: Iterable[GpuReading]) -> dict[str, str]:
    """Every name under which a device may appear, to its UUID."""
    names: dict[str, str] = {}
    for gpu in gpus:
        names[gpu.uuid] = gpu.uuid
        if gpu.minor is not None:
            names[f"minor:{gpu.minor}"] = gpu.uuid
        for instance in () if isinstance(gpu.instances, Missing) else gpu.instances:
            gi, ci = instance.gpu_instance, instance.compute_instance
            names[instance.uuid] = instance.uuid
            names[f"{gpu.uuid}/{gi}/{ci}"] = instance.uuid
            names[f"minor:{gpu.minor}/{gi}"] = instance.uuid
    return names


def _candidate_names(resource: str, device_id: str) -> tuple[str, ...]:
    """The device's names in our terms; none when the id is not a GPU's."""
    if resource == DRA_DRIVER:
        found = _DRA_GPU.match(device_id)
        return (f"minor:{found[1]}",) if found else (device_id,)
    if found := _UUID.match(device_id):
        return (found[1],)
    if found := _LEGACY_MIG.match(device_id):
        return (f"{found[1]}/{found[2]}/{found[3]}",)
    if found := _MINOR.match(device_id):
        return (f"minor:{found[1]}/{found[2]}" if found[2] else f"minor:{found[1]}",)
    return ()

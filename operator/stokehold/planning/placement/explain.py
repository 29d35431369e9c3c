"""Why a gang cannot be placed, in one reason, with numbers and with what its owner can do about it."""

from collections.abc import Collection
from dataclasses import dataclass

from stokehold.model.demand import Demand
from stokehold.model.reasons import Waiting
from stokehold.planning.placement.place import Candidate, Shortfall
from stokehold.planning.placement.pools import NO_GPUS, Pool


@dataclass(frozen=True, slots=True)
class Explanation:
    """One dominant reason; `requested` and `available` count whole `unit`s."""

    reason: Waiting
    message: str
    next_step: str
    requested: int = 0
    available: int = 0
    unit: str = ""
    urgent: str = ""
    """A part of the message that is told as soon as it changes."""


@dataclass(frozen=True, slots=True)
class Wording:
    """What the owner of one kind calls a pod of it, and what can be changed in its spec when none fits."""

    noun: str
    smaller: str
    fewer: str


WORDING = {
    "TrainingJob": Wording(
        "worker",
        "Lower spec.gpusPerNode or spec.resources, or spread the work over more nodes with spec.numNodes.",
        "More nodes are needed: lower spec.numNodes, set spec.minNodes, or allow another type in spec.gpuTypes.",
    ),
    "DevWorkspace": Wording(
        "workspace",
        "Lower spec.gpus or spec.resources, or allow another type in spec.gpuTypes.",
        "More nodes are needed, or another type in spec.gpuTypes.",
    ),
    "InferencePool": Wording(
        "replica",
        "Lower spec.gpusPerReplica or spec.resources, or allow another type in spec.gpuTypes.",
        "More nodes are needed: lower spec.replicas.max, or allow another type in spec.gpuTypes.",
    ),
}
"""By kind: advice must name fields that the reader has."""


def explain(shortfall: Shortfall, pools: Collection[Pool], kind: str) -> Explanation:
    """The dominant reason: what can never be comes before what is only not so now; in the words of the owner's kind."""
    demand, wording = shortfall.demand, WORDING[kind]
    if not shortfall.candidates:
        return _no_pool(demand, pools)
    peopled = [candidate for candidate in shortfall.candidates if candidate.pool.members]
    if not peopled:
        return _no_nodes(demand, shortfall.candidates, wording)
    if all(candidate.empty_slots == 0 for candidate in peopled):
        return _too_large(demand, peopled, wording)
    if all(candidate.unknown_level for candidate in peopled):
        return _no_level(demand, peopled)
    if split := [candidate for candidate in peopled if candidate.split_by_topology]:
        return _split(demand, _roomiest(split), wording)
    return _short(demand, _roomiest(peopled), wording)


def _no_pool(demand: Demand, pools: Collection[Pool]) -> Explanation:
    of_type = [p for p in pools if not demand.gpu_types or any(p.serves_type(t) for t in demand.gpu_types)]
    if demand.gpus or demand.gpu_types:
        of_type = [p for p in of_type if p.gpu_type != NO_GPUS]
    if not of_type:
        known = ", ".join(sorted({p.gpu_type for p in pools} - {NO_GPUS})) or "none"
        wanted = ", ".join(demand.gpu_types) or "any"
        return Explanation(
            Waiting.NO_MATCHING_FLAVOR,
            f"no node pool has GPUs of type {wanted}; known types: {known}",
            "Choose one of the known types in spec.gpuTypes, or ask the platform team for a GPUNodePool.",
        )
    permitted = [p for p in of_type if p.admits_data(demand.data_class)]
    if not permitted:
        return Explanation(
            Waiting.NO_MATCHING_FLAVOR,
            f"data class {demand.data_class or 'unset'} may not go to any pool of the right type "
            f"({', '.join(p.name or 'nodes without GPUs' for p in of_type)})",
            "Ask the platform team which pools may hold this data; spec.gpuTypes can name another type.",
        )
    classes = ", ".join(sorted({p.capacity_class for p in permitted}))
    return Explanation(
        Waiting.NO_MATCHING_FLAVOR,
        f"the pools of the right type have capacity {classes}, the job allows {', '.join(demand.capacity_classes)}",
        "Add one of these classes to spec.capacity.",
    )


def _no_nodes(demand: Demand, candidates: Collection[Candidate], wording: Wording) -> Explanation:
    names, have = _names(candidates), "has" if len(candidates) == 1 else "have"
    return Explanation(
        Waiting.WAITING_FOR_CAPACITY,
        f"needs room for {_count(demand.min_count, wording.noun)} of {_size(demand)}; {names} {have} no nodes now",
        "It starts when nodes join; another type in spec.gpuTypes may be there already.",
        requested=_amount(demand, demand.min_count),
        unit=_unit(demand, wording),
    )


def _roomiest(candidates: Collection[Candidate]) -> Candidate:
    return max(candidates, key=lambda c: (c.free_slots, c.empty_slots))


def _too_large(demand: Demand, candidates: Collection[Candidate], wording: Wording) -> Explanation:
    return Explanation(
        Waiting.NO_MATCHING_FLAVOR,
        f"one {wording.noun} asks for {_size(demand)}; no node of {_names(candidates)} is that large",
        wording.smaller,
        requested=demand.gpus,
        unit="GPUs per node",
    )


def _no_level(demand: Demand, candidates: Collection[Candidate]) -> Explanation:
    known = ", ".join(sorted({alias for c in candidates for alias in c.pool.levels}))
    return Explanation(
        Waiting.NO_MATCHING_FLAVOR,
        f"topology level {demand.required_topology} is not known; known levels: {known}",
        "Use one of the known levels in spec.topology.required.",
    )


def _split(demand: Demand, best: Candidate, wording: Wording) -> Explanation:
    return Explanation(
        Waiting.TOPOLOGY_PLACEMENT_FAILED,
        f"{_count(best.free_slots, wording.noun)} would fit in {_pool(best)}, but fewer than {demand.min_count} "
        f"inside one {demand.required_topology}",
        f"It starts when one {demand.required_topology} has room; spec.topology.preferred would start it now.",
        requested=_amount(demand, demand.min_count),
        available=_amount(demand, best.free_slots),
        unit=_unit(demand, wording),
    )


def _short(demand: Demand, best: Candidate, wording: Wording) -> Explanation:
    need = f"{_count(demand.min_count, wording.noun)} of {_size(demand)}"
    message = f"needs room for {need}; {_pool(best)} has room for {best.free_slots} now"
    gpu = best.pool.gpu_resource
    if best.scarcest not in ("", gpu) and demand.gpus:
        message += f", short of {best.scarcest}"
    if best.closed_nodes:
        message += f"; {_count(best.closed_nodes, 'node')} not ready, cordoned or not trusted yet"
    if best.empty_slots < demand.min_count:
        message += f", and {best.empty_slots} even when empty"
        step = wording.fewer
    elif not best.usable_nodes:
        step = "No node can be used now: its taints, readiness or your node selector rule all of them out."
    else:
        step = "It starts when running work ends; another type in spec.gpuTypes may be free sooner."
    return Explanation(
        Waiting.WAITING_FOR_CAPACITY,
        message,
        step,
        requested=_amount(demand, demand.min_count),
        available=_amount(demand, best.free_slots),
        unit=_unit(demand, wording),
    )


def _names(candidates: Collection[Candidate]) -> str:
    return ", ".join(candidate.pool.name or "nodes without GPUs" for candidate in candidates)


def _pool(candidate: Candidate) -> str:
    return f"pool {candidate.pool.name}" if candidate.pool.name else "the nodes without GPUs"


def _size(demand: Demand) -> str:
    requests = dict(demand.requests)
    parts = [_count(demand.gpus, "GPU")] if demand.gpus else []
    if cpu := requests.get("cpu"):
        parts.append(f"{cpu / 1000:g} CPU")
    if memory := requests.get("memory"):
        parts.append(f"{memory / 2**30:.1f} GiB")
    return " and ".join(parts) or "no resources"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _amount(demand: Demand, workers: int) -> int:
    return workers * demand.gpus if demand.gpus else workers


def _unit(demand: Demand, wording: Wording) -> str:
    return "GPUs" if demand.gpus else f"{wording.noun}s"

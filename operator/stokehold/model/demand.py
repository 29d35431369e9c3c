"""What one worker of a gang asks of a node, as a hashable value: equal demands have equal answers.

Also the pod that the demand is computed from, so that what is planned is what kube-scheduler will count.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from stokehold.api.names import MAIN_CONTAINER
from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceSpec
from stokehold.api.v1alpha1.inference_pool import InferencePoolSpec
from stokehold.api.v1alpha1.training_job import TrainingJobSpec
from stokehold.model.accounting import requests_of
from stokehold.model.merge import strategic_merge
from stokehold.model.shapes import digest
from stokehold.model.taints import GPU_TAINT_KEYS, Toleration


@dataclass(frozen=True, slots=True)
class Match:
    """One requirement of a node affinity term."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels satisfies it, by the rules of kube-scheduler."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                return self._compares(value)
            case _:
                return False

    def __str__(self) -> str:
        """As in `zone In (a, b)`."""
        values = f" ({', '.join(self.values)})" if self.values else ""
        return f"{self.key} {self.operator}{values}"

    def _compares(self, value: str | None) -> bool:
        try:
            left, right = int(value or ""), int(self.values[0])
        except (ValueError, IndexError):
            return False
        return left > right if self.operator == "Gt" else left < right


Terms = tuple[tuple[Match, ...], ...]
"""Alternatives; in each, all must hold."""

Amounts = tuple[tuple[str, int], ...]
"""By resource name, sorted."""

OF_THE_PROGRAM = ("image", "command", "args", "env", "envFrom", "volumeMounts")
"""What nobody looks at who adds to the requests of a container."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A gang's needs. `requests` are per worker, without the GPUs; the GPU resource's name depends on the pool."""

    count: int
    min_count: int
    gpus: int
    requests: Amounts
    gpu_types: tuple[str, ...] = ()
    capacity_classes: tuple[str, ...] = ()
    data_class: str = ""
    gpu_resource: str = ""
    """The one name under which the GPUs are asked for already; empty: the pool's."""
    required_topology: str = ""
    preferred_topology: str = ""
    tolerations: tuple[Toleration, ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()
    node_affinity: Terms = ()
    """Empty means no wish."""
    places: tuple[Terms, ...] = ()
    """From where its volumes can be reached: each must allow a node. Never multiplied out: one job may name many."""
    buyer: str = ""
    """The uid of the job whose bought nodes are open to it; set by planners alone."""
    avoid: tuple[str, ...] = ()
    """Nodes that will not do, by name."""
    hashed: int = field(init=False, repr=False, compare=False)
    """Computed once: a plan looks demands up thousands of times."""

    def __post_init__(self) -> None:
        values = (getattr(self, one.name) for one in fields(self) if one.compare)
        object.__setattr__(self, "hashed", hash(tuple(values)))

    def __hash__(self) -> int:
        return self.hashed

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether the pod's node selector and required affinity, and its volumes, allow a node with these labels."""
        if any(labels.get(key) != value for key, value in self.node_selector):
            return False
        if self.node_affinity and not allows(self.node_affinity, labels):
            return False
        return all(allows(terms, labels) for terms in self.places)


def allows(terms: Terms, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels satisfies one of the alternatives."""
    return any(all(match.holds(labels) for match in term) for term in terms)


def may_hold(term: Collection[Match]) -> bool:
    """Whether there can be a node whose labels satisfy all; comparisons of numbers are taken to agree."""
    for key in {match.key for match in term}:
        matches = [match for match in term if match.key == key]
        absent = any(match.operator == "DoesNotExist" for match in matches)
        if absent and any(match.operator not in ("DoesNotExist", "NotIn") for match in matches):
            return False
        listed = [set(match.values) for match in matches if match.operator == "In"]
        ruled_out = set().union(*(match.values for match in matches if match.operator == "NotIn"))
        if listed and not set.intersection(*listed) - ruled_out:
            return False
    return True


def demand_of(spec: TrainingJobSpec) -> Demand:
    """The demand of a TrainingJob, computed from the very pod that would be created."""
    topology = spec.topology
    return _demand(
        shaped_pod(spec, spec.gpus_per_node, "Never"),
        count=spec.num_nodes,
        min_count=spec.min_nodes or spec.num_nodes,
        gpus=spec.gpus_per_node,
        gpu_types=tuple(spec.gpu_types or ()),
        capacity_classes=tuple(spec.capacity or ()),
        data_class=spec.data_class or "",
        required_topology=(topology.required or "") if topology else "",
        preferred_topology=(topology.preferred or "") if topology else "",
    )


def workspace_demand(spec: DevWorkspaceSpec) -> Demand:
    """The demand of a DevWorkspace that runs: one pod."""
    pod = shaped_pod(spec, spec.gpus, "Always")
    return _demand(pod, count=1, min_count=1, gpus=spec.gpus, gpu_types=tuple(spec.gpu_types))


def claims_of(spec: TrainingJobSpec | DevWorkspaceSpec | InferencePoolSpec) -> tuple[str, ...]:
    """The volume claims that its user has named for its pods."""
    checkpoint = spec.checkpoint if isinstance(spec, TrainingJobSpec) else None
    if not (checkpoint or spec.volumes or spec.pod_template):
        return ()
    volumes = shaped_pod(spec, 0, "Never")["spec"].get("volumes", ())
    named = {volume.get("persistentVolumeClaim", {}).get("claimName", "") for volume in volumes}
    named.add((checkpoint.claim_name if checkpoint else None) or "")
    return tuple(sorted(name for name in named if name))


def replica_demand(spec: InferencePoolSpec) -> Demand:
    """The demand of one replica of an InferencePool."""
    pod = shaped_pod(spec, spec.gpus_per_replica, "Always")
    return _demand(pod, count=1, min_count=1, gpus=spec.gpus_per_replica, gpu_types=tuple(spec.gpu_types))


def with_gpu_resource(demand: Demand, name: str) -> Demand:
    """The same demand for GPUs of this name alone; empty: of any."""
    return demand if demand.gpu_resource == name else _shared(replace(demand, gpu_resource=name))


def avoiding(demand: Demand, nodes: Collection[str]) -> Demand:
    """The same demand, on none of these nodes."""
    return _shared(replace(demand, avoid=tuple(sorted(nodes)))) if nodes else demand


def beyond(demand: Demand, requests: Mapping[str, int]) -> Amounts:
    """What a pod asks for, of that of which it is more than the demand. Without devices: GPUs have their own field."""
    planned = dict(demand.requests)
    return tuple(
        sorted((name, amount) for name, amount in requests.items() if "/" not in name and amount > planned.get(name, 0))
    )


@lru_cache(maxsize=4096)
def asking(demand: Demand, amounts: Amounts) -> Demand:
    """The same demand for at least these amounts."""
    planned = dict(demand.requests)
    larger = planned | {name: max(amount, planned.get(name, 0)) for name, amount in amounts}
    return _shared(replace(demand, requests=tuple(sorted(larger.items()))))


@lru_cache(maxsize=4096)
def within(demand: Demand, *places: Terms) -> Demand:
    """The same demand, only on nodes that all of the places allow too."""
    return _shared(replace(demand, places=tuple(dict.fromkeys((*demand.places, *places)))))


def shaped_pod(
    spec: TrainingJobSpec | DevWorkspaceSpec | InferencePoolSpec, gpus: int, restart_policy: str
) -> dict[str, Any]:
    """The pod as far as its user shapes it: without GPUs, placement, identity and what we inject.

    With `gpus` it tolerates the taints of all GPU nodes, else only what its user says. Gives
    {"metadata": {...}, "spec": {...}}; `cluster/manifests` adds the rest when the work is admitted.
    """
    container: dict[str, Any] = {"name": MAIN_CONTAINER, "image": spec.image}
    for name in ("command", "args", "env", "env_from", "resources", "volume_mounts"):
        if value := getattr(spec, name):
            container[_camel(name)] = _plain(value)
    base: dict[str, Any] = {
        "metadata": {},
        "spec": {
            "restartPolicy": restart_policy,
            "containers": [container],
            "tolerations": _gpu_tolerations() if gpus else [],
        },
    }
    if spec.volumes:
        base["spec"]["volumes"] = _plain(spec.volumes)
    return strategic_merge(base, _plain(spec.pod_template or {}))


def shape_of(spec: TrainingJobSpec | DevWorkspaceSpec) -> str:
    """A digest of the pod as those see it who add to its requests: equal shapes are added to alike."""
    shaped = shaped_pod(spec, 0, "Never")
    for kind in ("containers", "initContainers"):
        for container in shaped["spec"].get(kind, ()):
            for name in OF_THE_PROGRAM:
                container.pop(name, None)
    return digest(shaped)


def _demand(shaped: Mapping[str, Any], **fields: Any) -> Demand:
    pod = shaped["spec"]
    demand = Demand(
        requests=tuple(sorted(requests_of(pod).items())),
        tolerations=tuple(_toleration(t) for t in pod.get("tolerations", ())),
        node_selector=tuple(sorted(pod.get("nodeSelector", {}).items())),
        node_affinity=_affinity(pod),
        **fields,
    )
    return _shared(demand)


@lru_cache(maxsize=4096)
def _shared(demand: Demand) -> Demand:
    """One object for equal demands: a plan compares them by identity most of the time, which is much faster."""
    return demand


def _gpu_tolerations() -> list[dict[str, str]]:
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in GPU_TAINT_KEYS]


def _plain(value: Any) -> Any:
    """Models to plain JSON values, with the names that Kubernetes uses."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _toleration(raw: Mapping[str, Any]) -> Toleration:
    return Toleration(
        key=raw.get("key", ""),
        operator=raw.get("operator", "Equal"),
        value=raw.get("value", ""),
        effect=raw.get("effect", ""),
    )


def _affinity(pod: Mapping[str, Any]) -> Terms:
    required = pod.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", {})
    return terms_of(required)


def terms_of(selector: Mapping[str, Any]) -> Terms:
    """The alternatives of a NodeSelector of Kubernetes."""
    return tuple(
        tuple(
            Match(m.get("key", ""), m.get("operator", ""), tuple(m.get("values") or ()))
            for m in term.get("matchExpressions", ())
        )
        for term in selector.get("nodeSelectorTerms", ())
    )

"""Reads a cluster description: pools of simulated nodes. It knows nothing of processes or of the API."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from hack.cluster.gpus import GPU_TYPES


class SpecError(ValueError):
    """A description that cannot be meant; the message names the field."""


@dataclass(frozen=True, slots=True)
class Mig:
    """How the GPUs of one node are cut; `profiles` counts slices per node."""

    strategy: str  # single: slices are nvidia.com/gpu; mixed: nvidia.com/mig-PROFILE
    profiles: Mapping[str, int]
    gpus: int  # of the node's GPUs, those that are cut; the rest stay whole (mixed only)


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes that are alike."""

    name: str
    nodes: int
    gpu: str | None = None  # a key of GPU_TYPES; None is a pool of CPU nodes
    gpus_per_node: int = 0
    cpu: str = "96"
    memory: str = "512Gi"
    pods: int = 110
    ephemeral_storage: str = "1Ti"
    racks: tuple[str, ...] = ()  # the rack of each node, repeated from the start when there are fewer
    zones: tuple[str, ...] = ("zone-a",)  # in the same way
    mig: Mig | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)  # further extended resources

    def node_name(self, index: int) -> str:
        """The name of the pool's node number `index`."""
        return f"{self.name}-{index}"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A whole cluster, as a description file states it."""

    pools: tuple[Pool, ...]
    lease_seconds: int = 40  # renewed at a quarter of it: 100 for 1,000 nodes, or the leases cost half a core
    node_grace_seconds: int = 50  # without a renewal for so long a node is Unknown
    feature_gates: Mapping[str, bool] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The description in a file."""
        return cls.parse(yaml.safe_load(Path(path).read_text()))

    @classmethod
    def parse(cls, document: object) -> Self:
        """The description in a parsed YAML document."""
        top = _fields(document, "the description", cls)
        pools = top.get("pools")
        if not isinstance(pools, list):
            raise SpecError("pools: a list is needed")
        top["pools"] = tuple(_parse_pool(pool, f"pools[{i}]") for i, pool in enumerate(pools))
        spec = cls(**top)
        names = [pool.name for pool in spec.pools]
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise SpecError(f"pools: {', '.join(sorted(duplicates))} twice")
        if spec.lease_seconds >= 4 * spec.node_grace_seconds:
            raise SpecError("leaseSeconds: renewed at a quarter, which must be within nodeGraceSeconds")
        return spec

    def document(self) -> dict[str, Any]:
        """The same description as plain data, which `parse` reads again."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    def pool(self, name: str) -> Pool:
        """The pool of this name."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise SpecError(f"no pool {name}; there are {', '.join(p.name for p in self.pools)}")

    @property
    def gpus(self) -> int:
        """Physical GPUs in the whole cluster."""
        return sum(pool.nodes * pool.gpus_per_node for pool in self.pools)


def _parse_pool(document: object, where: str) -> Pool:
    values = _fields(document, where, Pool)
    for name in ("racks", "zones", "taints"):
        if name in values:
            values[name] = tuple(values[name])
    for name in ("cpu", "memory", "ephemeral_storage"):
        if name in values:
            values[name] = str(values[name])
    if "resources" in values:
        values["resources"] = {key: str(amount) for key, amount in values["resources"].items()}
    if values.get("mig") is not None:
        mig = {"gpus": values.get("gpus_per_node", 0)} | _fields(values["mig"], f"{where}.mig", Mig)
        values["mig"] = Mig(**mig)
    try:
        pool = Pool(**values)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from None
    _check_pool(pool, where)
    return pool


def _check_pool(pool: Pool, where: str) -> None:
    if pool.nodes < 0 or pool.gpus_per_node < 0:
        raise SpecError(f"{where}: counts cannot be negative")
    if pool.gpu is not None and pool.gpu not in GPU_TYPES:
        raise SpecError(f"{where}.gpu: {pool.gpu} is not one of {', '.join(GPU_TYPES)}")
    if (pool.gpu is None) != (pool.gpus_per_node == 0):
        raise SpecError(f"{where}: gpu and gpusPerNode come together")
    if pool.mig is None:
        return
    if pool.mig.strategy not in {"single", "mixed"}:
        raise SpecError(f"{where}.mig.strategy: single or mixed")
    if pool.mig.strategy == "single" and len(pool.mig.profiles) != 1:
        raise SpecError(f"{where}.mig.profiles: the single strategy has one profile")
    if not 0 < pool.mig.gpus <= pool.gpus_per_node:
        raise SpecError(f"{where}.mig.gpus: between 1 and gpusPerNode")


def _fields(document: object, where: str, kind: type) -> dict[str, Any]:
    """The document's camelCase keys as a dataclass's field names; unknown ones are refused."""
    if not isinstance(document, dict):
        raise SpecError(f"{where}: a mapping is needed")
    known = {_camel(f.name): f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(str(key) for key in document.keys() - known.keys()):
        raise SpecError(f"{where}: unknown field {', '.join(unknown)}")
    return {known[key]: value for key, value in document.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


# Keys below these are the user's own words, not field names.
_FREE_FORM = frozenset({"labels", "annotations", "taints", "resources", "profiles", "feature_gates"})


def _plain(value: Any, *, is_free: bool = False) -> Any:
    if isinstance(value, Mapping):
        items = ((key if is_free else _camel(key), item) for key, item in value.items())
        return {key: _plain(item, is_free=is_free or key in _FREE_FORM) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_plain(item, is_free=is_free) for item in value]
    return value

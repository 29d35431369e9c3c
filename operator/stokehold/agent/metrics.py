"""The agent's metrics, built from the present state at each scrape: what is gone leaves no series.

DCGM's names for what DCGM also gives, so that dashboards work; a value that is not known has no
series there, never a zero. The rest is ours.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from stokehold.agent.attribution import Relation
from stokehold.agent.health import Fitness
from stokehold.agent.node_state import Device, NodeState
from stokehold.agent.readings import GpuReading, InstanceReading, Missing, Value
from stokehold.agent.sampling import Verdict, plausible

MIB = 1 << 20


@dataclass(slots=True)
class Counts:
    """What the agent counts of itself."""

    cycles: int = 0
    overruns: int = 0
    cycle_seconds: float = 0.0
    sampler_restarts: int = 0
    writes: int = 0
    failed_writes: int = 0


@dataclass(frozen=True, slots=True)
class _Gauge:
    name: str
    help: str
    value: Callable[[GpuReading], Value]


# (DCGM's name, help, value)
_DCGM_GAUGES = (
    _Gauge(
        "DCGM_FI_DEV_GPU_UTIL",
        "GPU utilization (in %), the maximum since the last look.",
        lambda gpu: plausible(gpu.utilization_percent, 0, 100, "utilisation"),
    ),
    _Gauge(
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        "Memory utilization (in %).",
        lambda gpu: plausible(gpu.memory_utilization_percent, 0, 100, "utilisation"),
    ),
    _Gauge(
        "DCGM_FI_DEV_FB_USED",
        "Framebuffer memory used (in MiB).",
        lambda gpu: _scaled(gpu.memory_used_bytes, MIB),
    ),
    _Gauge(
        "DCGM_FI_DEV_FB_TOTAL",
        "Framebuffer memory in total (in MiB).",
        lambda gpu: _scaled(gpu.memory_total_bytes, MIB),
    ),
    _Gauge(
        "DCGM_FI_DEV_POWER_USAGE",
        "Power draw (in W).",
        lambda gpu: _scaled(plausible(gpu.power_milliwatts, 0, 1e7, "power"), 1e3),
    ),
    _Gauge(
        "DCGM_FI_DEV_GPU_TEMP",
        "GPU temperature (in C).",
        lambda gpu: plausible(gpu.temperature_celsius, 0, 200, "temperature"),
    ),
)


class StateCollector(Collector):
    """All series of the node's devices and of the agent's own work."""

    def __init__(self, node: str, version: str, state: Callable[[], NodeState], counts: Counts) -> None:
        self._node = node
        self._version = version
        self._state = state
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Every series as of now."""
        state = self._state()
        yield from self._dcgm(state)
        yield from _activity(state)
        yield from _users(state)
        yield from _agent(state, self._counts)
        yield self._info()

    def _info(self) -> Metric:
        """Joins a node's name to the other series of one agent."""
        info = GaugeMetricFamily(
            "stokehold_agent_info", "1, with the agent's node and version.", labels=["node", "version"]
        )
        info.add_metric([self._node, self._version], 1.0)
        return info

    def _dcgm(self, state: NodeState) -> Iterator[Metric]:
        gpus = [(d, d.reading) for d in state.devices.values() if not d.parent_uuid]
        names = list(_dcgm_labels(self._node, state, None))
        families = [GaugeMetricFamily(g.name, g.help, labels=names) for g in _DCGM_GAUGES]
        energy = CounterMetricFamily(
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
            "Total energy consumption since boot (in mJ).",
            labels=names,
        )
        for device, reading in gpus:
            if not isinstance(reading, GpuReading):
                continue
            labels = list(_dcgm_labels(self._node, state, device).values())
            for gauge, family in zip(_DCGM_GAUGES, families, strict=True):
                _add(family, labels, gauge.value(reading))
            if not isinstance(reading.energy_millijoules, Missing):
                energy.add_metric(labels, float(reading.energy_millijoules))
        yield from families
        yield energy


def registry_for(collector: StateCollector) -> CollectorRegistry:
    """The registry to expose: our series and the process's own."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def _dcgm_labels(node: str, state: NodeState, device: Device | None) -> dict[str, str]:
    """Labels as dcgm-exporter writes them; a GPU of several pods is given to none of them."""
    reading = device.reading if device is not None else None
    gpu = reading if isinstance(reading, GpuReading) else None
    owner = device.pods[0] if device is not None and len(device.pods) == 1 else None
    return {
        "gpu": str(device.index) if device is not None else "",
        "UUID": device.uuid if device is not None else "",
        "pci_bus_id": gpu.bus_id if gpu is not None else "",
        "device": f"nvidia{gpu.minor}" if gpu is not None and gpu.minor is not None else "",
        "modelName": device.product if device is not None else "",
        "Hostname": node,
        "DCGM_FI_DRIVER_VERSION": state.driver_version,
        "container": owner.container if owner is not None else "",
        "namespace": owner.namespace if owner is not None else "",
        "pod": owner.name if owner is not None else "",
    }


def _activity(state: NodeState) -> Iterator[Metric]:
    activity = GaugeMetricFamily(
        "stokehold_gpu_activity",
        "1 for the verdict that holds: Active, Quiet or Unknown.",
        labels=["uuid", "parent_uuid", "verdict"],
    )
    health = GaugeMetricFamily("stokehold_gpu_health", "1 for the state that holds.", labels=["uuid", "state"])
    last_active = GaugeMetricFamily(
        "stokehold_gpu_last_active_timestamp_seconds",
        "When the device was last seen active.",
        labels=["uuid"],
    )
    mean_power = GaugeMetricFamily(
        "stokehold_gpu_mean_power_watts",
        "Mean power between the last two looks, from the energy counter.",
        labels=["uuid"],
    )
    memory = GaugeMetricFamily(
        "stokehold_gpu_memory_used_bytes",
        "Memory used, of MIG devices too.",
        labels=["uuid", "parent_uuid"],
    )
    for device in state.devices.values():
        for verdict in Verdict:
            labels = [device.uuid, device.parent_uuid, verdict.value]
            activity.add_metric(labels, float(device.signal.verdict is verdict))
        for fitness in Fitness:
            is_so = device.health.fitness is fitness
            health.add_metric([device.uuid, fitness.value], float(is_so))
        if device.last_active is not None:
            last_active.add_metric([device.uuid], device.last_active.timestamp())
        _add(mean_power, [device.uuid], plausible(device.watts, 0, 1e5, "power"))
        if device.reading is not None:
            reading: GpuReading | InstanceReading = device.reading
            _add(memory, [device.uuid, device.parent_uuid], reading.memory_used_bytes)
    yield from (activity, health, last_active, mean_power, memory)


def _users(state: NodeState) -> Iterator[Metric]:
    pods = GaugeMetricFamily(
        "stokehold_gpu_pod_info",
        "1 for each container that was given the device.",
        labels=["uuid", "namespace", "pod", "container"],
    )
    foreign = GaugeMetricFamily(
        "stokehold_gpu_foreign_processes",
        "Processes on the device that it was not given to.",
        labels=["uuid", "namespace", "pod", "pod_uid"],
    )
    for device in state.devices.values():
        for pod in device.pods:
            pods.add_metric([device.uuid, pod.namespace, pod.name, pod.container], 1.0)
        counts: dict[tuple[str, str, str], int] = {}
        for user in device.users:
            if user.relation is Relation.FOREIGN:
                key = (user.owner.namespace, user.owner.pod, user.owner.pod_uid)
                counts[key] = counts.get(key, 0) + 1
        for key, count in counts.items():
            foreign.add_metric([device.uuid, *key], float(count))
    yield from (pods, foreign)


def _agent(state: NodeState, counts: Counts) -> Iterator[Metric]:
    gauges = (
        ("nvml_responsive", "Whether the last look got an answer.", not state.look.error),
        (
            "owners_known",
            "Whether the kubelet said which pod has which GPU.",
            not isinstance(state.ownership, Missing),
        ),
        ("cycle_seconds", "How long the last cycle took.", counts.cycle_seconds),
        ("look_seconds", "How long NVML took for the last look.", state.look.seconds),
        (
            "slowest_call_seconds",
            "The longest NVML call of the last look.",
            state.look.slowest_seconds,
        ),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(f"stokehold_agent_{name}", text, value=float(value))
    counters = (
        ("cycles", "Cycles of looking and judging.", counts.cycles),
        ("overruns", "Cycles that took longer than the interval.", counts.overruns),
        ("sampler_restarts", "Ends of the process that holds NVML.", counts.sampler_restarts),
        ("writes", "Writes of the GPUNode.", counts.writes),
        ("failed_writes", "Writes of the GPUNode that did not succeed.", counts.failed_writes),
    )
    for name, text, count in counters:
        yield CounterMetricFamily(f"stokehold_agent_{name}", text, value=float(count))


def _add(family: GaugeMetricFamily, labels: list[str], value: Value) -> None:
    if not isinstance(value, Missing):
        family.add_metric(labels, float(value))


def _scaled(value: Value, divisor: float) -> Value:
    return value if isinstance(value, Missing) else value / divisor

"""The node as the agent knows it: one pure step from look to look. No I/O, no clock.

A device stays known when a look fails or omits it: what was there and is not seen is UNKNOWN, and
only a look that shows a GPU without the MIG device drops that device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from stokehold.agent.attribution import (
    Ownership,
    PodRef,
    ProcessOwner,
    User,
    attributed,
    users_of,
)
from stokehold.agent.health import Fitness, Health, assess
from stokehold.agent.readings import (
    Cause,
    GpuReading,
    InstanceReading,
    Missing,
    NodeReading,
    Value,
)
from stokehold.agent.sampling import (
    EnergyMark,
    History,
    Signal,
    Thresholds,
    Verdict,
    Window,
    counter_went_back,
    extend,
    judge,
    mean_watts,
    signal_of_gpu,
    signal_of_instance,
)
from stokehold.model.reasons import Sight


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on both clocks: windows count on the monotonic one, people read the other."""

    monotonic: float
    wall: datetime


@dataclass(frozen=True, slots=True)
class Rules:
    """How looks are judged."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    window: Window = field(default_factory=Window)


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a MIG device. `reading` is None when the last look did not show it."""

    uuid: str
    index: int
    parent_uuid: str
    product: str
    reading: GpuReading | InstanceReading | None
    watts: Value
    health: Health
    pods: tuple[PodRef, ...]
    users: tuple[User, ...]
    signal: Signal
    since: datetime
    health_since: datetime
    history: History
    energy: EnergyMark | None = None
    last_active: datetime | None = None


_NOT_ASKED = Missing(Cause.NO_DATA, "kubelet pod-resources: not asked yet")


@dataclass(frozen=True, slots=True)
class NodeState:
    """All devices by UUID, in the order of the driver's index, instances after their GPU."""

    at: Instant
    look: NodeReading = field(default_factory=NodeReading)
    ownership: Ownership = field(default=_NOT_ASKED)
    driver_version: str = ""
    devices: Mapping[str, Device] = field(default_factory=dict)
    # From before a restart of the agent, by UUID; used until a device has its own.
    remembered: Mapping[str, datetime] = field(default_factory=dict)
    # By namespace and name, as far as the node knows them.
    pod_uids: Mapping[tuple[str, str], str] = field(default_factory=dict)
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one cycle of the agent gathered."""

    at: Instant
    look: NodeReading
    ownership: Ownership
    process_owners: Mapping[int, ProcessOwner]
    pod_uids: Mapping[tuple[str, str], str] = field(default_factory=dict)


def observe(state: NodeState, seen: Observation, rules: Rules) -> NodeState:
    """The state after one more cycle."""
    state = _by_the_clock_of(state, seen.at)
    step = _Step(state, seen, rules)
    return replace(
        state,
        at=seen.at,
        look=seen.look,
        ownership=seen.ownership,
        pod_uids=seen.pod_uids,
        driver_version=seen.look.driver_version or state.driver_version,
        devices={device.uuid: device for device in step.devices()},
    )


def _by_the_clock_of(state: NodeState, at: Instant) -> NodeState:
    """The state with its times of day as the clock tells them that shows `at.wall` now.

    A node often boots with a clock that is hours off, and is put right minutes later: a verdict dated by the one and
    published by the other would claim quiet for hours that nobody has seen.
    """
    step = (at.wall - state.at.wall) - timedelta(seconds=at.monotonic - state.at.monotonic)
    if not step:
        return state
    return replace(state, devices={uuid: _moved(device, step) for uuid, device in state.devices.items()})


def _moved(device: Device, step: timedelta) -> Device:
    last = None if device.last_active is None else device.last_active + step
    return replace(device, since=device.since + step, health_since=device.health_since + step, last_active=last)


@dataclass(frozen=True, slots=True)
class _Step:
    before: NodeState
    seen: Observation
    rules: Rules

    def devices(self) -> Iterator[Device]:
        listed = {self._uuid_of(gpu): gpu for gpu in self.seen.look.gpus}
        order = {uuid: gpu.index for uuid, gpu in listed.items()}
        unseen = {d.uuid: d.index for d in self.before.devices.values() if not d.parent_uuid}
        for uuid, _ in sorted((unseen | order).items(), key=lambda item: (item[1], item[0])):
            if uuid in listed:
                yield from self._seen(uuid, listed[uuid])
            elif not _is_placeholder(uuid) or self.seen.look.error:
                yield from self._unseen(uuid)

    def _seen(self, uuid: str, gpu: GpuReading) -> Iterator[Device]:
        before = self.before.devices.get(uuid)
        known_energy = before.energy if before is not None else None
        watts = mean_watts(known_energy, gpu.energy_millijoules, self._now)
        signal = signal_of_gpu(gpu, watts, self.rules.thresholds)
        if counter_went_back(known_energy, gpu.energy_millijoules):
            signal = Signal(Verdict.UNKNOWN, "counters went back: the driver was reloaded")
        device = self._device(uuid, gpu.index, "", signal, gpu)
        yield replace(
            self._with_health(device, assess(gpu)),
            product=gpu.product or device.product,
            watts=watts,
            energy=self._mark(gpu.energy_millijoules, known_energy),
        )
        if isinstance(gpu.instances, Missing):
            yield from self._unseen_instances(uuid, gpu.instances.evidence)
            return
        for instance in gpu.instances:
            signal = signal_of_instance(instance)
            part = self._device(instance.uuid, gpu.index, uuid, signal, instance)
            yield replace(self._with_health(part, assess(gpu)), product=instance.name or part.product)

    def _unseen(self, uuid: str) -> Iterator[Device]:
        evidence = self.seen.look.error or "the driver no longer lists this GPU"
        device = self._lost(self.before.devices[uuid], evidence)
        yield device
        yield from self._unseen_instances(uuid, evidence)

    def _unseen_instances(self, parent_uuid: str, evidence: str) -> Iterator[Device]:
        for device in self.before.devices.values():
            if device.parent_uuid == parent_uuid:
                yield self._lost(device, evidence)

    def _lost(self, before: Device, evidence: str) -> Device:
        signal = Signal(Verdict.UNKNOWN, evidence)
        device = self._device(before.uuid, before.index, before.parent_uuid, signal, None)
        # A hung call says nothing of one GPU; a GPU that others do not share the fate of is gone.
        fitness = Fitness.UNKNOWN if self.seen.look.error else Fitness.UNHEALTHY
        return self._with_health(device, Health(fitness, Sight.NOT_SEEN, evidence))

    def _with_health(self, device: Device, health: Health) -> Device:
        before = self.before.devices.get(device.uuid)
        is_same = before is not None and before.health.fitness is health.fitness
        since = before.health_since if before is not None and is_same else self.seen.at.wall
        return replace(device, health=health, health_since=since)

    def _device(
        self,
        uuid: str,
        index: int,
        parent_uuid: str,
        signal: Signal,
        reading: GpuReading | InstanceReading | None,
    ) -> Device:
        """The device with its window, owners and times brought forward."""
        before = self.before.devices.get(uuid)
        history = extend(before.history if before is not None else None, signal, self._now, self.rules.window)
        ownership = self.seen.ownership
        pods = () if isinstance(ownership, Missing) else ownership.by_device.get(uuid, ())
        users = () if reading is None else self._users(reading, pods)
        verdict = attributed(judge(history, self._now, self.rules.window), ownership, pods, users)
        is_same = before is not None and before.signal.verdict is verdict.verdict
        return Device(
            uuid=uuid,
            index=index,
            parent_uuid=parent_uuid,
            product=before.product if before is not None else "",
            reading=reading,
            watts=_NOT_READ,
            health=Health(Fitness.UNKNOWN, Sight.NOT_SEEN, ""),
            pods=pods,
            users=users,
            signal=verdict,
            since=before.since if before is not None and is_same else self.seen.at.wall,
            health_since=self.seen.at.wall,
            history=history,
            last_active=self._last_active(before, uuid, signal),
        )

    def _users(self, reading: GpuReading | InstanceReading, pods: tuple[PodRef, ...]) -> tuple[User, ...]:
        if isinstance(reading, GpuReading) and reading.has_mig:
            return ()  # its processes belong to the instances
        return users_of(reading.processes, pods, self.seen.process_owners)

    def _last_active(self, before: Device | None, uuid: str, signal: Signal) -> datetime | None:
        if signal.verdict is Verdict.ACTIVE:
            return self.seen.at.wall
        if before is not None:
            return before.last_active
        return self.before.remembered.get(uuid)

    def _mark(self, millijoules: Value, before: EnergyMark | None) -> EnergyMark | None:
        if isinstance(millijoules, Missing):
            return before
        return EnergyMark(float(millijoules), self._now)

    def _uuid_of(self, gpu: GpuReading) -> str:
        """The GPU's UUID; when the driver does not say, that of the GPU last seen at its index."""
        if gpu.uuid:
            return gpu.uuid
        for device in self.before.devices.values():
            if device.index == gpu.index and not device.parent_uuid:
                return device.uuid
        return f"{_PLACEHOLDER}{gpu.index}"

    @property
    def _now(self) -> float:
        return self.seen.at.monotonic


_NOT_READ = Missing(Cause.NO_DATA, "not read")
_PLACEHOLDER = "unidentified-"


def _is_placeholder(uuid: str) -> bool:
    return uuid.startswith(_PLACEHOLDER)

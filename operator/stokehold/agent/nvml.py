"""The only importer of pynvml: opens a session and reads GPUs into plain values.

Runs in the sampler's child process, because a call may never return (a driver in D state).
Before each call its name goes to `announce`, so that the parent can say which one hung.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pynvml

from stokehold.agent.readings import (
    Cause,
    GpuReading,
    InstanceReading,
    Missing,
    NodeReading,
    Processes,
    ProcessReading,
    Value,
    unreadable_gpu,
)

Announce = Callable[[str], None]

FIELD_RECOVERY_ACTION = 230
MEMORY_V2 = pynvml.nvmlMemory_v2
_NO_INSTANCE = 0xFFFFFFFF
_EMPTY_LOOKS_BEFORE_RESTART = 20

_ABSENT = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
_NO_DATA = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_NO_DATA, pynvml.NVML_ERROR_NOT_READY)
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
# After one of these the session itself is worth nothing; only a new process gets a new library.
_SESSION_OVER = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
)

# The versioned names: on a driver that lacks one, the plain name raises what is no NVMLError.
_PROCESS_CALLS = (
    ("compute", "nvmlDeviceGetComputeRunningProcesses"),
    ("graphics", "nvmlDeviceGetGraphicsRunningProcesses"),
    ("mps", "nvmlDeviceGetMPSComputeRunningProcesses"),
)


class SessionError(Exception):
    """NVML could not be opened, or the driver below an open session went away."""


@dataclass(slots=True)
class _Device:
    """A GPU that stays the same while the session is open."""

    handle: Any
    index: int
    uuid: str
    product: str
    minor: int | None
    bus_id: str
    last_sample_us: int = 0
    empty_looks: int = 0


class Session:
    """NVML held open. Reading never raises for one GPU's trouble, only for the session's."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._devices: dict[int, _Device] = {}
        self._slowest_seconds = 0.0
        self._driver_version = ""

    def __enter__(self) -> Self:
        self._session_call("nvmlInit")
        self._driver_version = _text(self._session_call("nvmlSystemGetDriverVersion"))
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.call("", "nvmlShutdown", is_closing=True)

    def read(self) -> NodeReading:
        """One look at every GPU; raises SessionError when the driver has gone."""
        start = time.monotonic()
        self._slowest_seconds = 0.0
        count = int(self._session_call("nvmlDeviceGetCount"))
        gpus = tuple(self._read_index(index) for index in range(count))
        return NodeReading(
            driver_version=self._driver_version,
            gpus=gpus,
            seconds=time.monotonic() - start,
            slowest_seconds=self._slowest_seconds,
        )

    def call(self, device: str, call: str, *arguments: Any, is_closing: bool = False) -> Any:
        """The call's answer, or a Missing that says why there is none."""
        self._announce(f"{call} on {device}" if device else call)
        start = time.monotonic()
        try:
            return getattr(pynvml, call)(*arguments)
        except pynvml.NVMLError as error:
            if error.value in _SESSION_OVER and not is_closing:
                raise SessionError(f"{call}: {error}") from error
            return _missing(call, error.value, str(error))
        finally:
            self._slowest_seconds = max(self._slowest_seconds, time.monotonic() - start)

    def _session_call(self, call: str) -> Any:
        answer = self.call("", call)
        if isinstance(answer, Missing):
            raise SessionError(answer.evidence)
        return answer

    def _read_index(self, index: int) -> GpuReading:
        if index not in self._devices:
            opened = self._open(index)
            if isinstance(opened, Missing):
                return unreadable_gpu(index, "", opened)
            self._devices[index] = opened
        return self._read_device(self._devices[index])

    def _open(self, index: int) -> _Device | Missing:
        name = f"gpu {index}"
        handle = self.call(name, "nvmlDeviceGetHandleByIndex", index)
        if isinstance(handle, Missing):
            return handle
        uuid = self.call(name, "nvmlDeviceGetUUID", handle)
        if isinstance(uuid, Missing):
            return uuid
        minor = self.call(name, "nvmlDeviceGetMinorNumber", handle)
        pci = self.call(name, "nvmlDeviceGetPciInfo", handle)
        return _Device(
            handle=handle,
            index=index,
            uuid=_text(uuid),
            product=_text(self.call(name, "nvmlDeviceGetName", handle)),
            minor=None if isinstance(minor, Missing) else int(minor),
            bus_id="" if isinstance(pci, Missing) else _text(pci.busId),
        )

    def _read_device(self, device: _Device) -> GpuReading:
        handle, uuid = device.handle, device.uuid
        mig = self.call(uuid, "nvmlDeviceGetMigMode", handle)
        mig_mode = mig if isinstance(mig, Missing) else int(mig[0])
        rates = self.call(uuid, "nvmlDeviceGetUtilizationRates", handle)
        total, used = self._memory(uuid, handle)
        rows = self.call(uuid, "nvmlDeviceGetRemappedRows", handle)
        return GpuReading(
            index=device.index,
            uuid=uuid,
            product=device.product,
            minor=device.minor,
            bus_id=device.bus_id,
            mig_mode=mig_mode,
            utilization_percent=_larger(self._sampled_peak(device), _part(rates, "gpu")),
            memory_utilization_percent=_part(rates, "memory"),
            memory_total_bytes=total,
            memory_used_bytes=used,
            power_milliwatts=self.call(uuid, "nvmlDeviceGetPowerUsage", handle),
            power_limit_milliwatts=self.call(uuid, "nvmlDeviceGetEnforcedPowerLimit", handle),
            energy_millijoules=self.call(uuid, "nvmlDeviceGetTotalEnergyConsumption", handle),
            temperature_celsius=self.call(uuid, "nvmlDeviceGetTemperature", handle, pynvml.NVML_TEMPERATURE_GPU),
            recovery_action=self._recovery_action(uuid, handle),
            rows_pending=rows if isinstance(rows, Missing) else int(rows[2]),
            rows_failed=rows if isinstance(rows, Missing) else int(rows[3]),
            processes=self._processes(uuid, handle),
            instances=self._instances(uuid, handle, mig_mode),
        )

    def _sampled_peak(self, device: _Device) -> Value:
        """The maximum of the driver's samples since the last look."""
        answer = self.call(
            device.uuid,
            "nvmlDeviceGetSamples",
            device.handle,
            pynvml.NVML_GPU_UTILIZATION_SAMPLES,
            device.last_sample_us,
        )
        device.empty_looks += 1
        if device.empty_looks > _EMPTY_LOOKS_BEFORE_RESTART:
            device.last_sample_us = 0  # the driver's clock was set back
        if isinstance(answer, Missing):
            return answer
        # Unused places of the ring come with a timestamp of zero.
        fresh = [sample for sample in answer[1] if sample.timeStamp > device.last_sample_us]
        if not fresh:
            return Missing(Cause.NO_DATA, "nvmlDeviceGetSamples: no new sample")
        device.empty_looks = 0
        device.last_sample_us = max(int(sample.timeStamp) for sample in fresh)
        return max(int(sample.sampleValue.uiVal) for sample in fresh)

    def _memory(self, name: str, handle: Any) -> tuple[Value, Value]:
        memory = self.call(name, "nvmlDeviceGetMemoryInfo", handle, MEMORY_V2)
        if isinstance(memory, Missing) and memory.cause is Cause.ABSENT:
            memory = self.call(name, "nvmlDeviceGetMemoryInfo", handle)  # counts reserved as used
        return _part(memory, "total"), _part(memory, "used")

    def _recovery_action(self, uuid: str, handle: Any) -> Value:
        call = "nvmlDeviceGetFieldValues"
        fields = self.call(uuid, call, handle, [FIELD_RECOVERY_ACTION])
        if isinstance(fields, Missing):
            return fields
        result = int(fields[0].nvmlReturn)
        if result != pynvml.NVML_SUCCESS:
            return _missing(f"{call} {FIELD_RECOVERY_ACTION}", result, str(pynvml.NVMLError(result)))
        return int(fields[0].value.uiVal)

    def _processes(self, name: str, handle: Any) -> Processes:
        """Every process on the device; missing when a kind could not be listed for an error."""
        found: list[ProcessReading] = []
        missing: list[Missing] = []
        for kind, call in _PROCESS_CALLS:
            listed = self.call(name, f"{call}_v3", handle)
            if isinstance(listed, Missing) and listed.cause is Cause.ABSENT:
                listed = self.call(name, f"{call}_v2", handle)
            if isinstance(listed, Missing):
                missing.append(listed)
            else:
                found.extend(_process(kind, raw) for raw in listed)
        failed = [gap for gap in missing if gap.cause is not Cause.ABSENT]
        if failed or len(missing) == len(_PROCESS_CALLS):
            return (failed or missing)[0]
        return tuple(sorted(found, key=lambda process: (process.pid, process.kind)))

    def _instances(self, uuid: str, handle: Any, mig_mode: Value) -> tuple[InstanceReading, ...] | Missing:
        if isinstance(mig_mode, Missing):
            return () if mig_mode.cause is Cause.ABSENT else mig_mode
        if mig_mode == 0:
            return ()
        count = self.call(uuid, "nvmlDeviceGetMaxMigDeviceCount", handle)
        if isinstance(count, Missing):
            return count
        instances = []
        for index in range(count):
            name = f"{uuid} mig {index}"
            mig = self.call(name, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
            if isinstance(mig, Missing) and mig.cause is Cause.NO_DATA:
                continue  # the index has holes
            instance = mig if isinstance(mig, Missing) else self._instance(name, mig)
            if isinstance(instance, Missing):
                return instance
            instances.append(instance)
        return tuple(instances)

    def _instance(self, name: str, handle: Any) -> InstanceReading | Missing:
        uuid = self.call(name, "nvmlDeviceGetUUID", handle)
        if isinstance(uuid, Missing):
            return uuid
        gpu_instance = self.call(name, "nvmlDeviceGetGpuInstanceId", handle)
        compute_instance = self.call(name, "nvmlDeviceGetComputeInstanceId", handle)
        total, used = self._memory(name, handle)
        return InstanceReading(
            uuid=_text(uuid),
            name=_text(self.call(name, "nvmlDeviceGetName", handle)),
            gpu_instance=None if isinstance(gpu_instance, Missing) else int(gpu_instance),
            compute_instance=(None if isinstance(compute_instance, Missing) else int(compute_instance)),
            memory_total_bytes=total,
            memory_used_bytes=used,
            processes=self._processes(name, handle),
        )


def _missing(call: str, result: int, text: str) -> Missing:
    evidence = f"{call}: {text}"
    if result in _ABSENT:
        return Missing(Cause.ABSENT, evidence)
    if result in _NO_DATA:
        return Missing(Cause.NO_DATA, evidence)
    if result in _LOST:
        return Missing(Cause.LOST, evidence)
    return Missing(Cause.FAILED, evidence)


def _larger(sampled: Value, rate: Value) -> Value:
    """The larger of two views of one value; an error of either is not covered up by the other."""
    if isinstance(sampled, Missing):
        # No ring, or nothing new in it: the driver's own last period has to do.
        return rate if sampled.cause in (Cause.ABSENT, Cause.NO_DATA) else sampled
    if isinstance(rate, Missing):
        return sampled if rate.cause in (Cause.ABSENT, Cause.NO_DATA) else rate
    return max(sampled, rate)


def _part(answer: Any, name: str) -> Value:
    return answer if isinstance(answer, Missing) else int(getattr(answer, name))


def _process(kind: str, raw: Any) -> ProcessReading:
    gpu_instance = int(raw.gpuInstanceId)
    return ProcessReading(
        pid=int(raw.pid),
        kind=kind,
        gpu_instance=None if gpu_instance == _NO_INSTANCE else gpu_instance,
    )


def _text(raw: Any) -> str:
    if isinstance(raw, Missing):
        return ""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)

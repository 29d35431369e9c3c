"""Every NVML call that matters to the agent, made once and timed. Runs in NVML's own process."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stokehold.agent.nvml import FIELD_RECOVERY_ACTION, MEMORY_V2, Announce, Session, SessionError
from stokehold.agent.readings import Cause, Missing

UTILIZATION_SAMPLES = 1
TEMPERATURE_OF_GPU = 0


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What one call gave: `result` is ok, absent, no-data, failed or lost."""

    device: str
    call: str
    result: str
    milliseconds: float
    value: str = ""
    error: str = ""


# (call, its arguments after the handle)
GPU_CALLS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("nvmlDeviceGetUUID", ()),
    ("nvmlDeviceGetName", ()),
    ("nvmlDeviceGetPersistenceMode", ()),
    ("nvmlDeviceGetMigMode", ()),
    ("nvmlDeviceGetUtilizationRates", ()),
    ("nvmlDeviceGetSamples", (UTILIZATION_SAMPLES, 0)),
    ("nvmlDeviceGetProcessUtilization", (0,)),
    ("nvmlDeviceGetMemoryInfo", (MEMORY_V2,)),
    ("nvmlDeviceGetPowerUsage", ()),
    ("nvmlDeviceGetEnforcedPowerLimit", ()),
    ("nvmlDeviceGetTotalEnergyConsumption", ()),
    ("nvmlDeviceGetTemperature", (TEMPERATURE_OF_GPU,)),
    ("nvmlDeviceGetComputeRunningProcesses_v3", ()),
    ("nvmlDeviceGetGraphicsRunningProcesses_v3", ()),
    ("nvmlDeviceGetMPSComputeRunningProcesses_v3", ()),
    ("nvmlDeviceGetFieldValues", ([FIELD_RECOVERY_ACTION],)),
    ("nvmlDeviceGetRemappedRows", ()),
    ("nvmlGpmQueryDeviceSupport", ()),
    ("nvmlDeviceGetMaxMigDeviceCount", ()),
)
MIG_CALLS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("nvmlDeviceGetUUID", ()),
    ("nvmlDeviceGetName", ()),
    ("nvmlDeviceGetGpuInstanceId", ()),
    ("nvmlDeviceGetComputeInstanceId", ()),
    ("nvmlDeviceGetUtilizationRates", ()),
    ("nvmlDeviceGetMemoryInfo", (MEMORY_V2,)),
    ("nvmlDeviceGetComputeRunningProcesses_v3", ()),
)


def probe_calls(announce: Announce, skipped: frozenset[str]) -> Iterator[CallOutcome]:
    """Make each call on each device once, except those whose `call on device` is skipped."""
    try:
        with Session(announce) as session:
            yield from _Probe(session, skipped).run()
    except SessionError as error:
        yield CallOutcome("", "session", Cause.FAILED, 0.0, error=str(error))


class _Probe:
    def __init__(self, session: Session, skipped: frozenset[str]) -> None:
        self._session = session
        self._skipped = skipped
        self._answer: Any = None

    def run(self) -> Iterator[CallOutcome]:
        yield from self._make("", "nvmlSystemGetDriverVersion")
        yield from self._make("", "nvmlSystemGetNVMLVersion")
        yield from self._make("", "nvmlDeviceGetCount")
        for index in range(0 if self._answer is None else self._answer):
            device = f"gpu {index}"
            yield from self._make(device, "nvmlDeviceGetHandleByIndex", index)
            if self._answer is not None:
                yield from self._probe_gpu(device, self._answer)

    def _probe_gpu(self, device: str, handle: Any) -> Iterator[CallOutcome]:
        for call, arguments in GPU_CALLS:
            yield from self._make(device, call, handle, *arguments)
        for index in range(0 if self._answer is None else self._answer):
            mig = f"{device} mig {index}"
            yield from self._make(mig, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
            if self._answer is None:
                continue
            mig_handle = self._answer
            for call, arguments in MIG_CALLS:
                yield from self._make(mig, call, mig_handle, *arguments)

    def _make(self, device: str, call: str, *arguments: Any) -> Iterator[CallOutcome]:
        self._answer = None
        name = f"{call} on {device}" if device else call
        if name in self._skipped:
            return
        start = time.monotonic()
        answer = self._session.call(device, call, *arguments)
        milliseconds = round((time.monotonic() - start) * 1e3, 3)
        if isinstance(answer, Missing):
            yield CallOutcome(device, call, answer.cause, milliseconds, error=answer.evidence)
            return
        self._answer = answer
        yield CallOutcome(device, call, "ok", milliseconds, value=_describe(answer))


def _describe(answer: Any) -> str:
    """A short text of any answer; handles and pointers say nothing to people."""
    if isinstance(answer, bytes):
        return answer.decode(errors="replace")
    if isinstance(answer, (int, float, str)):
        return str(answer)
    if isinstance(answer, (list, tuple)):
        if all(isinstance(part, (int, float)) for part in answer):
            return ", ".join(str(part) for part in answer)
        parts = answer[1] if len(answer) == 2 and isinstance(answer[1], list) else answer
        return f"{len(parts)} entries"
    if hasattr(answer, "nvmlReturn"):
        return f"{answer.value.uiVal}"
    names = [name for name, *_ in getattr(type(answer), "_fields_", ())]
    return ", ".join(f"{name} {getattr(answer, name)}" for name in names if name != "version")

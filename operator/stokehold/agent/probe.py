"""`stokehold agent probe`: what NVML gives on this machine. Each call has its own deadline.

A call that hangs is noted, its process killed, and the probe goes on without it.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from stokehold.agent.nvml_process import NvmlProcess

MAX_HANGS = 3
OPENING_SECONDS = 60.0
CLOSE_SECONDS = 5.0
# What the agent judges by, and the calls that can give it.
SIGNALS = {
    "utilization": ("nvmlDeviceGetSamples", "nvmlDeviceGetUtilizationRates"),
    "memory": ("nvmlDeviceGetMemoryInfo",),
    "power": ("nvmlDeviceGetPowerUsage",),
    "energy": ("nvmlDeviceGetTotalEnergyConsumption",),
    "temperature": ("nvmlDeviceGetTemperature",),
    "processes": ("nvmlDeviceGetComputeRunningProcesses_v3",),
    "recoveryAction": ("nvmlDeviceGetFieldValues",),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What the probe found, ready for JSON."""

    calls: tuple[dict[str, Any], ...]
    hung: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether NVML could be opened at all."""
        return any(call["result"] == "ok" for call in self.calls)

    def to_json(self) -> str:
        """The report as indented JSON: the summary first, each call after it."""
        report = {
            "open": self.is_open,
            "error": "; ".join(c["error"] for c in self.calls if c["call"] == "session"),
            "driverVersion": self._value("", "nvmlSystemGetDriverVersion"),
            "nvmlVersion": self._value("", "nvmlSystemGetNVMLVersion"),
            "hung": list(self.hung),
            "devices": [self._device(device) for device in self._devices()],
            "calls": list(self.calls),
        }
        return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()

    def _devices(self) -> list[str]:
        with_uuid = (c["device"] for c in self.calls if c["call"] == "nvmlDeviceGetUUID")
        return list(dict.fromkeys(with_uuid))

    def _device(self, device: str) -> dict[str, Any]:
        mig_mode = self._value(device, "nvmlDeviceGetMigMode").split(",")[0]
        signals = {name: self._signal(device, calls) for name, calls in SIGNALS.items()}
        return {
            "device": device,
            "uuid": self._value(device, "nvmlDeviceGetUUID"),
            "product": self._value(device, "nvmlDeviceGetName"),
            "mig": mig_mode == "1",
            "signals": signals,
            "activityIsKnown": signals["utilization"] == "ok",
        }

    def _signal(self, device: str, calls: tuple[str, ...]) -> str:
        """`ok`, or what the first call said instead."""
        answers = [c for c in self.calls if c["device"] == device and c["call"] in calls]
        if any(answer["result"] in ("ok", "no-data") for answer in answers):
            return "ok"
        if not answers:
            return "hung" if self._has_hung(device, calls) else "not asked"
        return f"{answers[0]['result']}: {answers[0]['error']}"

    def _has_hung(self, device: str, calls: tuple[str, ...]) -> bool:
        return any(f"{call} on {device}" in self.hung for call in calls)

    def _value(self, device: str, call: str) -> str:
        for outcome in self.calls:
            if outcome["device"] == device and outcome["call"] == call:
                return str(outcome["value"])
        return ""


async def run_probe(timeout_seconds: float) -> Report:
    """Make every call once, in a process that can be killed."""
    hung: list[str] = []
    while True:
        calls, hanging = await _probe_once(hung, timeout_seconds)
        if not hanging:
            return Report(tuple(calls), tuple(hung))
        hung.append(hanging)
        if len(hung) > MAX_HANGS or not calls:
            return Report(tuple(calls), tuple(hung))


async def _probe_once(skipped: list[str], timeout_seconds: float) -> tuple[list[dict[str, Any]], str]:
    """The calls' outcomes, and the call that did not return, if one did not."""
    process = await NvmlProcess.spawn("probe", *skipped)
    calls: list[dict[str, Any]] = []
    limit = max(OPENING_SECONDS, timeout_seconds)
    while line := await process.wait_line(limit):
        calls.append(msgspec.json.decode(line))
        limit = timeout_seconds
    if line is None:
        hanging = process.progress or "the start of the process"
        process.kill()
        return calls, hanging
    await process.close(CLOSE_SECONDS)
    return calls, ""

"""From readings to ACTIVE, QUIET or UNKNOWN. Pure; knows neither NVML nor pods nor the clock.

The rules, in order of weight: what was not seen is never quiet; one active sample makes a window
active; a number that cannot be true is no number.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from stokehold.agent.readings import Cause, GpuReading, InstanceReading, Missing, Value


class Verdict(StrEnum):
    """What a GPU does, as far as we know."""

    ACTIVE = "Active"
    QUIET = "Quiet"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Signal:
    """One verdict with what it rests on."""

    verdict: Verdict
    evidence: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where quiet ends."""

    utilization_percent: float = 3.0
    # Of the power limit. Idle GPUs draw up to half of it (T4 with a context: 36 of 70 W).
    power_share: float = 0.6
    # A power reading this many times the limit is a broken sensor, not a load.
    absurd_power_factor: float = 10.0


@dataclass(frozen=True, slots=True)
class Window:
    """How long all must be quiet, and the longest pause between two looks that is no gap."""

    seconds: float = 300.0
    longest_pause: float = 40.0


@dataclass(frozen=True, slots=True)
class EnergyMark:
    """The energy counter at one look."""

    millijoules: float
    at: float


@dataclass(frozen=True, slots=True)
class History:
    """All that a window needs to know of the past: constant in size, however fast the looks come.

    Times are monotonic seconds.
    """

    unbroken_since: float
    last_at: float
    last: Signal
    last_active_at: float | None = None
    last_active: str = ""
    last_unknown_at: float | None = None
    last_unknown: str = ""


def plausible(value: Value, low: float, high: float, what: str) -> Value:
    """The value, or Missing when it cannot be true."""
    if isinstance(value, Missing):
        return value
    if not math.isfinite(value) or not low <= value <= high:
        return Missing(Cause.FAILED, f"{what} of {value:g} cannot be true")
    return value


def mean_watts(before: EnergyMark | None, millijoules: Value, at: float) -> Value:
    """The mean power since the mark, from the energy counter: nothing can hide between looks."""
    if isinstance(millijoules, Missing):
        return millijoules
    if before is None or at <= before.at:
        return Missing(Cause.NO_DATA, "no earlier reading of the energy counter")
    if counter_went_back(before, millijoules):
        return Missing(Cause.FAILED, "the energy counter went back: the driver was reloaded")
    return (millijoules - before.millijoules) / 1e3 / (at - before.at)


def counter_went_back(before: EnergyMark | None, millijoules: Value) -> bool:
    """Whether the driver was loaded anew between two looks."""
    if before is None or isinstance(millijoules, Missing):
        return False
    return not math.isfinite(millijoules) or millijoules < before.millijoules


def signal_of_gpu(gpu: GpuReading, watts: Value, thresholds: Thresholds) -> Signal:
    """What one look says of a whole GPU; the activity of a GPU with MIG is not known here."""
    if isinstance(gpu.mig_mode, Missing) and gpu.mig_mode.cause is not Cause.ABSENT:
        return Signal(Verdict.UNKNOWN, gpu.mig_mode.evidence)
    if gpu.has_mig:
        return Signal(Verdict.UNKNOWN, "MIG is on: NVML gives no utilisation for MIG devices")
    utilization = utilization_signal(gpu.utilization_percent, thresholds)
    power = power_signal(watts, gpu.power_limit_milliwatts, thresholds)
    if utilization.verdict is Verdict.ACTIVE:
        return utilization
    if power.verdict is Verdict.ACTIVE:
        return Signal(Verdict.ACTIVE, f"{power.evidence}, {utilization.evidence}")
    # Many GPUs have no energy counter or no limit, and are judged without; where both are read and cannot be true,
    # the driver is not believed when it says 0 % either.
    is_read = not isinstance(watts, Missing) and not isinstance(gpu.power_limit_milliwatts, Missing)
    lies = is_read and power.verdict is Verdict.UNKNOWN and utilization.verdict is Verdict.QUIET
    return power if lies else utilization


def signal_of_instance(instance: InstanceReading) -> Signal:
    """A MIG device has no signal of its own in NVML: processes and memory prove nothing."""
    if isinstance(instance.processes, Missing):
        return Signal(Verdict.UNKNOWN, f"MIG device; {instance.processes.evidence}")
    count = len(instance.processes)
    return Signal(Verdict.UNKNOWN, f"MIG device: NVML gives no utilisation; it holds {count} processes")


def utilization_signal(percent: Value, thresholds: Thresholds) -> Signal:
    """The verdict on the maximum of the driver's samples."""
    value = plausible(percent, 0.0, 100.0, "utilisation")
    if isinstance(value, Missing):
        return Signal(Verdict.UNKNOWN, value.evidence)
    verdict = Verdict.ACTIVE if value > thresholds.utilization_percent else Verdict.QUIET
    return Signal(verdict, f"utilisation up to {value:g} %")


def power_signal(watts: Value, limit_milliwatts: Value, thresholds: Thresholds) -> Signal:
    """The verdict on the mean power: ACTIVE only far above what an idle GPU can draw."""
    limit = plausible(limit_milliwatts, 1.0, 1e8, "power limit")
    if isinstance(limit, Missing):
        return Signal(Verdict.UNKNOWN, limit.evidence)
    limit_watts = limit / 1e3
    value = plausible(watts, 0.0, limit_watts * thresholds.absurd_power_factor, "power in W")
    if isinstance(value, Missing):
        return Signal(Verdict.UNKNOWN, value.evidence)
    is_active = value > limit_watts * thresholds.power_share
    verdict = Verdict.ACTIVE if is_active else Verdict.QUIET
    return Signal(verdict, f"{value:.0f} of {limit_watts:.0f} W on average")


def extend(history: History | None, signal: Signal, at: float, window: Window) -> History:
    """The history with one more look."""
    if history is None or at - history.last_at > window.longest_pause:
        # What happened in the pause is not known; what was active before it stays so.
        history = History(
            unbroken_since=at,
            last_at=at,
            last=signal,
            last_active_at=None if history is None else history.last_active_at,
            last_active="" if history is None else history.last_active,
        )
    history = replace(history, last_at=at, last=signal)
    if signal.verdict is Verdict.ACTIVE:
        return replace(history, last_active_at=at, last_active=signal.evidence)
    if signal.verdict is Verdict.UNKNOWN:
        return replace(history, last_unknown_at=at, last_unknown=signal.evidence)
    return history


def judge(history: History | None, now: float, window: Window) -> Signal:
    """The verdict on the window that ends now."""
    if history is None:
        return Signal(Verdict.UNKNOWN, "not looked at yet")
    pause = now - history.last_at
    if pause > window.longest_pause:
        return Signal(Verdict.UNKNOWN, f"no look for {pause:.0f} s")
    if history.last.verdict is Verdict.UNKNOWN:
        return history.last
    start = now - window.seconds
    if history.last_active_at is not None and history.last_active_at > start:
        return Signal(Verdict.ACTIVE, history.last_active)
    hole = _hole_in(history, now, window)
    if hole:
        return Signal(Verdict.UNKNOWN, hole)
    return Signal(Verdict.QUIET, f"{history.last.evidence}, quiet for {window.seconds:.0f} s")


def _hole_in(history: History, now: float, window: Window) -> str:
    """What of the window was not seen; empty when all was."""
    start = now - window.seconds
    if history.last_unknown_at is not None and history.last_unknown_at > start:
        return f"{now - history.last_unknown_at:.0f} s ago: {history.last_unknown}"
    if history.unbroken_since > start:
        return f"quiet, but seen for {now - history.unbroken_since:.0f} of {window.seconds:.0f} s only"
    return ""

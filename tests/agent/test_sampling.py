"""Windows and verdicts: what was not seen is never quiet."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.builders import a_gpu
from stokehold.agent.readings import Cause, Missing
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
    plausible,
    signal_of_gpu,
    utilization_signal,
)

WINDOW = Window(seconds=100.0, longest_pause=25.0)
THRESHOLDS = Thresholds()
ABSENT = Missing(Cause.ABSENT, "nvmlDeviceGetSamples: Not Supported")


@dataclass(frozen=True)
class Look:
    pause: float
    verdict: Verdict


QUIET_LOOK = st.builds(Look, st.floats(5.0, 24.0), st.just(Verdict.QUIET))
ANY_LOOK = st.builds(Look, st.floats(0.1, 60.0), st.sampled_from(Verdict))
looks = st.lists(st.one_of(QUIET_LOOK, QUIET_LOOK, QUIET_LOOK, ANY_LOOK), min_size=1, max_size=40)


def history_of(sequence: list[Look]) -> tuple[History, list[tuple[float, Verdict]], float]:
    history, at, seen = None, 1000.0, []
    for look in sequence:
        at += look.pause
        history = extend(history, Signal(look.verdict, look.verdict.value), at, WINDOW)
        seen.append((at, look.verdict))
    assert history is not None
    return history, seen, at


@given(looks, st.floats(0.0, 60.0))
def test_quiet_means_that_every_look_of_the_whole_window_was_quiet(sequence: list[Look], later: float):
    history, seen, last = history_of(sequence)
    now = last + later

    if judge(history, now, WINDOW).verdict is not Verdict.QUIET:
        return
    start = now - WINDOW.seconds
    inside = [(at, verdict) for at, verdict in seen if at > start]
    assert {verdict for _, verdict in inside} == {Verdict.QUIET}
    first_after_start = [at for at, _ in seen if at <= start][-1:] + [at for at, _ in inside] + [now]
    assert first_after_start[0] <= start
    pauses = [b - a for a, b in pairwise(first_after_start)]
    assert max(pauses) <= WINDOW.longest_pause + 1e-9


def test_a_gap_between_quiet_looks_is_a_hole_in_the_window():
    history, _, now = history_of([Look(pause, Verdict.QUIET) for pause in (*[20.0] * 6, 26.0, *[20.0] * 4)])

    assert "seen for 80 of 100 s" in judge(history, now, WINDOW).evidence
    assert judge(extend(history, history.last, now + 20.0, WINDOW), now + 20.0, WINDOW).verdict is Verdict.QUIET


@given(looks)
def test_a_window_that_was_quiet_all_over_is_quiet(sequence: list[Look]):
    before, _, at = history_of(sequence)
    history = before
    for _ in range(11):
        at += 10.0
        history = extend(history, Signal(Verdict.QUIET, "0 %"), at, WINDOW)

    assert judge(history, at, WINDOW).verdict is Verdict.QUIET


@given(looks)
def test_any_active_look_in_the_window_is_activity_when_the_last_look_saw_something(sequence: list[Look]):
    history, seen, now = history_of(sequence)

    has_active = any(verdict is Verdict.ACTIVE and at > now - WINDOW.seconds for at, verdict in seen)
    verdict = judge(history, now, WINDOW).verdict
    if seen[-1][1] is Verdict.UNKNOWN:
        assert verdict is Verdict.UNKNOWN
    else:
        assert (verdict is Verdict.ACTIVE) == has_active


@given(looks, st.floats(25.1, 1e6))
def test_a_gap_is_unknown_whatever_was_before(sequence: list[Look], pause: float):
    history, _, last = history_of(sequence)

    assert judge(history, last + pause, WINDOW).verdict is Verdict.UNKNOWN


@given(st.one_of(st.floats(), st.integers()))
def test_utilisation_outside_a_percentage_is_unknown(percent: float):
    verdict = utilization_signal(percent, THRESHOLDS).verdict

    is_possible = math.isfinite(percent) and 0 <= percent <= 100
    assert (verdict is Verdict.UNKNOWN) == (not is_possible)


@given(st.one_of(st.integers(0, 100), st.just(0xFFFFFFFF)), st.booleans())
def test_a_gpu_with_mig_is_unknown_whatever_the_numbers_say(percent: int, is_loaded: bool):
    gpu = a_gpu(utilization_percent=percent, mig_mode=1)

    assert signal_of_gpu(gpu, 700.0 if is_loaded else 60.0, THRESHOLDS).verdict is Verdict.UNKNOWN


def test_a_gpu_that_does_not_say_whether_mig_is_on_is_unknown_and_one_without_mig_is_whole():
    failed = a_gpu(mig_mode=Missing(Cause.FAILED, "nvmlDeviceGetMigMode: Unknown Error"))
    absent = a_gpu(mig_mode=Missing(Cause.ABSENT, "nvmlDeviceGetMigMode: Not Supported"))

    assert signal_of_gpu(failed, 60.0, THRESHOLDS).verdict is Verdict.UNKNOWN
    assert signal_of_gpu(absent, 60.0, THRESHOLDS).verdict is Verdict.QUIET


@pytest.mark.parametrize("cause", list(Cause))
def test_a_missing_value_is_unknown_and_never_quiet(cause: Cause):
    gpu = a_gpu(utilization_percent=Missing(cause, "why"))

    assert signal_of_gpu(gpu, 60.0, THRESHOLDS) == Signal(Verdict.UNKNOWN, "why")


def test_high_power_without_utilisation_is_activity():
    gpu = a_gpu(utilization_percent=ABSENT)

    signal = signal_of_gpu(gpu, 650.0, THRESHOLDS)

    assert signal.verdict is Verdict.ACTIVE
    assert "650 of 700 W" in signal.evidence


@pytest.mark.parametrize("watts", [math.nan, math.inf, -1.0, 7001.0])
def test_power_that_cannot_be_true_proves_neither_activity_nor_quiet(watts: float):
    assert signal_of_gpu(a_gpu(utilization_percent=ABSENT), watts, THRESHOLDS).verdict is Verdict.UNKNOWN
    assert signal_of_gpu(a_gpu(utilization_percent=0), watts, THRESHOLDS).verdict is Verdict.UNKNOWN
    assert signal_of_gpu(a_gpu(utilization_percent=90), watts, THRESHOLDS).verdict is Verdict.ACTIVE


def test_a_gpu_without_a_power_limit_is_judged_by_its_utilisation():
    gpu = a_gpu(utilization_percent=0, power_limit_milliwatts=ABSENT)

    assert signal_of_gpu(gpu, 1e9, THRESHOLDS).verdict is Verdict.QUIET


@given(st.floats(0, 1e15), st.floats(0, 1e15))
def test_an_energy_counter_that_goes_back_gives_no_power(before: float, after: float):
    mark = EnergyMark(before, at=10.0)

    watts = mean_watts(mark, after, at=20.0)

    assert isinstance(watts, Missing) == (after < before) == counter_went_back(mark, after)


def test_mean_power_comes_from_the_whole_pause():
    assert mean_watts(EnergyMark(1_000_000.0, at=10.0), 1_001_500.0, at=25.0) == pytest.approx(0.1)


def test_a_value_of_the_range_is_kept():
    assert plausible(100, 0, 100, "utilisation") == 100

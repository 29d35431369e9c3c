"""One step from look to look."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.builders import NO_OWNERS, RULES, START, a_gpu, a_slice, seen, state_after, uuid_of
from stokehold.agent.attribution import Owners, PodRef, ProcessOwner
from stokehold.agent.health import Fitness
from stokehold.agent.node_state import Observation
from stokehold.agent.readings import Cause, Missing, NodeReading, ProcessReading, unreadable_gpu
from stokehold.agent.sampling import Verdict

A = PodRef("team-a", "a", "main")
FAILED = Missing(Cause.FAILED, "it fails")

# What one look may give of GPU 0 when not all is well. The energy counter is in mJ for each look that came before: it
# must go back, or leap, beside the same fault in the look before too.
FAULTS: dict[str, dict[str, object]] = {
    "busy": {"utilization_percent": 4},
    "absurd": {"utilization_percent": 0xFFFFFFFF},
    "no utilisation": {"utilization_percent": FAILED},
    "utilisation absent": {"utilization_percent": Missing(Cause.ABSENT, "Not Supported")},
    "lost": {"utilization_percent": Missing(Cause.LOST, "GPU is lost")},
    "mig": {"mig_mode": 1, "utilization_percent": Missing(Cause.ABSENT, "Not Supported")},
    "mig and 0 %": {"mig_mode": 1},
    "mig not told": {"mig_mode": FAILED},
    "reloaded": {"energy_millijoules": -1},
    "hot": {"energy_millijoules": 10**12},
}
CALM = st.tuples(st.just("calm"), st.floats(1.0, 20.0))
LATE = st.tuples(st.just("calm"), st.floats(35.0, 60.0))
TROUBLED = st.tuples(st.sampled_from([*FAULTS, "no look", "not listed"]), st.floats(1.0, 60.0))


@given(st.lists(st.one_of(CALM, CALM, CALM, LATE, TROUBLED), min_size=1, max_size=25))
def test_a_gpu_is_quiet_only_when_nothing_at_all_was_amiss_in_the_window(looks: list[tuple[str, float]]):
    now, observations, times = 0.0, [], []
    for number, (kind, pause) in enumerate(looks):
        now += pause
        times.append(now)
        gpu = a_gpu(0, **{"energy_millijoules": 1, **FAULTS.get(kind, {})})
        gpu = replace(gpu, energy_millijoules=10_000 + gpu.energy_millijoules * number)
        missed = {"look": NodeReading(error="it hangs")} if kind == "no look" else {}
        observations.append(seen(now, *([] if kind == "not listed" else [gpu]), **missed))

    device = state_after(*observations).devices.get(uuid_of(0))

    if device is None or device.signal.verdict is not Verdict.QUIET:
        return
    start = now - RULES.window.seconds
    assert times[0] <= start
    assert {kind for (kind, _), at in zip(looks, times, strict=True) if at > start} == {"calm"}
    assert all(pause <= RULES.window.longest_pause for (_, pause), at in zip(looks, times, strict=True) if at > start)


@given(st.lists(TROUBLED, max_size=20))
def test_a_gpu_is_quiet_again_a_window_after_the_last_trouble(looks: list[tuple[str, float]]):
    now, observations = 0.0, []
    for kind, pause in [*looks, *[("calm", 10.0)] * 8]:
        now += pause
        gpu = a_gpu(0, **{"energy_millijoules": 2 * 10**12 + int(now), **FAULTS.get(kind, {})})
        observations.append(seen(now, *([] if kind == "not listed" else [gpu])))

    assert state_after(*observations).devices[uuid_of(0)].signal.verdict is Verdict.QUIET


def quiet_until(seconds: int, **changes: object) -> list[Observation]:
    return [replace(seen(float(s), a_gpu(0), a_gpu(1)), **changes) for s in range(0, seconds + 1, 15)]


def test_a_failed_look_makes_each_known_device_unknown_and_keeps_it():
    state = state_after(*quiet_until(90), seen(105.0, look=NodeReading(error="it hangs")))

    assert [d.signal.verdict for d in state.devices.values()] == [Verdict.UNKNOWN] * 2
    assert {d.signal.evidence for d in state.devices.values()} == {"it hangs"}
    assert {d.health.fitness for d in state.devices.values()} == {Fitness.UNKNOWN}
    assert state.driver_version == "580.65.06"


def test_quiet_comes_back_only_a_window_after_a_failed_look():
    failed = seen(105.0, look=NodeReading(error="it hangs"))
    after = [seen(float(s), a_gpu(0)) for s in range(120, 181, 15)]

    verdicts = [state_after(*quiet_until(90), failed, *after[:n]).devices[uuid_of(0)].signal.verdict for n in (1, 3, 5)]

    assert verdicts == [Verdict.UNKNOWN, Verdict.UNKNOWN, Verdict.QUIET]


def test_a_gpu_that_the_driver_no_longer_lists_is_unhealthy_and_stays_named():
    state = state_after(*quiet_until(90), seen(105.0, a_gpu(0)))

    assert state.devices[uuid_of(0)].signal.verdict is Verdict.QUIET
    assert state.devices[uuid_of(1)].signal.verdict is Verdict.UNKNOWN
    assert state.devices[uuid_of(1)].health.fitness is Fitness.UNHEALTHY


def test_a_gpu_that_does_not_say_its_uuid_is_the_one_last_seen_at_its_index():
    lost = Missing(Cause.LOST, "nvmlDeviceGetHandleByIndex: GPU is lost")

    state = state_after(*quiet_until(90), seen(105.0, a_gpu(0), unreadable_gpu(1, "", lost)))

    assert list(state.devices) == [uuid_of(0), uuid_of(1)]
    assert state.devices[uuid_of(1)].health.fitness is Fitness.UNHEALTHY


def test_a_driver_reload_is_a_gap_and_no_activity():
    reloaded = seen(105.0, a_gpu(0, energy_millijoules=5, utilization_percent=90))

    device = state_after(*quiet_until(90), reloaded).devices[uuid_of(0)]

    assert device.signal.verdict is Verdict.UNKNOWN
    assert device.last_active is None


def test_activity_is_dated_and_the_verdict_since_its_change():
    busy = seen(30.0, a_gpu(0, utilization_percent=50))
    state = state_after(seen(0.0, a_gpu(0)), seen(15.0, a_gpu(0)), busy, seen(45.0, a_gpu(0)))

    device = state.devices[uuid_of(0)]
    assert device.signal.verdict is Verdict.ACTIVE
    assert (device.since - START).total_seconds() == 30
    assert device.last_active == device.since


@pytest.mark.parametrize("hours", [2, -2])
def test_a_clock_that_is_put_right_claims_no_hour_that_nobody_has_seen(hours: int):
    wrong = START - timedelta(hours=hours)
    looks = [seen(0.0, a_gpu(0, utilization_percent=50)), *quiet_until(90)[1:]]
    looks = [replace(look, at=replace(look.at, wall=wrong + timedelta(seconds=look.at.monotonic))) for look in looks]

    state = state_after(*looks, seen(105.0, a_gpu(0)))

    device = state.devices[uuid_of(0)]
    assert device.signal.verdict is Verdict.QUIET
    assert device.since == START + timedelta(seconds=60)
    assert device.last_active == device.health_since == START


def test_a_slice_that_is_gone_is_dropped_with_a_look_and_kept_without_one():
    with_slice = seen(0.0, a_gpu(0, mig_mode=1, instances=(a_slice(9),)))
    no_list = seen(15.0, a_gpu(0, mig_mode=1, instances=Missing(Cause.FAILED, "no")))
    without = seen(30.0, a_gpu(0, mig_mode=1, instances=()))

    no_mode = seen(15.0, a_gpu(0, mig_mode=FAILED, instances=FAILED))

    assert len(state_after(with_slice, no_list).devices) == 2
    assert len(state_after(with_slice, no_mode).devices) == 2
    assert list(state_after(with_slice, no_list, without).devices) == [uuid_of(0)]


@pytest.mark.parametrize("percent", [0, 95])
def test_the_work_or_silence_of_another_pod_says_nothing_of_the_owner(percent: int):
    changes = {
        "ownership": Owners({uuid_of(0): (A,)}),
        "process_owners": {7: ProcessOwner("python", "uid-b", "team-b", "b")},
    }
    gpu = a_gpu(0, utilization_percent=percent, processes=(ProcessReading(7, "compute"),))

    looks = [replace(seen(float(s), gpu), **changes) for s in range(0, 91, 15)]

    signal = state_after(*looks).devices[uuid_of(0)].signal
    assert signal.verdict is Verdict.UNKNOWN
    assert "team-b/b" in signal.evidence


def test_the_user_of_a_gpu_that_nobody_was_given_is_named():
    gpu = a_gpu(0, utilization_percent=95, processes=(ProcessReading(7, "compute"),))

    state = state_after(replace(seen(0.0, gpu), process_owners={7: ProcessOwner("python", "uid-b", "team-b", "b")}))

    signal = state.devices[uuid_of(0)].signal
    assert signal.verdict is Verdict.ACTIVE
    assert "team-b/b" in signal.evidence


def test_unknown_owners_leave_no_pod_and_no_verdict_and_the_window_goes_on():
    unknown = Missing(Cause.FAILED, "List did not return in 5 s")
    known = quiet_until(90, ownership=Owners({uuid_of(0): (A,)}))
    blind = replace(seen(105.0, a_gpu(0)), ownership=unknown)

    device = state_after(*known, blind).devices[uuid_of(0)]
    again = state_after(*known, blind, replace(seen(120.0, a_gpu(0)), ownership=NO_OWNERS)).devices[uuid_of(0)]

    assert (device.pods, device.signal.verdict) == ((), Verdict.UNKNOWN)
    assert again.signal.verdict is Verdict.QUIET

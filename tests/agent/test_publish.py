"""The status that is written, and when."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.builders import START, a_gpu, a_slice, seen, state_after, uuid_of
from stokehold.agent.attribution import Owners, PodRef
from stokehold.agent.node_state import NodeState
from stokehold.agent.publish import (
    Pace,
    Status,
    WriteSchedule,
    fingerprint,
    remembered_activity,
    status_of,
)
from stokehold.agent.readings import Cause, Missing, NodeReading
from stokehold.api.v1alpha1 import gpu_node

PACE = Pace(heartbeat=300.0, burst=3, refill=30.0, first_retry=5.0, longest_retry=120.0)


def a_state(**changes: object) -> NodeState:
    gpus = (a_gpu(0, **changes), a_gpu(1, mig_mode=1, instances=(a_slice(9),)))
    owners = Owners({uuid_of(0): (PodRef("ns", "pod", "main"),)})
    return state_after(*(replace(seen(float(s), *gpus), ownership=owners) for s in range(0, 91, 15)))


def test_the_status_fits_the_kind():
    status = status_of(a_state(), "0.1.0")

    node = gpu_node.GPUNode.parse_strict(
        {"apiVersion": "stokehold.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": "n1"}, "status": status}
    )

    whole, parent = node.status.gpus
    assert whole.activity is not None
    assert (whole.activity.state, node.status.phase, node.status.quiet_gpus) == ("Quiet", "Ready", 1)
    assert whole.owners[0].pod == "pod"
    assert whole.activity.last_active_time is None
    assert whole.health is not None
    assert whole.health.recovery_action == "None"
    assert parent.mig_devices[0].profile == "1g.10gb"
    assert parent.memory_bytes == 80 << 30


def test_a_node_without_nvml_is_unknown_and_says_why():
    status = status_of(state_after(seen(0.0, look=NodeReading(error="Driver Not Loaded"))), "0.1.0")

    assert status["phase"] == "Unknown"
    assert status["conditions"][0]["message"] == "Driver Not Loaded"


def test_a_condition_keeps_its_time_while_its_status_stays():
    state = a_state()
    first = status_of(state, "0.1.0")
    later = replace(state, at=replace(state.at, wall=START.replace(hour=9)))
    blind = replace(later, ownership=Missing(Cause.FAILED, "no"))

    times = [
        {c["type"]: c["lastTransitionTime"] for c in status_of(s, "0.1.0", first["conditions"])["conditions"]}
        for s in (later, blind)
    ]

    assert times[0]["OwnersKnown"] == first["conditions"][1]["lastTransitionTime"]
    assert times[1]["OwnersKnown"] == "2026-01-31T09:00:00Z"


def test_what_changes_at_each_look_is_no_transition():
    calm = status_of(a_state(), "1")
    other = status_of(a_state(energy_millijoules=2_000_000, utilization_percent=2, power_milliwatts=80_000), "1")

    assert calm != other
    assert fingerprint(calm) == fingerprint(other)


def test_a_verdict_an_owner_and_the_reason_of_not_knowing_are_transitions():
    calm = a_state()
    unowned = replace(calm, devices={k: replace(d, pods=()) for k, d in calm.devices.items()})
    statuses = [
        status_of(state, "1")
        for state in (
            calm,
            unowned,
            a_state(utilization_percent=90),
            a_state(utilization_percent=Missing(Cause.FAILED, "a")),
            a_state(utilization_percent=Missing(Cause.FAILED, "b")),
        )
    ]

    assert len({fingerprint(status) for status in statuses}) == 5


def test_activity_is_remembered_from_what_an_earlier_agent_wrote():
    written: Status = {
        "gpus": [
            {
                "uuid": "GPU-1",
                "activity": {"lastActiveTime": "2026-01-31T08:00:00Z"},
                "migDevices": [
                    {"uuid": "MIG-1", "activity": {"lastActiveTime": "2026-01-31T08:00:00Z"}},
                    {"uuid": "M"},
                ],
            },
            {"uuid": "GPU-2"},
        ]
    }

    assert remembered_activity(written) == {"GPU-1": START, "MIG-1": START}
    assert remembered_activity(None) == {}
    assert remembered_activity({"gpus": [{"uuid": "GPU-1", "activity": {"lastActiveTime": "yesterday"}}]}) == {}


def test_nothing_is_due_between_heartbeats_while_nothing_changes():
    schedule = WriteSchedule("n1", PACE)
    status = status_of(a_state(), "1")
    assert schedule.is_due(status, 0.0)
    schedule.wrote(status, 0.0)

    due = [second for second in range(1, 400) if schedule.is_due(status, float(second))]

    assert 270 <= due[0] <= 330


@given(st.integers(15, 60), st.integers(100, 2000))
def test_a_verdict_that_flaps_cannot_write_without_end(step: int, looks: int):
    schedule = WriteSchedule("n1", PACE)
    flapping = [status_of(a_state(), "1"), status_of(a_state(utilization_percent=90), "1")]
    writes = 0
    for look in range(looks):
        now = look * step / 15
        if schedule.is_due(flapping[look % 2], now):
            schedule.wrote(flapping[look % 2], now)
            writes += 1

    seconds = looks * step / 15
    assert writes <= PACE.burst + seconds / PACE.refill + seconds / 270 + 2


def test_a_failed_write_is_put_off_for_longer_each_time_and_within_bounds():
    schedule = WriteSchedule("n1", PACE)
    status = status_of(a_state(), "1")
    now, tries = 0.0, []
    while now < 1000.0:
        if schedule.is_due(status, now):
            tries.append(now)
            schedule.failed(now)
        now += 1.0

    pauses = [b - a for a, b in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert 5 <= pauses[0] <= 9
    assert pauses[-1] <= 181

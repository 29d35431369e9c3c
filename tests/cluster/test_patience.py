"""Refused writes are tried again later and later, those that change nothing are not repeated, others go at once.

A fault of ours in one write holds up no other.
"""

from dataclasses import replace

import pytest

from builders import a_job, a_pod
from stokehold.cluster.apply import Applier
from stokehold.cluster.apply.patience import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Patience
from stokehold.cluster.apply.unheard import SAID_AGAIN_AFTER_SECONDS, Unheard
from stokehold.model.actions import ReleasePod

STATUS, OTHER = ("WriteStatus", "TrainingJob", "team-a/twin"), ("WriteStatus", "DevWorkspace", "team-a/twin")


def test_a_write_that_is_always_refused_is_sent_a_few_times_and_then_once_a_minute():
    now = 0.0
    patience = Patience(lambda: now)
    sent = []

    while now < 600:
        if not patience.waits(STATUS):
            sent.append(now)
            patience.note(STATUS, refused=True)
        assert not patience.waits(OTHER)
        now += 0.25

    assert sent[:5] == [0, 1, 3, 7, 15]
    assert len(sent) <= 6 + 600 / LONGEST_PAUSE_SECONDS


def test_success_and_long_silence_forget_the_refusals():
    now = 0.0
    patience = Patience(lambda: now)
    for _ in range(4):
        patience.note(STATUS, refused=True)
    patience.note(STATUS, refused=False)
    assert not patience.waits(STATUS)

    patience.note(STATUS, refused=True)
    now = 1.0
    assert not patience.waits(STATUS), "it begins with the shortest pause again"

    for _ in range(4):
        patience.note(STATUS, refused=True)
    now += 8 * FIRST_PAUSE_SECONDS + 2 * LONGEST_PAUSE_SECONDS
    patience.note(STATUS, refused=True)
    now += FIRST_PAUSE_SECONDS
    assert not patience.waits(STATUS), "nobody had tried for long"


def test_a_status_of_which_the_api_server_drops_what_is_new_is_said_once_until_something_changes():
    now = 0.0
    unheard = Unheard(lambda: now)
    job, changed = a_job(), replace(a_job(), resource_version="2")
    first, later = ({"phase": "Pending", "since": f"2026-01-01T12:00:0{second}Z"} for second in (1, 2))
    assert not unheard.is_vain(job, first)
    unheard.note(job, first, job.resource_version)

    assert unheard.is_vain(job, later)
    assert not unheard.is_vain(job, {**later, "phase": "Running"})
    assert not unheard.is_vain(changed, later)
    now = SAID_AGAIN_AFTER_SECONDS
    assert not unheard.is_vain(job, later)


def test_a_status_that_was_taken_may_be_said_again():
    unheard = Unheard()
    job = a_job()
    unheard.note(job, {"phase": "Pending"}, "2")

    assert not unheard.is_vain(job, {"phase": "Pending"})


async def test_an_action_that_we_fail_at_holds_up_no_other_and_is_not_tried_in_every_cycle(
    caplog: pytest.LogCaptureFixture,
):
    sent = []

    class FailingWrites:
        async def patch(self, resource: object, name: str, *_: object, **__: object) -> None:
            sent.append(name)
            if name == "odd":
                raise TypeError("an object that nobody has thought of")

    applier = Applier(FailingWrites(), None, lambda *_: None, lambda *_: None)  # type: ignore[arg-type]
    actions = [ReleasePod(a_pod("odd"), ""), ReleasePod(a_pod("plain"), "")]

    assert await applier.apply(actions) == {"failed": 1, "done": 1}
    assert await applier.apply(actions) == {"held": 1, "done": 1}
    assert sent == ["odd", "plain", "plain"]
    assert "nobody has thought of" in caplog.text

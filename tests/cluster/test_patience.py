"""Refused writes are tried again later and later, those that change nothing are not repeated, others go at once.

A fault of ours in one write holds up no other.
"""

from dataclasses import replace
from typing import Any, cast

import pytest

from builders import NOW, a_job, a_pod, a_pod_set, a_serving_pool
from stokehold.cluster.apply import Applier
from stokehold.cluster.apply.patience import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Patience
from stokehold.cluster.apply.unheard import SAID_AGAIN_AFTER_SECONDS, Unheard
from stokehold.cluster.errors import ForbiddenError
from stokehold.cluster.resources import DEPLOYMENTS, Resource
from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import Note, ReleasePod, ServingShape, WriteDeployment
from stokehold.model.snapshot import OwnObject

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


class RefusingWrites:
    """An API server with a policy against numbers of replicas; a new template is let through."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.events: list[str] = []

    def stamp(self) -> dict[str, str]:
        return {}

    async def apply_own(self, *_: object) -> None:
        """The Service and the budget are there."""

    async def patch(self, resource: Resource, _: str, patch: list[dict[str, Any]], **__: object) -> None:
        assert resource is DEPLOYMENTS
        self.numbers.append(next(one["value"] for one in patch if one["path"] == "/spec/replicas"))
        if not any(one["path"] == "/spec/template" for one in patch):
            raise ForbiddenError(403, "Forbidden", 'admission webhook "small" denied the request: 2 replicas at most')

    async def tell_once(self, about: OwnObject, note: Note) -> None:
        self.events.append(f"{about.name}: {note.reason}: {note.message}")


async def test_number_of_replicas_that_is_refused_is_told_and_not_repeated_and_holds_up_no_new_shape():
    writes, cluster = RefusingWrites(), Cluster(lambda: None, lambda: NOW)
    refusals: list[tuple[str, str]] = []
    pool = replace(a_serving_pool(), pod_set=a_pod_set(2))
    cluster.serving_pools.values[pool.key] = pool
    shape = ServingShape("nvidia.com/gpu", "", "digest")
    more = WriteDeployment(pool, 3, shape, reshapes=False)
    applier = Applier(cast("Any", writes), cluster, lambda *_: None, lambda *told: refusals.append(told))

    assert await applier.apply([more]) == {"refused": 1}
    assert await applier.apply([more]) == {"held": 1}
    assert await applier.apply([replace(more, reshapes=True)]) == {"done": 1}

    assert writes.numbers == [3, 3]
    assert refusals == [("InferencePool", "Forbidden")]
    (event,) = writes.events
    assert event.startswith("chat: WriteRefused: the API server refuses what the operator writes for it")
    assert "2 replicas at most" in event
    (after,) = cluster.snapshot().serving_pools.values()
    assert after.create_error == "", "its children were not refused: it does not wait"

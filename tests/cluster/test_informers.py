"""The cache tells the truth: whatever the server does, it ends up holding what the server holds."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from cluster.fake_api import FakeApi, answer, client, drop, line, send, serving
from stokehold.cluster.client import KubeApi
from stokehold.cluster.informers import Informer, Pace
from stokehold.cluster.resources import CONFIG_MAPS, PODS
from stokehold.cluster.watching import Metadata

FAST = Pace(page_size=10, idle_seconds=5.0, first_backoff_seconds=0.01, last_backoff_seconds=0.05)


class Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class WirePod(msgspec.Struct):
    metadata: Metadata
    spec: Spec = msgspec.field(default_factory=Spec)


class Journal:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def on_upsert(self, key, old, new):
        self.told.append(("upsert", key[1], old, new))

    def on_delete(self, key, old):
        self.told.append(("delete", key[1], old))


def node_of(pod: WirePod) -> str | None:
    if pod.spec.node_name == "poison":
        raise ValueError("no such node")
    return pod.spec.node_name or None


def pod(name: str, node: object = "n1", **metadata: object) -> dict:
    return {"metadata": {"name": name, "namespace": "a", **metadata}, "spec": {"nodeName": node}}


@pytest.fixture
async def fake():
    async with serving() as server:
        yield server


@pytest.fixture
async def api(fake, tmp_path):
    async with client(fake, tmp_path / "kubeconfig") as kube_api:
        yield kube_api


@asynccontextmanager
async def informing(api, pace=FAST, **settings):
    """A running informer, synced, with its journal."""
    journal = Journal()
    settings = {"wire": WirePod, "convert": node_of, "listener": journal} | settings
    informer = Informer(api, PODS, pace=pace, **settings)
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(5):
            await informer.wait_synced()
        yield informer, journal
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def names(informer) -> set[str]:
    return {name for _, name in informer.items()}


async def until(condition, within=5.0):
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the condition is the test's, not an event
            await asyncio.sleep(0.005)


async def test_a_list_of_many_pages_then_events_fill_the_cache(fake, api):
    for index in range(35):
        await fake.put("pods", pod(f"p{index}"))
    async with informing(api) as (informer, journal):
        listed = len(informer.items())
        await fake.put("pods", pod("p1", "n2"))
        await fake.put("pods", pod("new"))
        await fake.remove("pods", "p0", "a")
        await until(lambda: "p0" not in names(informer))

        assert listed == 35
        assert informer.items()["a", "p1"] == "n2"
        assert journal.told[-3:] == [
            ("upsert", "p1", "n1", "n2"),
            ("upsert", "new", None, "n1"),
            ("delete", "p0", "n1"),
        ]
        assert fake.count("list") == 4


async def test_objects_nobody_wants_are_not_held_and_leave_when_they_become_so(fake, api):
    await fake.put("pods", pod("unbound", ""))
    await fake.put("pods", pod("bound"))
    async with informing(api) as (informer, _):
        assert names(informer) == {"bound"}

        await fake.put("pods", pod("bound", ""))
        await until(lambda: not names(informer))


async def test_deletes_missed_while_the_watch_was_gone_are_told_after_the_relist(fake, api):
    for index in range(20):
        await fake.put("pods", pod(f"p{index}"))
    fake.fail_next("watch", drop, send(then="end"))
    async with informing(api) as (informer, journal):
        for index in range(8):
            await fake.remove("pods", f"p{index}", "a")
        fake.compact()
        await until(lambda: len(names(informer)) == 12)

        assert sum(told[0] == "delete" for told in journal.told) == 8


@pytest.mark.parametrize(
    "gone",
    [
        answer(410, "Expired"),
        send(line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})),
    ],
)
async def test_gone_in_either_form_makes_it_list_again(fake, api, gone):
    await fake.put("pods", pod("p"))
    fake.fail_next("watch", gone)
    async with informing(api) as (informer, _):
        await until(lambda: fake.count("list") == 2)
        await fake.put("pods", pod("q"))
        await until(lambda: names(informer) == {"p", "q"})


async def test_a_page_token_that_expires_restarts_the_list(fake, api):
    for index in range(35):
        await fake.put("pods", pod(f"p{index}"))
    fake.page_tokens_expire = 1
    async with informing(api) as (informer, _):
        assert len(informer.items()) == 35


async def test_a_list_whose_tokens_never_last_is_read_in_one_page(fake, api):
    for index in range(95):
        await fake.put("pods", pod(f"p{index}"))
    fake.page_tokens_expire = 1_000
    async with informing(api) as (informer, _):
        assert len(informer.items()) == 95
        assert "limit" not in fake.asked[-1].query or fake.asked[-1].verb == "watch"


async def test_a_broken_watch_goes_on_from_the_last_version_without_a_list(fake, api):
    await fake.put("pods", pod("p"))
    fake.fail_next(
        "watch",
        drop,
        answer(503),
        answer(429, Retry_After="0"),
        send(line("BOOKMARK", {"metadata": {"resourceVersion": "1001"}}), then="drop"),
    )
    async with informing(api) as (informer, _):
        await fake.put("pods", pod("q"))
        await until(lambda: names(informer) == {"p", "q"})

        assert fake.count("list") == 1
        assert fake.count("watch") >= 5


async def test_a_silent_watch_is_replaced(fake, api):
    seen = []
    fake.fail_next("watch", send(then="hang"))
    pace = Pace(idle_seconds=0.1, first_backoff_seconds=0.01)
    async with informing(api, pace, record=lambda *what: seen.append(what)) as (informer, _):
        await fake.put("pods", pod("q"))
        await until(lambda: names(informer) == {"q"})

    assert ("pods", "stall") in seen


@pytest.mark.parametrize(("seconds", "steady_seconds"), [(4.0, 4.0), (6.0, 0.0)])
async def test_an_outage_interrupts_steady_time_and_a_short_break_does_not(fake, api, seconds, steady_seconds):
    now = [0.0]

    async def sleep(_: float) -> None:
        now[0] += seconds

    fake.fail_next("watch", send(then="drop"))
    async with informing(api, clock=lambda: now[0], sleep=sleep) as (informer, _):
        await fake.put("pods", pod("p"))
        await until(lambda: names(informer) == {"p"})

        assert informer.steady_seconds() == steady_seconds


async def test_bookmarks_keep_it_young_and_move_the_version(fake, api):
    now = [0.0]
    fake.bookmark_seconds = 0.05
    async with informing(api, clock=lambda: now[0]) as (informer, _):
        await fake.put("nodes", {"metadata": {"name": "n"}})
        now[0] = 100.0
        await until(lambda: informer.age_seconds() == 0.0)
        now[0] = 130.0

        assert informer._store.stream_version == str(fake.version)
        assert informer.age_seconds() in (0.0, 30.0)


async def test_a_missing_kind_is_waited_for_and_told(fake, api):
    fake.fail_next("list", *[answer(404, "NotFound"), answer(403, "Forbidden")] * 3)
    await fake.put("pods", pod("p"))
    journal = Journal()
    informer = Informer(api, PODS, wire=WirePod, convert=node_of, listener=journal, pace=FAST)
    task = asyncio.create_task(informer.run())

    await until(lambda: informer.last_error is not None)
    told, synced = informer.last_error, informer.synced
    await until(lambda: informer.synced)
    task.cancel()

    assert not synced
    assert "404" in told or "403" in told
    assert informer.last_error is None


@pytest.mark.parametrize("bad", ["poison", 7])
async def test_one_unreadable_object_is_reported_and_stops_nothing(fake, api, bad):
    await fake.put("pods", pod("was-good", "n9"))
    await fake.put("pods", pod("bad-from-the-start", bad))
    async with informing(api) as (informer, _):
        await fake.put("pods", pod("was-good", bad))
        await fake.put("pods", pod("after"))
        await until(lambda: "after" in names(informer))

        assert set(informer.broken) == {("a", "bad-from-the-start"), ("a", "was-good")}
        assert "Error" in informer.broken["a", "was-good"].why
        assert informer.items()["a", "was-good"] == "n9"  # it still holds its place

        await fake.put("pods", pod("bad-from-the-start", "n2"))
        await fake.remove("pods", "was-good", "a")
        await until(lambda: not informer.broken)
        assert names(informer) == {"bad-from-the-start", "after"}


async def test_a_listener_that_fails_for_one_object_stops_nothing(fake, api):
    class Touchy(Journal):
        def on_upsert(self, key, old, new):
            if key[1] == "bad":
                raise KeyError(key)
            super().on_upsert(key, old, new)

    async with informing(api, listener=Touchy()) as (informer, _):
        await fake.put("pods", pod("bad"))
        await fake.put("pods", pod("good"))
        await until(lambda: "good" in names(informer))

        assert list(informer.broken) == [("a", "bad")]


async def test_a_name_taken_over_by_a_new_object_is_a_delete_and_an_add(fake, api):
    await fake.put("pods", pod("p", uid="one"))
    fake.fail_next("watch", drop)
    async with informing(api) as (informer, journal):
        await fake.remove("pods", "p", "a")
        fake.compact()
        await fake.put("pods", pod("p", "n2", uid="two"))
        await until(lambda: informer.items()["a", "p"] == "n2")

        assert journal.told[1:] == [("delete", "p", "n1"), ("upsert", "p", None, "n2")]


async def test_a_write_is_seen_at_once_and_its_event_is_not_told_again(fake, api):
    async with informing(api) as (informer, journal):
        fake.version += 1
        reply = pod("mine", "n4", uid="u", resourceVersion=str(fake.version + 1))
        informer.observe_write(reply)
        at_once = dict(informer.items())
        await fake.put("pods", pod("mine", "n4", uid="u"))
        await fake.put("pods", pod("other"))
        await until(lambda: "other" in names(informer))

        assert at_once == {("a", "mine"): "n4"}
        assert [told[1] for told in journal.told] == ["mine", "other"]


async def test_events_older_than_a_write_are_ignored(fake, api):
    await fake.put("pods", pod("p", "n1", uid="u"))
    async with informing(api) as (informer, _):
        informer.observe_write(pod("p", "n5", uid="u", resourceVersion="2000"))
        await fake.put("pods", pod("p", "n2"))
        await fake.put("pods", pod("later"))
        await until(lambda: "later" in names(informer))
        assert informer.items()["a", "p"] == "n5"

        await fake.put("pods", pod("p", "n6"), version=2001)
        await until(lambda: informer.items()["a", "p"] == "n6")


async def test_a_late_reply_does_not_bring_a_deleted_object_back(fake, api):
    async with informing(api) as (informer, _):
        made = await fake.put("pods", pod("p"))
        await fake.remove("pods", "p", "a")
        await fake.put("pods", pod("q"))
        await until(lambda: names(informer) == {"q"})

        informer.observe_write(made)

        assert names(informer) == {"q"}


async def test_a_relist_keeps_a_write_that_is_newer_than_it_and_drops_one_that_is_older(fake, api):
    await fake.put("pods", pod("p"))
    fake.fail_next("watch", send(then="hang"))
    pace = Pace(idle_seconds=0.3, first_backoff_seconds=0.01)
    async with informing(api, pace) as (informer, _):
        informer.observe_write(pod("older", uid="x", resourceVersion=str(fake.version + 1)))
        informer.observe_write(pod("newer", uid="y", resourceVersion="9000"))
        await fake.put("pods", pod("q"))
        await fake.put("pods", pod("r"))
        fake.compact()
        await until(lambda: "r" in names(informer))

        assert names(informer) == {"p", "q", "r", "newer"}


async def test_replies_that_are_no_objects_change_nothing(fake, api):
    async with informing(api) as (informer, _):
        informer.observe_write({"kind": "Status", "metadata": {}, "status": "Success"})
        informer.observe_write({"kind": "Status", "status": "Success"})

        assert not informer.items()
        assert not informer.broken


async def test_a_cluster_restored_from_a_backup_is_believed(fake, api):
    await fake.put("pods", pod("kept"), version=5000)
    await fake.put("pods", pod("made-after-the-backup"))
    fake.fail_next("watch", *[answer(504, "Timeout")] * FAST.refusals_before_relist)
    async with informing(api) as (informer, _):
        fake.restore_backup(3000, ("pods", "a", "made-after-the-backup"))
        await fake.put("pods", pod("kept", "n7"))
        await until(lambda: names(informer) == {"kept"})

        assert informer.items()["a", "kept"] == "n7"


async def test_rubbish_in_the_stream_is_outlived(fake, api):
    fake.fail_next("watch", send(b"<html>\n"), send(b'{"type": "NEW", "object": {}}\n'))
    async with informing(api) as (informer, _):
        await fake.put("pods", pod("p"))
        await until(lambda: names(informer) == {"p"})


async def test_the_end_state_is_the_servers_after_any_mixture_of_faults(fake: FakeApi, api):
    faults = [drop, answer(503), answer(410), send(then="drop"), answer(429, Retry_After="0")]
    for index in range(30):
        await fake.put("pods", pod(f"p{index}"))
    async with informing(api) as (informer, journal):
        for index in range(60):
            fake.fail_next("watch", faults[index % len(faults)])
            fake.fail_next("list", *[faults[(index * 3) % 2]] * (index % 2))
            await fake.put("pods", pod(f"p{index}", f"n{index}"))
            if index % 3 == 0:
                await fake.remove("pods", f"p{index}", "a")
            if index % 20 == 0:
                fake.compact()
            await asyncio.sleep(0.01)
        await fake.put("pods", pod("last"))
        held = {key: obj["spec"]["nodeName"] for key, obj in fake.held("pods").items()}
        await until(lambda: dict(informer.items()) == held, within=20)

        replayed = {}
        for told in journal.told:
            replayed.pop(told[1], None)
            if told[0] == "upsert":
                replayed[told[1]] = told[3]
        assert replayed == {name: node for (_, name), node in held.items()}


@pytest.mark.cluster
async def test_the_cache_follows_a_real_server_through_a_standstill_and_a_restart(cluster):
    class WireConfigMap(msgspec.Struct):
        metadata: Metadata
        data: dict[str, str] = {}

    pace = Pace(page_size=7, idle_seconds=2, first_backoff_seconds=0.1, last_backoff_seconds=0.5)
    scope = {"namespace": "default", "label_selector": "suite=informers"}
    api = await KubeApi.connect(kubeconfig=str(cluster.kubeconfig))
    informer = Informer(
        api,
        CONFIG_MAPS,
        wire=WireConfigMap,
        convert=lambda found: found.data["n"],
        listener=Journal(),
        pace=pace,
        **scope,
    )

    async def make(number: int) -> dict:
        meta = {"name": f"informers-{number}", "labels": {"suite": "informers"}}
        return await api.create(CONFIG_MAPS, {"metadata": meta, "data": {"n": str(number)}}, "default")

    async def remove(number: int) -> None:
        await api.delete(CONFIG_MAPS, f"informers-{number}", namespace="default")

    for number in range(30):
        await make(number)
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(20):
            await informer.wait_synced()
        assert len(informer.items()) == 30

        cluster.pause_api_server()
        await asyncio.sleep(3)
        cluster.resume_api_server()
        await remove(0)
        await until(lambda: ("default", "informers-0") not in informer.items(), within=20)

        cluster.stop_api_server()
        await asyncio.to_thread(cluster.start_api_server)
        await remove(1)
        informer.observe_write(await make(100))
        assert informer.items()["default", "informers-100"] == "100"
        wanted = {("default", f"informers-{number}") for number in [*range(2, 30), 100]}
        await until(lambda: set(informer.items()) == wanted, within=20)
        await asyncio.sleep(3)
        assert set(informer.items()) == wanted
        assert informer.last_error is None or "Timeout" in informer.last_error
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _, name in list(informer.items()):
            await api.delete(CONFIG_MAPS, name, namespace="default")
        await api.close()

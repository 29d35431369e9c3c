"""At most one leader, whatever the network, the clock or a stopped process does to it."""

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime

import pytest

from stokehold.cluster.connection import blocking_http
from stokehold.cluster.errors import UnavailableError
from stokehold.cluster.leases import LeaseElector, NotLeaderError
from stokehold.controllers.clock import Clock

# A fifteenth of the real durations, so that threads and all run for real.
SHORT = {"lease_seconds": 1.0, "renew_deadline": 0.7, "retry_seconds": 0.1, "exit_after": 0.1}
NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


class FakeLeases:
    """The API server's side of one Lease: versions, conflicts, and faults per candidate."""

    def __init__(self) -> None:
        self.lease: dict | None = None
        self.asked: list[tuple[str, str]] = []
        self.refuse: dict[str, int] = {}
        self.unreachable: set[str] = set()
        self.lose_replies: set[str] = set()
        self.delay: dict[str, float] = {}
        self._version = 0
        self._lock = threading.Lock()

    def connection_of(self, who: str):
        def request(method: str, path: str, body: dict | None, timeout: float):
            self.asked.append((who, method))
            wait = self.delay.get(who, 0)
            time.sleep(min(wait, timeout))
            if who in self.unreachable or wait > timeout:
                raise UnavailableError(0, "NoAnswer", "unreachable")
            if status := self.refuse.get(who):
                return status, b"{}"
            reply = self.answer(method, body)
            if method != "GET" and who in self.lose_replies:
                raise UnavailableError(0, "NoAnswer", "the reply was lost")
            return reply

        return lambda: request

    def answer(self, method: str, body: dict | None) -> tuple[int, bytes]:
        with self._lock:
            if method == "GET":
                return (200, json.dumps(self.lease).encode()) if self.lease else (404, b"{}")
            if method == "POST" and self.lease:
                return 409, b'{"reason": "AlreadyExists"}'
            if method == "PUT" and self.lease is None:
                return 404, b"{}"
            sent = body["metadata"].get("resourceVersion")
            if method == "PUT" and sent != self.lease["metadata"]["resourceVersion"]:
                return 409, b'{"reason": "Conflict"}'
            self._version += 1
            self.lease = body | {"metadata": body["metadata"] | {"resourceVersion": str(self._version)}}
            return (201 if method == "POST" else 200), json.dumps(self.lease).encode()

    @property
    def holder(self) -> str:
        return (self.lease or {"spec": {"holderIdentity": ""}})["spec"]["holderIdentity"]


class Candidate:
    """An elector and what became of it."""

    def __init__(self, server: FakeLeases, identity: str, **settings) -> None:
        self.started = threading.Event()
        self.lost = threading.Event()
        self.exits: list[int] = []
        self.exited = threading.Event()
        self.losses = 0
        defaults = {
            "namespace": "stokehold",
            "name": "leader",
            "connect": server.connection_of(identity),
            "wall_clock": lambda: NOW,
            "on_started": self.started.set,
            "on_lost": self._on_lost,
            "hard_exit": self._exit,
            "arm_timer": lambda seconds: None,
        }
        self.elector = LeaseElector(
            identity=identity,
            **SHORT | defaults | settings,
        )

    def _on_lost(self) -> None:
        self.losses += 1
        self.lost.set()

    def _exit(self, code: int) -> None:
        self.exits.append(code)
        self.exited.set()


@pytest.fixture
def server():
    return FakeLeases()


@pytest.fixture
def stand(server):
    """Start candidates; all are stopped in the end."""
    candidates = []

    def start(identity: str, **settings) -> Candidate:
        candidate = Candidate(server, identity, **settings)
        candidates.append(candidate)
        candidate.elector.start()
        return candidate

    yield start
    for candidate in candidates:
        candidate.elector.stop(release=False)


def test_the_first_candidate_creates_the_lease_and_leads(server, stand):
    one = stand("one")

    assert one.started.wait(2)
    one.elector.check()
    assert one.elector.transitions == 0
    assert server.lease["spec"]["leaseDurationSeconds"] == 1
    assert server.lease["spec"]["renewTime"] == "2026-01-05T10:00:00.000000Z"


def test_a_leader_renews_with_one_request_and_the_other_waits(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    two = stand("two")
    time.sleep(2.2)  # more than two lease durations

    assert one.elector.is_leader()
    assert not two.started.is_set()
    assert {method for who, method in server.asked if who == "one"} == {"GET", "POST", "PUT"}
    assert server.asked.count(("one", "GET")) == 1
    with pytest.raises(NotLeaderError):
        two.elector.check()


def test_a_clean_stop_hands_over_at_once(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    two = stand("two", lease_seconds=60)
    began = time.monotonic()
    one.elector.stop()

    assert not one.elector.is_leader()
    assert two.started.wait(2)
    assert time.monotonic() - began < 0.4
    assert two.elector.transitions == 1
    assert not one.exits


def test_a_leader_cut_off_stops_before_the_other_starts_and_is_ended(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    two = stand("two")
    server.unreachable.add("one")

    overlap = False
    while not two.elector.is_leader():
        overlap |= one.elector.is_leader() and two.elector.is_leader()
        time.sleep(0.002)
    still_leads = one.elector.is_leader()

    assert not still_leads
    assert not overlap
    assert one.exited.wait(2)
    assert one.exits == [1]
    assert one.losses == 1
    assert server.lease["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("status", [429, 500, 403])
def test_a_leader_that_is_refused_for_long_is_ended(server, stand, status):
    one = stand("one")
    assert one.started.wait(2)
    server.refuse["one"] = status

    assert one.lost.wait(2)
    assert not one.elector.is_leader()
    assert one.exited.wait(2)
    assert str(status) in one.elector.last_error


def test_a_stop_that_comes_before_anybody_noticed_the_loss_leaves_the_process_to_be_ended(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    server.unreachable.add("one")

    while one.elector.is_leader():
        pass
    one.elector.stop()  # as a writer does that was told it may not

    assert one.exited.wait(2)
    assert one.losses == 1


def test_a_short_outage_changes_nothing(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    server.unreachable.add("one")
    time.sleep(0.25)
    server.unreachable.clear()
    time.sleep(0.8)

    assert one.elector.is_leader()
    assert not one.lost.is_set()
    assert one.elector.last_error is None


def test_answers_slower_than_the_retry_period_keep_the_leader(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    server.delay["one"] = 0.15  # half as long again as the retry period
    time.sleep(1.5)

    assert one.elector.is_leader()


def test_a_reply_that_was_lost_is_found_out_by_reading(server, stand):
    server.lose_replies.add("one")
    one = stand("one")
    time.sleep(0.3)
    server.lose_replies.clear()

    assert one.started.wait(2)
    assert server.holder == "one"
    assert one.elector.transitions == 0


def test_a_lease_taken_by_somebody_else_is_lost_at_once(server, stand):
    one = stand("one", renew_deadline=10, lease_seconds=15)
    assert one.started.wait(2)
    stolen = json.loads(json.dumps(server.lease))
    stolen["spec"]["holderIdentity"] = "thief"
    server.answer("PUT", stolen)

    assert one.lost.wait(2)
    assert not one.elector.is_leader()
    assert one.exited.wait(2)


def test_two_processes_of_one_name_do_not_both_lead(server, stand):
    first = stand("one")
    assert first.started.wait(2)

    second = stand("one")

    assert second.started.wait(0.5)  # as after a crash: the name is its own
    assert first.lost.wait(0.5)
    assert first.exited.wait(2)
    assert not second.lost.wait(1)


def test_a_deleted_lease_is_made_again_by_its_leader(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    server.lease = None
    time.sleep(1.0)

    assert server.holder == "one"
    assert one.elector.is_leader()


def test_the_records_own_timestamps_are_not_believed(server, stand):
    """A holder with a clock of the far future, or the far past, is judged by its renewals alone."""
    future = datetime(2099, 1, 1, tzinfo=UTC)
    one = stand("one", wall_clock=lambda: future)
    assert one.started.wait(2)
    two = stand("two")
    time.sleep(1.3)
    assert not two.started.is_set()

    server.unreachable.add("one")
    assert two.started.wait(3)


def test_a_dead_holders_lease_is_waited_out_in_full_from_when_it_was_first_seen(server, stand):
    dead = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "leaseTransitions": 6}
    server.answer("POST", {"metadata": {"name": "leader"}, "spec": dead})
    began = time.monotonic()
    one = stand("one")

    assert one.started.wait(3)
    assert time.monotonic() - began >= 1.0
    assert one.elector.transitions == 7


def test_losing_is_final_even_if_a_renewal_gets_through_later(server, stand):
    one = stand("one")
    assert one.started.wait(2)
    server.unreachable.add("one")
    assert one.lost.wait(2)
    server.unreachable.clear()
    time.sleep(0.3)

    assert not one.elector.is_leader()
    one.elector.stop()
    assert server.holder == "one"  # not released: its late writes may still be under way
    assert one.exited.wait(2)


def test_callbacks_that_hang_do_not_keep_the_process_alive(server, stand):
    never = threading.Event()
    one = stand("one", on_started=lambda: never.wait(30), on_lost=lambda: never.wait(30))
    time.sleep(1.2)
    assert one.elector.is_leader()
    server.unreachable.add("one")

    assert one.exited.wait(2)
    never.set()


def test_durations_that_allow_two_leaders_are_refused(server):
    with pytest.raises(ValueError, match="lease_seconds"):
        Candidate(server, "one", lease_seconds=10, renew_deadline=10)


@pytest.mark.cluster
def test_two_candidates_on_a_real_server_take_turns(cluster):
    server = FakeLeases()
    real = {"namespace": "default", "name": "turns", "wall_clock": Clock().now}
    cut_off = threading.Event()

    def connect():
        send = blocking_http(str(cluster.kubeconfig))

        def request(*asked):
            if cut_off.is_set():
                raise UnavailableError(0, "NoAnswer", "cut off")
            return send(*asked)

        return request

    def connect_always():
        return blocking_http(str(cluster.kubeconfig))

    durations = {"lease_seconds": 3, "renew_deadline": 2, "retry_seconds": 0.3}
    one = Candidate(server, "one", connect=connect, **real, **durations)
    two = Candidate(server, "two", connect=connect_always, **real, **durations)
    three = Candidate(server, "three", connect=connect_always, **real, **durations)
    try:
        one.elector.start()
        assert one.started.wait(10)
        two.elector.start()
        time.sleep(4)
        assert one.elector.is_leader()
        assert not two.started.is_set()

        cut_off.set()
        overlap = False
        while not two.started.is_set() and not one.exited.wait(0.01):
            overlap |= one.elector.is_leader() and two.elector.is_leader()
        assert one.lost.is_set()
        assert two.started.wait(10)
        assert not overlap

        three.elector.start()
        two.elector.stop()
        assert three.started.wait(3)
        assert (two.elector.transitions, three.elector.transitions) == (1, 2)
    finally:
        for candidate in (one, two, three):
            candidate.elector.stop()
    assert not two.exits


ALONE = """
    import re, sys, threading, time
    from datetime import UTC, datetime
    from cluster.test_leases import FakeLeases
    from stokehold.cluster.leases import LeaseElector

    server, started = FakeLeases(), threading.Event()
    elector = LeaseElector(
        namespace="n", name="l", identity="one", connect=server.connection_of("one"),
        wall_clock=lambda: datetime(2026, 1, 5, tzinfo=UTC), on_started=started.set,
        lease_seconds=1.5, renew_deadline=1.0, retry_seconds=0.1, exit_after=0.3,
    )
    elector.start()
    started.wait(5)
    print("leads", flush=True)
"""


def run_alone(body: str) -> subprocess.Popen:
    script = textwrap.dedent(ALONE) + textwrap.dedent(body)
    return subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_stopped_beyond_its_deadline_never_writes_again_and_ends():
    process = run_alone(
        """
        while True:
            asked_at = time.monotonic()
            print(asked_at, "wrote" if elector.is_leader() else "refused", flush=True)
            time.sleep(0.01)
        """
    )
    assert process.stdout.readline() == "leads\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    woken_at = time.monotonic()
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=10)
    ended_at = time.monotonic()

    writes = [float(text.split()[0]) for text in output.splitlines() if text.endswith("wrote")]
    assert process.returncode == 1
    assert ended_at - woken_at < 2
    assert writes
    assert max(writes) < woken_at


def test_a_process_whose_work_in_a_thread_hangs_ends_all_the_same():
    """Python waits for such threads at its end, asyncio for five minutes."""
    process = run_alone(
        """
        import asyncio

        async def work():
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
            server.unreachable.add("one")
            while elector.is_leader():
                await asyncio.sleep(0.01)
            return 0

        sys.exit(asyncio.run(work()))
        """
    )
    assert process.stdout.readline() == "leads\n"
    began = time.monotonic()
    process.communicate(timeout=20)

    assert process.returncode == 1
    assert time.monotonic() - began < 4  # the deadline is after one second


def test_a_process_in_which_no_thread_can_run_ends_all_the_same():
    """A regular expression that backtracks holds the interpreter lock for ever."""
    process = run_alone('re.match(r"(a+)+$", "a" * 64 + "b")')
    assert process.stdout.readline() == "leads\n"
    began = time.monotonic()
    _, complaint = process.communicate(timeout=20)

    assert process.returncode == 1
    assert time.monotonic() - began < 4
    assert "Timeout" in complaint

"""Who leads: one Lease, renewed by a thread of its own. What a leader does is not decided here.

The API server offers no fencing, so safety rests on time: a leader stops `renew_deadline` after it
SENT its last successful renewal, a candidate waits `lease_seconds` from when it SAW the record
change, and the former is shorter. Only steady clocks are compared, never the record's timestamps.

Three lines of defence, each independent of the one before:
1. `is_leader()` is false by the clock alone, whichever thread hangs; `check()` before each write batch;
2. a watchdog thread, which does no I/O, tells `on_lost` and ends the process if nobody else does;
3. a timer inside the interpreter (faulthandler) ends it even if no Python thread can run.
Losing is final: the process must end, and its successor starts afresh.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from stokehold.api.names import KEY_PREFIX
from stokehold.cluster import errors
from stokehold.cluster.connection import BlockingHttp
from stokehold.cluster.errors import ApiError, ConflictError, ConnectError, NotFoundError
from stokehold.cluster.resources import LEASES

Lease = dict[str, Any]
PROCESS = f"{KEY_PREFIX}process"
"""On the Lease: which process its holder is, for a name can be given to two."""

logger = logging.getLogger(__name__)

# A stop waits so long for a request of the renewal thread.
_STOP_WITHIN_SECONDS = 5.0
# The interpreter's own timer comes after the watchdog, so that a log line can be written first.
_TIMER_SLACK_SECONDS = 1.0
_STEADY_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class NotLeaderError(Exception):
    """This process does not lead (any more) and must not write."""


def steady_seconds() -> float:
    """A clock that no time service moves, and that goes on while the machine is suspended."""
    return time.clock_gettime(_STEADY_CLOCK)


def arm_interpreter_timer(seconds: float | None) -> None:
    """End the process with code 1 after `seconds`, even if every thread is stuck; None disarms."""
    if seconds is None:
        faulthandler.cancel_dump_traceback_later()
    else:
        faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True)


def ignore() -> None:
    """The callback for those who do not care."""


class LeaseElector:
    """One candidate; `identity` should be this process' alone.

    A process that starts again under its name goes on at once. One that finds another of its name in its place loses.
    """

    def __init__(  # noqa: PLR0913 - collaborators and durations, each with a default
        self,
        *,
        namespace: str,
        name: str,
        identity: str,
        connect: Callable[[], BlockingHttp],
        wall_clock: Callable[[], datetime],
        lease_seconds: float = 15,
        renew_deadline: float = 10,
        retry_seconds: float = 2,
        exit_after: float = 2,
        on_started: Callable[[], None] = ignore,
        on_lost: Callable[[], None] = ignore,
        clock: Callable[[], float] = steady_seconds,
        hard_exit: Callable[[int], None] = os._exit,
        arm_timer: Callable[[float | None], None] = arm_interpreter_timer,
    ) -> None:
        """Callbacks run in threads of their own; `wall_clock` (UTC) only fills in the record."""
        if not lease_seconds > renew_deadline > 2 * retry_seconds > 0:
            raise ValueError("lease_seconds > renew_deadline > 2 x retry_seconds > 0 does not hold")
        self.identity = identity
        self.transitions = 0
        self.last_error: str | None = None
        self._namespace = namespace
        self._name = name
        self._connect = connect
        self._wall_clock = wall_clock
        self._lease_seconds = lease_seconds
        self._renew_deadline = renew_deadline
        self._retry_seconds = retry_seconds
        self._exit_after = exit_after
        self._on_started = on_started
        self._on_lost = on_lost
        self._clock = clock
        self._hard_exit = hard_exit
        self._arm_timer = arm_timer

        self._lock = threading.Lock()  # guards the next three
        self._leading = False
        self._lost = False
        self._leader_until = 0.0
        self._stopping = threading.Event()
        self._renewal = threading.Thread(target=self._renew, name="lease-renewal", daemon=True)
        self._watchdog = threading.Thread(target=self._guard, name="lease-watchdog", daemon=True)
        # Only the renewal thread, and `stop` after it, use the rest.
        self._process = uuid.uuid4().hex
        self._http: BlockingHttp | None = None
        self._own: Lease | None = None  # as the server last returned it to us, the holder
        self._seen: tuple[Lease | None, float] = (None, 0.0)  # somebody's spec, and since when

    def start(self) -> None:
        """Stand for election; returns at once."""
        self._renewal.start()
        self._watchdog.start()

    def is_leader(self) -> bool:
        """Whether this process may write now; needs no thread to be alive."""
        return self._leading and not self._lost and self._clock() < self._leader_until

    def check(self) -> None:
        """Raise NotLeaderError unless this process leads; call it before each batch of writes."""
        if not self.is_leader():
            raise NotLeaderError(f"{self.identity} does not hold {self._namespace}/{self._name}")

    def _has_expired(self) -> bool:
        """Whether it led until its time ran out, which the watchdog may not have noticed yet."""
        return self._leading and self._clock() >= self._leader_until

    def stop(self, *, release: bool = True) -> None:
        """Stand down; with `release` a successor starts at once, so all writes must have ended.

        After a loss, noticed or not, this changes nothing: the watchdog still sees to it that the process ends.
        """
        with self._lock:
            if self._lost or self._has_expired():
                return
            led, self._leading = self._leading, False
            self._stopping.set()
            self._arm_timer(None)
        if self._renewal.is_alive():
            self._renewal.join(_STOP_WITHIN_SECONDS)
        accepted = led or self._own is not None
        if release and accepted and not self._renewal.is_alive():
            self._release()

    # The renewal thread.

    def _renew(self) -> None:
        while not self._stopping.is_set() and not self._lost:
            began = self._clock()
            pause = self._round()
            took = self._clock() - began  # slow answers must not also make us ask less often
            self._stopping.wait(max(pause - took, self._retry_seconds / 10))

    def _round(self) -> float:
        """Try once to get or keep the Lease; seconds until the next try."""
        try:
            self._hold_or_wait()
        except ConflictError:
            self._own = None
            return self._retry_seconds / 10  # the record has changed: read it again
        except (ApiError, ConnectError) as error:
            self._own = None  # the outcome is unknown
            self._note_failure(str(error))
            return self._retry_seconds * random.uniform(0.2, 0.4)  # noqa: S311 - spreads load
        except Exception:  # a bug must not end the thread unseen
            self._own = None
            logger.exception("lease %s: unexpected failure", self._name)
            return self._retry_seconds
        self.last_error = None
        return self._retry_seconds * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load

    def _hold_or_wait(self) -> None:
        lease = self._own or self._read()
        if lease is None:
            self._create()
            return
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder == self.identity:
            if self._leading and _process_of(lease) not in ("", self._process):
                self._lose(f"another process runs as {holder} and holds it now; give each its own --identity")
                return
            self._update(lease, spec.get("leaseTransitions") or 0)
            return
        if self._leading:
            self._lose(f"{holder or 'nobody'} holds it now")
            return
        if not holder or self._is_expired(spec):
            self._update(lease, (spec.get("leaseTransitions") or 0) + 1)

    def _is_expired(self, spec: Lease) -> bool:
        """Whether the record has not changed for as long as its holder promised to renew it."""
        now = self._clock()
        if spec != self._seen[0]:
            self._seen = (spec, now)
        return now >= self._seen[1] + (spec.get("leaseDurationSeconds") or self._lease_seconds)

    def _read(self) -> Lease | None:
        try:
            return self._request("GET", LEASES.path(self._namespace, self._name), None)
        except NotFoundError:
            return None

    def _create(self) -> None:
        seen = self._seen[0] or {}
        transitions = max(self.transitions, seen.get("leaseTransitions") or 0)
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": self._metadata({"name": self._name, "namespace": self._namespace}),
            "spec": self._spec({}, transitions),
        }
        sent_at = self._clock()
        made = self._request("POST", LEASES.path(self._namespace), body)
        self._hold(made, sent_at, transitions)

    def _update(self, lease: Lease, transitions: int) -> None:
        spec = self._spec(lease.get("spec") or {}, transitions)
        body = lease | {"metadata": self._metadata(lease["metadata"]), "spec": spec}
        sent_at = self._clock()
        held = self._request("PUT", LEASES.path(self._namespace, self._name), body)
        self._hold(held, sent_at, transitions)

    def _metadata(self, before: Lease) -> Lease:
        return before | {"annotations": (before.get("annotations") or {}) | {PROCESS: self._process}}

    def _spec(self, before: Lease, transitions: int) -> Lease:
        now = _micro_time(self._wall_clock())
        if now == before.get("renewTime"):
            # Others watch for a change; a clock that stands still must not depose us.
            now = _micro_time(self._wall_clock() + timedelta(microseconds=1))
        renewing = before.get("holderIdentity") == self.identity
        return before | {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._lease_seconds)),
            "acquireTime": before.get("acquireTime") if renewing else now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _hold(self, lease: Lease, sent_at: float, transitions: int) -> None:
        """The server has accepted us; it counts from when we asked."""
        self._own = lease
        with self._lock:
            now = self._clock()
            until = sent_at + self._renew_deadline
            if self._stopping.is_set() or self._lost or self._has_expired() or now >= until:
                return  # the answer took too long; the watchdog or the next round deals with it
            started = not self._leading
            self.transitions = transitions
            self._leading, self._leader_until = True, until
            self._arm_timer(until - now + self._exit_after + _TIMER_SLACK_SECONDS)
        if started:
            logger.info("lease %s: %s leads, term %d", self._name, self.identity, transitions)
            _call(self._on_started)

    def _release(self) -> None:
        try:
            lease = self._own or self._read()
            if lease is None or lease["spec"].get("holderIdentity") != self.identity:
                return
            spec = lease["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1}
            path = LEASES.path(self._namespace, self._name)
            self._request("PUT", path, lease | {"spec": spec})
        except (ApiError, ConnectError) as error:
            logger.info("lease %s: not released, it will expire: %s", self._name, error)

    def _request(self, method: str, path: str, body: Lease | None) -> Lease:
        if self._http is None:
            self._http = self._connect()
        status, reply = self._http(method, path, body, self._timeout())
        if status == 401:
            self._http = None  # read the credentials again
        if status >= 300:
            raise errors.from_reply(status, reply)
        try:
            decoded: Lease = msgspec.json.decode(reply, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise errors.UnavailableError(status, "Garbled", str(error)) from error
        return decoded

    def _timeout(self) -> float:
        """Half of the time left, so that a request that hangs leaves room for others."""
        if not self._leading:
            return self._renew_deadline / 2
        left = self._leader_until - self._clock()
        return max(left / 2, self._renew_deadline / 20)

    def _note_failure(self, text: str) -> None:
        if text != self.last_error:
            logger.warning("lease %s: %s", self._name, text)
        self.last_error = text

    # The watchdog thread. It must not wait for anything but time.

    def _guard(self) -> None:
        step = self._renew_deadline / 50
        while not self._lost:
            if self._stopping.wait(step):
                return
            if self._has_expired():
                self._lose(f"not renewed for {self._renew_deadline:g} s", if_expired=True)
        while self._clock() < self._leader_until + self._exit_after:
            time.sleep(step)
        self._hard_exit(1)

    def _lose(self, why: str, *, if_expired: bool = False) -> None:
        """Latch the loss, once; whoever notices first."""
        with self._lock:
            now = self._clock()
            renewed = if_expired and now < self._leader_until
            if self._lost or not self._leading or renewed:
                return
            self._lost = True
            self._leader_until = min(self._leader_until, now)
            end = self._leader_until + self._exit_after + _TIMER_SLACK_SECONDS
            self._arm_timer(end - now)
        _call(self._on_lost)
        logger.error("lease %s: %s no longer leads: %s", self._name, self.identity, why)


def _process_of(lease: Lease) -> str:
    return str((lease["metadata"].get("annotations") or {}).get(PROCESS, ""))


def _call(callback: Callable[[], None]) -> None:
    """Run it beside us: a callback that hangs must not stop renewals or the watchdog."""
    threading.Thread(target=callback, name="lease-callback", daemon=True).start()


def _micro_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""The time that the operator goes by, and the only reader of the wall clock; everybody else is given the time.

A machine's clock is put right, or wrong, by hours while we run, and by it jobs would exceed their maxRuntime and
back-offs would last for hours. So a leap is not followed: time goes on as the steady clock does, until the wall clock
is back where it was or the API server, which dates every object, says that it is right.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from stokehold.cluster.leases import steady_seconds
from stokehold.observability import logs

log = logs.get("clock")

LEAP_SECONDS = 5.0
"""What no time service corrects little by little, and clocks of one cluster do not differ by."""
LATEST_REPLY_SECONDS = 2.0
"""A reply that took longer dates nothing: nobody knows when the API server looked at its clock."""
REPLIES_TO_BELIEVE = 10
"""So many in a row must contradict what the API server said before: two servers' clocks may differ."""


class Clock:
    """Told what each reply of the API server is dated, it gives the time. All threads may use it."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - the one place that may
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._wall = wall
        self._steady = steady
        # Seconds from the steady clock to the time that we go by, and to the API server's once it has told it.
        self._ahead = wall() - steady()
        self._server_ahead: float | None = None
        self._contradictions = 0
        self._follows_wall = True

    def now(self) -> datetime:
        """The time, in UTC."""
        steady = self._steady()
        self._follow(self._wall() - steady)
        return datetime.fromtimestamp(steady + self._ahead, UTC)

    def deviation(self) -> float:
        """By how many seconds the wall clock is ahead of the API server's; of the time that we go by before it spoke.

        A clock that drifts slowly is followed, and only this tells of it.
        """
        now, server_ahead = self.now().timestamp(), self._server_ahead
        return self._wall() - (now if server_ahead is None else self._steady() + server_ahead)

    def heard(self, dated: str, took_seconds: float) -> None:
        """The API server has dated a reply, with the HTTP header Date, so many seconds after it was asked or less."""
        if took_seconds > LATEST_REPLY_SECONDS:
            return
        try:
            told = parsedate_to_datetime(dated).timestamp()
        except (ValueError, OverflowError):
            return
        is_first, steady = self._server_ahead is None, self._steady()
        if not self._believes(told + 0.5 - steady, self._wall() - steady):  # it has whole seconds
            return
        self._server_ahead = told + 0.5 - steady
        if is_first and _differ(self._server_ahead, self._ahead):
            self._leave_wall(self._server_ahead, "this machine's clock is not the API server's, whose time is taken")

    def _believes(self, told: float, wall_ahead: float) -> bool:
        """Not all at once what contradicts the replies before, unless this machine's clock says the same."""
        before = self._server_ahead
        if before is None or not _differ(told, before) or not _differ(told, wall_ahead):
            self._contradictions = 0
            return True
        self._contradictions += 1
        return self._contradictions >= REPLIES_TO_BELIEVE

    def _follow(self, wall_ahead: float) -> None:
        server_ahead = self._server_ahead
        if not _differ(wall_ahead, self._ahead):
            self._ahead = wall_ahead
            self._come_back("this machine's clock is right again")
        elif server_ahead is not None and not _differ(server_ahead, wall_ahead):
            self._ahead = wall_ahead
            self._come_back("this machine's clock was moved to the API server's time, which is taken")
        elif server_ahead is not None and _differ(server_ahead, self._ahead):
            self._leave_wall(server_ahead, "this machine's clock and the API server's were moved: its time is taken")
        else:
            self._leave_wall(self._ahead, "this machine's clock was moved; time goes on without it")

    def _come_back(self, why: str) -> None:
        if not self._follows_wall:
            self._follows_wall = True
            log.info(why)

    def _leave_wall(self, ahead: float, why: str) -> None:
        if self._follows_wall or ahead != self._ahead:
            log.warning(why, ahead_seconds=round(self._wall() - self._steady() - ahead))
        self._follows_wall, self._ahead = False, ahead


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > LEAP_SECONDS

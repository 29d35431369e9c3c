"""Whose time the operator goes by when clocks are moved."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from stokehold.controllers.clock import REPLIES_TO_BELIEVE, Clock

START = datetime(2026, 1, 31, 8, 0, tzinfo=UTC).timestamp()
HOURS = 3600.0


class Clocks:
    """This machine's clocks and the API server's, and what the operator makes of them."""

    def __init__(self, wall_is_ahead: float = 0.0) -> None:
        self.passed = 0.0
        self.wall_is_ahead = wall_is_ahead
        self.server_is_ahead = 0.0
        self.clock = Clock(lambda: START + self.passed + self.wall_is_ahead, lambda: 500.0 + self.passed)

    def ask(self, took_seconds: float = 0.1) -> None:
        """Something of the API server."""
        at = datetime.fromtimestamp(START + self.passed + self.server_is_ahead, UTC)
        self.clock.heard(format_datetime(at, usegmt=True), took_seconds)

    def told(self) -> float:
        """Seconds since the start, as the operator counts them."""
        return self.clock.now().timestamp() - START


@pytest.mark.parametrize("leap", [2 * HOURS, -2 * HOURS, 30.0])
def test_a_leap_of_this_machines_clock_is_not_followed_there_or_back(leap: float):
    clocks = Clocks()
    clocks.ask()
    for clocks.passed, clocks.wall_is_ahead in ((10.0, leap), (4000.0, leap), (4010.0, 0.0)):
        assert clocks.told() == pytest.approx(clocks.passed)
        assert clocks.clock.deviation() == pytest.approx(clocks.wall_is_ahead, abs=1)


def test_a_clock_that_is_corrected_little_by_little_is_followed():
    clocks = Clocks()
    clocks.ask()
    for step in range(100):
        clocks.passed, clocks.wall_is_ahead = 10.0 * step, 0.5 * step
        assert clocks.told() == pytest.approx(clocks.passed + clocks.wall_is_ahead)
        assert clocks.clock.deviation() == pytest.approx(clocks.wall_is_ahead, abs=1)


def test_api_servers_that_differ_do_not_move_the_time_between_them():
    clocks = Clocks(wall_is_ahead=2 * HOURS)
    clocks.ask()
    for clocks.server_is_ahead in (8.0, 8.0, 0.0, 8.0) * REPLIES_TO_BELIEVE:
        clocks.ask()
        assert clocks.told() == pytest.approx(0, abs=1)


def test_an_api_server_whose_clock_was_put_right_is_followed_when_it_says_so_again_and_again():
    clocks = Clocks(wall_is_ahead=2 * HOURS)
    clocks.ask()
    clocks.server_is_ahead = HOURS
    for _ in range(REPLIES_TO_BELIEVE):
        clocks.ask()
    assert clocks.told() == pytest.approx(HOURS, abs=1)


def test_one_that_starts_with_a_wrong_clock_takes_the_api_servers_time_and_its_own_again_once_it_is_right():
    clocks = Clocks(wall_is_ahead=-2 * HOURS)
    clocks.ask()
    assert clocks.told() == pytest.approx(0, abs=1)
    clocks.passed, clocks.wall_is_ahead = 60.0, 0.0
    assert clocks.told() == pytest.approx(60)


def test_a_machine_that_stood_still_goes_by_the_time_that_has_passed_since():
    """Paused by its hypervisor: the steady clock stood still, and a time service has put the other one right."""
    clocks = Clocks()
    clocks.ask()
    clocks.wall_is_ahead = clocks.server_is_ahead = 2 * HOURS
    assert clocks.told() == pytest.approx(0)
    clocks.ask()
    assert clocks.told() == pytest.approx(2 * HOURS)


def test_an_api_server_whose_clock_alone_is_wrong_moves_nothing():
    clocks = Clocks()
    clocks.ask()
    clocks.server_is_ahead = 2 * HOURS
    clocks.ask()
    assert clocks.told() == pytest.approx(0)


def test_late_replies_and_dates_that_nobody_can_read_say_nothing():
    clocks = Clocks(wall_is_ahead=2 * HOURS)
    clocks.ask(took_seconds=10.0)
    for dated in ("", "soon", "Sat, 31 Jan 99999 08:00:00 GMT"):
        clocks.clock.heard(dated, 0.1)
    assert clocks.told() == pytest.approx(2 * HOURS)

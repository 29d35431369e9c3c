"""Durations are exact, print as they were written, and mean what Go means by them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stokehold.api.durations import Duration, between

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("90m", 5400 * SECOND),
        ("1h30m", 5400 * SECOND),
        ("24h", 86400 * SECOND),
        ("7d", 7 * 86400 * SECOND),
        ("1.5h", 5400 * SECOND),
        ("0s", 0),
        ("250ms", SECOND // 4),
        ("1us", 1000),
        ("1µs", 1000),
        ("1μs", 1000),
        ("1ns", 1),
        ("0.000000001s", 1),
        ("1h1h", 7200 * SECOND),
        ("007s", 7 * SECOND),
    ],
)
def test_text_names_an_exact_span(text: str, nanoseconds: int):
    assert Duration.parse(text).nanoseconds == nanoseconds
    assert str(Duration.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "-5m",
        "+5m",
        "5 m",
        "PT5M",
        "1w",
        "1d12h",
        "1.5d",
        "m",
        "5M",
        ".5h",
        "1h ",
        "1h\n",
        "٣h",
        "1e3s",
        "1h" * 7,
    ],
)
def test_text_that_names_no_span_is_refused(text: str):
    with pytest.raises(ValueError, match="must be a duration such as 90m"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (5400 * SECOND, "1h30m"),
        (SECOND + 500_000_000, "1.5s"),
        (1_500_000, "1.5ms"),
        (7, "7ns"),
        (86400 * SECOND, "24h"),
    ],
)
def test_span_without_a_text_prints_as_go_would(nanoseconds: int, text: str):
    assert str(Duration(nanoseconds)) == text


@given(st.integers(0, 10**17))
def test_printing_and_parsing_give_the_same_span(nanoseconds: int):
    assert Duration.parse(str(Duration(nanoseconds))).nanoseconds == nanoseconds


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"]))
def test_text_survives(count: int, unit: str):
    text = f"{count}{unit}"

    assert str(Duration.parse(text)) == text


def test_equal_spans_are_equal_however_they_are_written():
    assert Duration.parse("90m") == Duration.parse("1h30m")
    assert Duration.parse("90m") < Duration.parse("2h")
    assert hash(Duration.parse("90m")) == hash(Duration.parse("1.5h"))


def test_bounds_are_part_of_the_range():
    rule = between("1s", "1h")

    assert rule.check(Duration.parse("1s"))
    assert rule.check(Duration.parse("60m"))
    with pytest.raises(ValueError, match="from 1s to 1h"):
        rule.check(Duration.parse("999ms"))


def test_span_converts_to_seconds_and_to_pythons_own_type():
    assert Duration.parse("1.5s").seconds == 1.5
    assert Duration.parse("1d").to_timedelta().days == 1
    assert str(Duration.of_seconds(5400)) == "1h30m"

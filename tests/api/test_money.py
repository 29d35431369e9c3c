"""Money is decimal, exact, and prints as it was written."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stokehold.api.money import format_amount, parse_amount

amounts = st.decimals(0, 999_999_999_999, places=6, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("text", ["0", "0.5", "12.50", "100.00", "999999999999.999999", "0.000001"])
def test_amount_prints_as_it_was_written(text: str):
    assert format_amount(parse_amount(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1e400",
        "NaN",
        "inf",
        "-1",
        "+1",
        "12,50",
        "1 000",
        "1.",
        ".5",
        "007",
        "1.1234567",
        "1000000000000",
        "٣",
        "1\n",
        12.5,
        12,
        None,
        True,
    ],
)
def test_what_is_no_plain_amount_is_refused(value: object):
    with pytest.raises(ValueError, match="digits and at most one dot"):
        parse_amount(value)


@given(amounts)
def test_amounts_round_trip(amount: Decimal):
    assert parse_amount(format_amount(amount)) == amount


@given(st.lists(amounts, max_size=1000))
def test_sums_are_exact(values: list[Decimal]):
    millionths = sum(int(value * 10**6) for value in values)

    assert sum(values, Decimal(0)) * 10**6 == millionths

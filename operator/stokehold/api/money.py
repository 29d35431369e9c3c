"""Money as decimal strings that print exactly as written: never a float, an exponent or a comma."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from stokehold.api.base import Rule

AMOUNT_PATTERN = r"^(0|[1-9][0-9]{0,11})([.][0-9]{1,6})?$"
CURRENCY_PATTERN = r"^[A-Z]{3}$"

_AMOUNT = re.compile(AMOUNT_PATTERN)
_CURRENCY = re.compile(CURRENCY_PATTERN)
_AMOUNT_WORDS = (
    'must be an amount in a string, such as "1250" or "12.50": digits and at most one dot,'
    " up to 6 decimals and below 1000000000000, no sign, comma or exponent"
)


def parse_amount(value: object) -> Decimal:
    """Return the exact amount; ValueError when it is not plain digits with at most one dot."""
    if isinstance(value, Decimal):
        value = format_amount(value)
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise ValueError(_AMOUNT_WORDS)
    return Decimal(value)


def format_amount(amount: Decimal) -> str:
    """Return the amount in plain digits, with the decimals that it has."""
    return format(amount, "f")


# The arithmetic is Decimal's; 12 digits and 6 decimals leave room for exact sums of thousands.
Amount = Annotated[
    Decimal,
    BeforeValidator(parse_amount),
    PlainSerializer(format_amount, return_type=str),
    WithJsonSchema({"type": "string", "maxLength": 20}),
    Rule(_AMOUNT_WORDS, cel=f"self.matches('{AMOUNT_PATTERN}')"),
]

PositiveAmount = Annotated[
    Amount,
    Rule("must be more than zero", cel="!self.matches('^[0.]*$')", holds=lambda amount: amount > 0),
]

Currency = Annotated[
    str,
    WithJsonSchema({"type": "string", "maxLength": 3}),
    Rule(
        "must be a currency code of ISO 4217 in capitals, such as EUR or USD",
        cel=f"self.matches('{CURRENCY_PATTERN}')",
        holds=lambda code: _CURRENCY.fullmatch(code) is not None,
    ),
]

"""Kubernetes quantities: their grammar, their exact value, and the type of fields that hold one.

Rounding to the integers that we count in is model/quantities.py.
"""

import re
from fractions import Fraction
from typing import Annotated

from pydantic import Strict, WithJsonSchema

from stokehold.api.base import Rule

# What resource.Quantity reads. Longer exponents only ever name zero or nonsense.
_QUANTITY = re.compile(
    r"([+-]?)([0-9]+[.]?[0-9]*|[.][0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?", re.ASCII
)
_SCALE = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGTPE", start=1)},
}

# What our own fields take: no sign, sane lengths, a spelled-out bound.
FIELD_PATTERN = r"^([0-9]{1,18}([.][0-9]{0,9})?|[.][0-9]{1,9})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
FIELD_MAXIMUM = Fraction(1024**6)

_FIELD = re.compile(FIELD_PATTERN)


def exact(quantity: int | str) -> Fraction:
    """Return the value that the quantity names; ValueError when it is none."""
    if isinstance(quantity, int):
        return Fraction(quantity)
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity such as 8, 500m or 64Gi")
    sign, digits, unit, exponent = match.groups()
    value = Fraction(f"{digits}0" if digits.endswith(".") else digits)
    if unit is not None:
        value *= _SCALE[unit]
    elif exponent is not None:
        value *= Fraction(10) ** int(exponent)
    return -value if sign == "-" else value


def _fits_field(quantity: int | str) -> bool:
    if isinstance(quantity, str) and _FIELD.fullmatch(quantity) is None:
        return False
    return 0 <= exact(quantity) <= FIELD_MAXIMUM


Quantity = Annotated[
    Annotated[int, Strict()] | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 40,
        }
    ),
    Rule(
        "must be a quantity from 0 to 1Ei, such as 8, 500m, 64Gi or 100M",
        cel=(
            f"string(self).matches('{FIELD_PATTERN}') && isQuantity(string(self))"
            " && !quantity(string(self)).isGreaterThan(quantity('1Ei'))"
        ),
        holds=_fits_field,
    ),
]

"""Quantities become exact integers, rounded up as Kubernetes does, and print in their shortest form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stokehold.model.quantities import MAXIMUM, amount, format_amount, format_bytes, format_milli, milli, whole

RESOURCES = ("cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "nvidia.com/gpu", "pods")


@pytest.mark.parametrize(
    ("quantity", "thousandths"),
    [
        ("2", 2000),
        (2, 2000),
        ("1500m", 1500),
        ("1.5", 1500),
        (".5", 500),
        ("1.", 1000),
        ("0.1m", 1),
        ("1u", 1),
        ("2k", 2_000_000),
    ],
)
def test_cpu_is_counted_in_thousandths(quantity: int | str, thousandths: int):
    assert amount("cpu", quantity) == milli(quantity) == thousandths


@pytest.mark.parametrize(
    ("quantity", "units"),
    [
        ("64Gi", 64 * 2**30),
        ("100M", 10**8),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("12e-1", 2),
        ("1500m", 2),
        ("0.5Ki", 512),
        ("10P", 10**16),
        (8, 8),
        ("-5", -5),
    ],
)
def test_all_else_is_counted_in_whole_units(quantity: int | str, units: int):
    assert amount("memory", quantity) == whole(quantity) == units


@pytest.mark.parametrize("quantity", ["9223372036854775807", "1e400", "100E", "999999999999999999999"])
def test_huge_quantities_saturate_as_in_kubernetes(quantity: str):
    assert whole(quantity) == MAXIMUM


@pytest.mark.parametrize("quantity", ["", "many", "1 Gi", "1gb", "1KI", "1,5", "0x10", "1Gi\n", "--1", "1e", "٣"])
def test_what_is_no_quantity_is_refused(quantity: str):
    with pytest.raises(ValueError, match="is not a quantity"):
        whole(quantity)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1000, "1000"), (1024, "1Ki"), (64 * 2**30, "64Gi"), (2**30 + 1, "1073741825")]
)
def test_bytes_print_in_the_largest_unit_that_divides_them(count: int, text: str):
    assert format_bytes(count) == text


def test_cpu_prints_in_whole_cores_where_it_can():
    assert (format_milli(2000), format_milli(1500), format_milli(0)) == ("2", "1500m", "0")


@given(st.sampled_from(RESOURCES), st.integers(0, MAXIMUM // 1000))
def test_printing_and_parsing_give_the_same_amount(resource: str, count: int):
    assert amount(resource, format_amount(resource, count)) == count


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"]))
def test_rounding_is_up_and_by_less_than_one(count: int, unit: str):
    quantity = f"{count}{unit}"

    assert 0 <= whole(quantity) * 1000 - milli(quantity) < 1000

"""The reference pages name everything that programs may rely on."""

from enum import StrEnum
from inspect import isclass

import pytest
from hack.reference import api_reference, metrics_reference, reasons_reference

from stokehold.api.v1alpha1 import KINDS
from stokehold.model import reasons
from stokehold.observability import metrics

GROUPS = [group for group in vars(reasons).values() if isclass(group) and group.__module__ == reasons.__name__]


@pytest.mark.parametrize("group", GROUPS)
def test_each_reason_has_a_meaning(group: type[StrEnum]):
    page = reasons_reference()

    for member in group:
        rows = page.partition(f"## {group.__name__}\n")[2].partition("\n## ")[0].splitlines()
        (row,) = [row for row in rows if row.startswith(f"| `{member}` |")]
        assert row.split("|")[2].strip().endswith(".")


def test_each_metric_stands_there_as_it_is_scraped():
    page = metrics_reference()

    assert page.count("| `stokehold_") == len(metrics.ALL)
    assert "| `stokehold_actions_total` | counter | `action`, `outcome` |" in page
    assert "| `stokehold_leader` | gauge | none |" in page


def test_each_kind_has_a_section():
    page = api_reference()

    for kind in KINDS:
        assert f"\n## {kind.__name__}\n" in page

"""The reference pages name everything that programs may rely on."""

import pytest
from hack.reference import api_reference, metrics_reference, reasons_reference

from stokehold.api.v1alpha1 import KINDS
from stokehold.model import reasons
from stokehold.observability import metrics

SERVING = (reasons.Scaling, reasons.Metrics, reasons.Serving)


@pytest.mark.parametrize("group", [reasons.Waiting, reasons.Eviction, reasons.Finish, reasons.Progress, *SERVING])
def test_each_reason_has_a_meaning(group: type[reasons.Waiting]):
    page = reasons_reference()

    for member in group:
        (row,) = [line for line in page.partition(f"## {group.__name__}")[2].splitlines() if f"`{member}`" in line][:1]
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

"""Rules and panels ask for metrics that exist."""

import re
from datetime import UTC, datetime
from pathlib import Path

from stokehold.agent.metrics import Counts, StateCollector
from stokehold.agent.node_state import Instant, NodeState
from stokehold.observability import metrics

ROOT = Path(__file__).parents[2]
ASKING = [*(ROOT / "helm/stokehold/alerts").glob("*.yaml"), ROOT / "helm/stokehold/dashboards/overview.json"]
NAME = re.compile(r"\b(stokehold_[a-z_]+|DCGM_FI_[A-Z_]+)\b")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


def test_rules_and_panels_ask_for_metrics_that_exist():
    state = NodeState(Instant(0.0, datetime(2026, 1, 1, tzinfo=UTC)))
    agent = StateCollector("node", "1", lambda: state, Counts()).collect()
    families = [family for metric in metrics.ALL for family in metric.describe()]
    there = {f"{f.name}{suffix}" for f in (*families, *agent) for suffix in SUFFIXES.get(f.type, ("",))}
    asked = {name for path in ASKING for name in NAME.findall(path.read_text())}

    assert len(asked) > 15
    assert sorted(asked - there) == []

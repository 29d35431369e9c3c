"""Every alert: its file is sound, it fires and stays silent as its tests say, and a runbook explains it."""

import subprocess
from pathlib import Path

import pytest
import yaml

from hack import binaries

pytestmark = pytest.mark.cluster  # promtool is built into the cache like the control plane

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "helm/stokehold/alerts").glob("*.yaml"))
TESTS = Path(__file__).parent / "alerts"


def rules(path: Path) -> list[dict]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def checks(path: Path) -> list[dict]:
    tests = yaml.safe_load((TESTS / path.name).read_text())["tests"]
    return [check for test in tests for check in test["alert_rule_test"]]


def runbooks() -> dict[str, str]:
    """Each section of the page of runbooks, by its anchor."""
    sections = (ROOT / "docs/runbooks.md").read_text().split("\n## ")[1:]
    return {heading.strip().lower(): text for heading, _, text in (s.partition("\n") for s in sections)}


@pytest.fixture(scope="module")
def promtool() -> Path:
    return binaries.ensure(["prometheus"]).path("promtool")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own binary
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rules_are_sound(promtool: Path, path: Path):
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", path)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent_as_their_tests_say(promtool: Path, path: Path):
    run(promtool, "test", "rules", TESTS / path.name)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_alert_is_tested_firing_and_silent(path: Path):
    for rule in rules(path):
        seen = {bool(check["exp_alerts"]) for check in checks(path) if check["alertname"] == rule["alert"]}
        assert seen == {True, False}, f"{rule['alert']} needs a test in which it fires and one in which it does not"


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_alert_has_a_severity_texts_and_a_runbook(path: Path):
    for rule in rules(path):
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/runbooks.md"
        assert anchor == rule["alert"].lower()
        assert anchor in runbooks()


def test_each_runbook_belongs_to_an_alert():
    alerts = {rule["alert"].lower() for path in RULES for rule in rules(path)}

    assert runbooks().keys() == alerts

"""docs/guides/install.md: what it shows is taken by a real API server, and what it promises of a removal holds."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hack.cluster import LocalCluster
from hack.installation import CHART, RELEASE, ROOT, HelmError, OperatorProcess, helm, install

from kit.burst import Cloud
from kit.jobs import Team, wait_until

pytestmark = pytest.mark.cluster

GUIDE = (ROOT / "docs" / "guides" / "install.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_its_objects_are_taken(installed: LocalCluster):
    shown = blocks("yaml")

    assert len(shown) == 2
    for text in shown:
        installed.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=text)


def test_the_job_in_the_notes_is_taken(installed: LocalCluster):
    notes = helm(installed, "get", "notes", RELEASE)

    (job,) = re.findall(r"<<YAML\n(.*?)\n  YAML", notes, re.DOTALL)
    installed.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=job)


def test_options_in_its_commands_are_values_of_the_chart(installed: LocalCluster):
    for line in (line for text in blocks("console") for line in text.splitlines() if "--set" in line):
        setting = line.split("--set ")[1]
        command = ["template", RELEASE, str(CHART), "--set", setting]
        if "replica=" in setting:
            with pytest.raises(HelmError, match="'replica' not allowed"):
                helm(installed, *command)
        else:
            helm(installed, *command)


def test_work_outlives_an_uninstallation_is_taken_over_again_or_let_go_by_the_command_shown(
    installed: LocalCluster, tmp_path: Path
):
    operator = OperatorProcess.start(installed, "before", tmp_path / "before.log")
    team, cloud = Team.create(installed, "removal"), Cloud(installed)
    cloud.declare(1, keepWarm=1, delay="1h")
    wait_until(cloud.claims, 20)
    team.submit("runs")
    team.wait_phase("runs", "Running", within=60)
    (pod,) = team.pods()
    operator.stop()
    helm(installed, "uninstall", RELEASE, "--wait")
    assert [(p["metadata"]["uid"], p["status"]["phase"]) for p in team.pods()] == [(pod["metadata"]["uid"], "Running")]

    install(installed)
    operator = OperatorProcess.start(installed, "after", tmp_path / "after.log")
    team.submit("next", {"run-for": "0s"})
    team.wait_phase("next", "Succeeded", within=60)
    operator.stop()
    assert pod["metadata"]["uid"] in {p["metadata"]["uid"] for p in team.live_pods("runs")}

    team.kubectl("delete", "tj", "--all")
    installed.kubectl("delete", "gnc", "--all", "--wait=false")
    (release,) = blocks("bash")
    path = f"{installed.bin('kubectl').parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "KUBECONFIG": str(installed.kubeconfig)}
    subprocess.run(["bash", "-euo", "pipefail", "-c", release], env=environment, check=True)  # noqa: S603, S607 - ours
    wait_until(lambda: not team.pods() and not cloud.claims(), 30)
    installed.kubectl("delete", "gnp", "--all")
    installed.kubectl("delete", "nodes", "-l", f"stokehold.dev/simulated-pool={cloud.name}")
    team.delete()

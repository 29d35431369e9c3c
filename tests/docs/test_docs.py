"""What the docs show holds: every piece of YAML is taken by a real API server, every link leads somewhere."""

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from hack.cluster import LocalCluster

from builders import GPU, NOW, a_job, a_node, a_pool, a_snapshot
from stokehold.api.crd import root_schema
from stokehold.api.v1alpha1 import KINDS
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cli.main import main
from stokehold.cli.why import sentences
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "helm").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "docs").rglob("*.yaml"))
FENCE = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
SPEC = {"image": "i", "numNodes": 4, "gpusPerNode": 8}
ALERTS = ROOT / "helm/stokehold/alerts"


def shown() -> Iterator[Any]:
    """Each block of YAML on a page, and each file of it beside them."""
    for page in PAGES:
        for number, text in enumerate(FENCE.findall(page.read_text()), start=1):
            yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
    for path in EXAMPLES:
        yield pytest.param(path.read_text(), id=str(path.relative_to(ROOT)))


@pytest.mark.cluster
@pytest.mark.parametrize("text", list(shown()))
def test_yaml_in_the_docs_is_taken_by_the_api_server(cluster: LocalCluster, text: str):
    objects = [document for document in yaml.safe_load_all(text) if document]
    assert objects, "a block of YAML without an object"
    assert all({"apiVersion", "kind", "metadata"} <= found.keys() for found in objects)
    for namespace in {found["metadata"].get("namespace", "default") for found in objects}:
        cluster.kubectl("create", "namespace", namespace, check=False)  # most exist

    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_a_page_and_a_heading(page: Path):
    for target in LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "docs/guides/data-scientist.md"])
def test_the_answer_that_the_docs_show_is_the_one_that_is_given(page: str):
    shown = re.search(r"^\$ stokehold why tj/llama\n((?:.+\n)+?)(?=\$|```)", (ROOT / page).read_text(), re.MULTILINE)
    assert shown is not None
    nodes = [a_node(f"n{i}", labels={"pool": "h100"}) for i in range(4)]
    llama = a_job("llama", numNodes=4, gpusPerNode=8, gpuTypes=["h100", "a100-80gb"], topology={"preferred": "rack"})
    cluster = a_snapshot(nodes, [llama], {"n0": {GPU: 8}}, node_pools=[a_pool("h100")])

    (told,) = (action for action in plan_scheduling(cluster, SchedulingSettings()) if action.subject == llama)

    metadata = {"name": llama.name, "namespace": llama.namespace}
    found = TrainingJob.read({"kind": "TrainingJob", "metadata": metadata, "spec": SPEC, "status": told.status})
    assert shown[1].splitlines() == list(sentences(found, NOW + timedelta(seconds=2)))


OF_OTHERS = {"--register-with-taints", "spec.nodeName", "spec.providerID"}
"""What the docs name of the kubelet's options and of the fields of pods and nodes."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_and_fields_that_the_docs_name_exist(page: Path):
    text = page.read_text()
    named = {*re.findall(r"`(--[a-z-]+)", text), *re.findall(r"`((?:spec|status)\.[a-zA-Z.\[\]]*[a-zA-Z])`", text)}

    assert named - OF_OTHERS - options(main, click.Context(main)) - fields() == set()


def options(command: click.Command, context: click.Context) -> set[str]:
    """Those of a command and of all below it."""
    found = {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= options(below, context)
    return found


@cache
def fields() -> set[str]:
    """The paths below spec and status of all kinds, lists with and without their brackets."""

    def below(schema: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, member in schema.get("properties", {}).items():
            yield f"{prefix}{name}"
            yield from below(member, f"{prefix}{name}.")
            for bracket in ("", "[]"):
                yield from below(member.get("items", {}), f"{prefix}{name}{bracket}.")

    return {path for kind in KINDS for path in below(root_schema(kind), "")}


def test_the_guide_for_sres_lists_every_alert_with_its_severity():
    guide = (ROOT / "docs/guides/sre.md").read_text()
    groups = [group for path in ALERTS.glob("*.yaml") for group in yaml.safe_load(path.read_text())["groups"]]
    rows = re.findall(r"^\| \[(Stokehold\w+)\]\(\S+\) \| (\w+) \|", guide, re.MULTILINE)

    assert sorted(rows) == sorted((rule["alert"], rule["labels"]["severity"]) for g in groups for rule in g["rules"])


def test_every_page_can_be_found_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for target in LINK.findall(page.read_text()):
            found = (page.parent / target.partition("#")[0]).resolve()
            if found.suffix == ".md" and found not in seen:
                waiting.append(found)

    pages = {page for page in PAGES if "designs" not in page.parts and page.is_relative_to(ROOT / "docs")}
    assert sorted(map(str, pages - seen)) == []

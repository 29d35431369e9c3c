"""What the image installs is what the tests run with."""

import re
import tomllib
from pathlib import Path

import pytest
from hack.installation import ROOT

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; .*)? \\$", re.MULTILINE)


def pins(path: Path) -> set[tuple[str, str]]:
    return set(PIN.findall(path.read_text()))


@pytest.mark.parametrize("name", ["runtime.lock", "build.lock"])
def test_the_images_locks_are_a_part_of_the_one_lock(name: str):
    image = pins(ROOT / "hack" / "image" / name)

    assert image
    assert image <= pins(ROOT / "requirements.lock")


def test_the_image_has_every_dependency_and_no_tool_of_ours():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = {name for name, _ in pins(ROOT / "hack" / "image" / "runtime.lock")}

    assert names(project["project"]["dependencies"]) <= installed
    assert not names(project["dependency-groups"]["dev"]) & installed


def test_the_image_is_made_of_files_that_its_build_is_given():
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    sources = {source.rstrip("/") for line in copied for source in line.split()}
    assert sources <= given
    assert all((ROOT / source).exists() for source in sources)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[; ]", requirement)[0].lower() for requirement in requirements}

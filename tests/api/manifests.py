"""The manifests of this folder: the good ones by name, and the bad ones made from them."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from stokehold.api.base import Kind
from stokehold.api.v1alpha1 import KINDS

HERE = Path(__file__).parent
BY_NAME: Mapping[str, type[Kind]] = {kind.__name__: kind for kind in KINDS}

Manifest = dict[str, Any]


class Bad(NamedTuple):
    """A manifest with one mistake, and the words that its refusal must contain."""

    case: str
    manifest: Manifest
    says: list[str]

    def __str__(self) -> str:
        return f"{self.manifest['kind']}: {self.case}"


def kind_of(manifest: Manifest) -> type[Kind]:
    """The model of the manifest's kind."""
    return BY_NAME[manifest["kind"]]


def members(schema: Manifest) -> Iterator[str]:
    """The name of every member that a schema knows, at any depth."""
    yield from schema.get("properties", {})
    for inner in (*schema.get("properties", {}).values(), schema.get("items", {})):
        yield from members(inner) if inner else ()


def _good() -> dict[str, Manifest]:
    with (HERE / "good_manifests.yaml").open(encoding="utf-8") as file:
        return {found["metadata"]["name"]: found for found in yaml.safe_load_all(file) if found}


def _bad(bases: Mapping[str, Manifest]) -> list[Bad]:
    with (HERE / "bad_manifests.yaml").open(encoding="utf-8") as file:
        return [
            Bad(entry["case"], _changed(bases[entry["base"]], entry), entry["says"]) for entry in yaml.safe_load(file)
        ]


def _changed(base: Manifest, entry: Manifest) -> Manifest:
    manifest = copy.deepcopy(base)
    for path in entry.get("unset", ()):
        parent, key = _place(manifest, path)
        del parent[key]
    for path, value in entry.get("set", {}).items():
        parent, key = _place(manifest, path)
        parent[key] = "n" * int(value[1:]) if isinstance(value, str) and value.startswith("=") else value
    return manifest


def _place(root: Any, path: str) -> tuple[Any, str | int]:
    *steps, last = path.split(".")
    for step in steps:
        root = root[int(step)] if isinstance(root, list) else root.setdefault(step, {})
    return root, int(last) if isinstance(root, list) else last


GOOD = _good()
BAD = _bad(GOOD)

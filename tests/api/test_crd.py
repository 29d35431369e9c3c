"""The manifests of the CRDs: structural, documented, and in step with what is committed."""

from collections.abc import Iterator
from typing import Any

import pytest

from hack import generate
from stokehold.api.base import Kind
from stokehold.api.crd import manifest, root_schema
from stokehold.api.v1alpha1 import KINDS, TrainingJob

Schema = dict[str, Any]

# https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
LOGICAL = ("anyOf", "allOf", "oneOf", "not")
REFUSED = ("$ref", "$defs", "title", "const", "examples", "uniqueItems", "prefixItems", "propertyNames", "deprecated")
MOST_SELECTABLE_FIELDS = 8

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@kinds
def test_schema_is_structural(kind: type[Kind]):
    for path, schema in _schemas(root_schema(kind)):
        assert not [word for word in REFUSED if word in schema], path
        assert schema.get("type") or schema.get("x-kubernetes-int-or-string"), f"{path} has no type"
        assert not (schema.get("properties") and "additionalProperties" in schema), path
        if not schema.get("x-kubernetes-int-or-string"):
            assert not [word for word in LOGICAL if word in schema], path


@kinds
def test_required_fields_and_list_keys_exist(kind: type[Kind]):
    for path, schema in _schemas(root_schema(kind)):
        members = schema.get("properties", {})
        assert set(schema.get("required", ())) <= members.keys(), path
        for key in schema.get("x-kubernetes-list-map-keys", ()):
            assert key in schema["items"]["properties"], path
            assert key in schema["items"]["required"], path


@kinds
def test_every_field_is_documented_in_a_sentence(kind: type[Kind]):
    for path, schema in _schemas(root_schema(kind)):
        if path.endswith(("[]", "{}", ".metadata", ".metadata.name")):
            continue
        described = schema.get("description", "")
        assert described[:1].isupper(), f"{path} is not documented"
        assert described.endswith("."), f"{path}: {described}"


@kinds
def test_whatever_a_user_writes_has_a_bound(kind: type[Kind]):
    for path, schema in _schemas(root_schema(kind)["properties"]["spec"]):
        if "podTemplate" in path:
            continue
        if schema.get("type") == "integer":
            assert {"minimum", "maximum"} <= schema.keys(), path
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path
        if schema.get("type") == "string" and "enum" not in schema and "format" not in schema:
            assert "maxLength" in schema, path


@kinds
def test_status_takes_what_another_version_wrote(kind: type[Kind]):
    for path, schema in _schemas(root_schema(kind)["properties"]["status"]):
        narrow = {"enum", "minimum", "maximum", "maxLength", "maxItems", "x-kubernetes-validations", "default"}
        assert not narrow & schema.keys(), path


@kinds
def test_status_is_owned_in_whole_parts(kind: type[Kind]):
    for name, part in root_schema(kind)["properties"]["status"]["properties"].items():
        whole = part["items"] if part.get("x-kubernetes-list-type") == "map" else part
        assert "properties" not in whole or whole["x-kubernetes-map-type"] == "atomic", name


@kinds
def test_conditions_have_the_standard_shape(kind: type[Kind]):
    conditions = root_schema(kind)["properties"]["status"]["properties"]["conditions"]

    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["properties"]) == {
        *("type", "status", "reason", "message", "lastTransitionTime", "observedGeneration"),
    }


@kinds
def test_paths_of_columns_selectors_and_scale_exist(kind: type[Kind]):
    version = manifest(kind)["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version.get("selectableFields", ())]
    paths += list(version["subresources"].get("scale", {}).values())

    assert [path for path in paths if not path.startswith(".metadata.") and not _exists(schema, path)] == []
    assert len(version.get("selectableFields", ())) <= MOST_SELECTABLE_FIELDS


@kinds
def test_messages_of_rules_are_short_enough_to_read_and_end_without_a_dot(kind: type[Kind]):
    for path, schema in _schemas(root_schema(kind)):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert len(rule["message"]) <= 250, path
            assert not rule["message"].endswith("."), path


def test_names_of_kinds_clash_with_nobody():
    taken = {
        "po",
        "svc",
        "deploy",
        "no",
        "ns",
        "pv",
        "pvc",
        "cm",
        "ev",
        "ds",
        "rs",
        "sts",
        "cj",
        "hpa",
        "pdb",
        "ing",
        "crd",
    }

    shorts = [kind.RESOURCE.short_name for kind in KINDS]

    assert len(set(shorts)) == len(shorts)
    assert not taken & set(shorts)


def test_defaults_of_a_part_apply_when_the_part_is_left_out():
    spec = root_schema(TrainingJob)["properties"]["spec"]["properties"]

    assert spec["numNodes"]["default"] == 1
    assert spec["failurePolicy"]["default"] == {}
    assert spec["failurePolicy"]["properties"]["maxRestarts"]["default"] == 3
    assert spec["checkpoint"]["properties"]["gracePeriod"]["default"] == "5m"
    assert "default" not in spec["checkpoint"]


def test_what_is_committed_is_what_the_models_say():
    assert generate.stale() == []


def test_stale_file_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(generate, "HEADER", "# Another header.\n")

    code = generate.main(["--check"])

    assert code == 1
    assert "crds/trainingjobs.yaml is stale" in capsys.readouterr().err


def test_chart_keeps_the_kinds_when_it_goes():
    template = generate.chart_template(manifest(TrainingJob))

    assert "{{- if .Values.crds.install }}" in template
    assert "helm.sh/resource-policy: keep" in template


def _schemas(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path or ".", schema
    for name, member in schema.get("properties", {}).items():
        yield from _schemas(member, f"{path}.{name}")
    for word, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if word in schema:
            yield from _schemas(schema[word], f"{path}{mark}")


def _exists(schema: Schema, path: str) -> bool:
    for step in path.removeprefix(".").replace("[0]", "").split("."):
        members = schema.get("items", schema).get("properties", {})
        if step not in members:
            return False
        schema = members[step]
    return True

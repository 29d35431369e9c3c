"""From the models to the manifests of their CRDs: structural schemas, as the API server demands.

Pydantic's JSON schema is close, but has references, unions with null and titles that a structural schema may not have.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue
from pydantic.json_schema import GenerateJsonSchema

from stokehold.api.base import Column, Kind, Resource
from stokehold.api.durations import Duration
from stokehold.api.names import CATEGORY, GROUP, VERSION

Schema = dict[str, Any]  # JSON schema is open by nature

# What is kept of pydantic's schema, in the order in which it is written down.
_KEYWORDS = (
    "description",
    "type",
    "format",
    "nullable",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "required",
    "anyOf",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-validations",
)

# A stored status may come from another version; a narrower schema would refuse even the writes that leave it alone.
_STATUS_KEYWORDS = frozenset(
    {
        "description",
        "type",
        "format",
        "properties",
        "additionalProperties",
        "items",
        "anyOf",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    }
)

_API_VERSION_DOC = f"The version of the API that the object is written in, {GROUP}/{VERSION}."
_KIND_DOC = "The kind of the object."


class _Generator(GenerateJsonSchema):
    """Pydantic's own, which would write a duration down by its fields."""

    def encode_default(self, dft: object) -> object:
        return str(dft) if isinstance(dft, Duration) else super().encode_default(dft)


def manifest(kind: type[Kind]) -> Schema:
    """Return the CustomResourceDefinition of the kind."""
    resource = kind.RESOURCE
    name = kind.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": resource.plural,
                "singular": name.lower(),
                "shortNames": [resource.short_name],
                "categories": [CATEGORY],
            },
            "versions": [_version(kind)],
        },
    }


def root_schema(kind: type[Kind]) -> Schema:
    """Return the structural schema of the kind."""
    generated = kind.model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator)
    definitions = generated.pop("$defs", {})
    schema = _structural(generated, definitions)
    fields = schema["properties"]
    fields["apiVersion"] = {"description": _API_VERSION_DOC, "type": "string"}
    fields["kind"] = {"description": _KIND_DOC, "type": "string"}
    fields["metadata"] = _metadata(kind.RESOURCE)
    fields["status"] = _in_whole_parts(_lenient(fields["status"]))
    if _is_required(fields["spec"]):
        schema["required"] = ["spec"]
    else:
        schema.pop("required", None)
    return _documented(schema)


def _version(kind: type[Kind]) -> Schema:
    resource = kind.RESOURCE
    subresources: Schema = {"status": {}}
    if resource.scale is not None:
        subresources["scale"] = {
            "specReplicasPath": resource.scale.spec_replicas,
            "statusReplicasPath": resource.scale.status_replicas,
            "labelSelectorPath": resource.scale.selector,
        }
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in resource.columns],
        "subresources": subresources,
        "schema": {"openAPIV3Schema": root_schema(kind)},
    }
    if resource.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in resource.selectable_fields]
    return version


def _column(column: Column) -> Schema:
    entry: Schema = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    return entry | {"priority": 1} if column.wide else entry


def _metadata(resource: Resource) -> Schema:
    schema: Schema = {"type": "object"}
    if resource.name_max_length is not None:
        schema["properties"] = {"name": {"type": "string", "maxLength": resource.name_max_length}}
    return schema


def _is_required(spec: Schema) -> bool:
    return bool(spec.get("properties"))


def _structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema without references, nullable unions and keywords that Kubernetes does not know."""
    schema = _flattened(schema, definitions)
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if schema.get("additionalProperties") in (False, True):
        del schema["additionalProperties"]
    for name, value in schema.items():
        if name == "properties":
            schema[name] = {key: _structural(member, definitions) for key, member in value.items()}
        elif name in ("items", "additionalProperties"):
            schema[name] = _structural(value, definitions)
    _settle_default(schema)
    _refuse_nulls(schema)
    return {keyword: schema[keyword] for keyword in _KEYWORDS if keyword in schema}


def _flattened(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return the schema with its reference, or the one member of its union with null, put in its place."""
    schema = dict(schema)
    if "$ref" in schema:
        target = definitions[schema.pop("$ref").rpartition("/")[2]]
        return _merged(_flattened(target, definitions), schema)
    if "anyOf" in schema and not schema.get("x-kubernetes-int-or-string"):
        members = [member for member in schema.pop("anyOf") if member.get("type") != "null"]
        if len(members) != 1:
            raise ValueError(f"a structural schema has no unions: {members}")
        return _merged(_flattened(members[0], definitions), schema)
    return schema


def _merged(inner: Schema, outer: Schema) -> Schema:
    """Return both schemas as one: the outer one knows the field, the inner one its type; rules add up."""
    rules = [*inner.get("x-kubernetes-validations", []), *outer.get("x-kubernetes-validations", [])]
    merged = {**inner, **outer}
    return {**merged, "x-kubernetes-validations": rules} if rules else merged


def _settle_default(schema: Schema) -> None:
    """Keep the defaults that say something; that of an object is {}, so that its members' own apply."""
    default = schema.get("default")
    if schema.get("properties") and isinstance(default, dict):
        schema["default"] = {}
    elif default in (None, "", [], {}):
        schema.pop("default", None)


def _refuse_nulls(schema: Schema) -> None:
    """Add a rule for each nullable member: nullable keeps the null until the rule sees it, else it would be dropped."""
    rules = [
        {
            "rule": f"has(self.{name})",
            "message": f"{name} must be a number from {member['minimum']} to {member['maximum']}, not null",
            "fieldPath": f".{name}",
        }
        for name, member in schema.get("properties", {}).items()
        if member.get("nullable")
    ]
    if rules:
        schema["x-kubernetes-validations"] = [*rules, *schema.get("x-kubernetes-validations", [])]


def _lenient(schema: Schema) -> Schema:
    kept = {name: value for name, value in schema.items() if name in _STATUS_KEYWORDS}
    if "properties" in kept:
        kept["properties"] = {name: _lenient(member) for name, member in kept["properties"].items()}
    for name in ("items", "additionalProperties"):
        if name in kept:
            kept[name] = _lenient(kept[name])
    if keys := kept.get("x-kubernetes-list-map-keys"):
        kept["items"]["required"] = keys
    return kept


def _in_whole_parts(status: Schema) -> Schema:
    """The status with parts that are owned whole, as they are written: else each of their fields would be tracked for
    its manager, in every write of the object (docs/designs/0007)."""
    atomic = {"x-kubernetes-map-type": "atomic"}
    parts = dict(status["properties"])
    for name, part in parts.items():
        if "properties" in part:
            parts[name] = {**part, **atomic}
        elif part.get("x-kubernetes-list-type") == "map":
            parts[name] = {**part, "items": {**part["items"], **atomic}}
    return {**status, "properties": parts}


def _documented(schema: Schema) -> Schema:
    """Return the schema with each description in paragraphs, followed by the default and the bounds."""
    documented = dict(schema)
    if "description" in schema:
        documented["description"] = " ".join([_paragraphs(schema["description"]), *facts(schema)])
    if "properties" in schema:
        documented["properties"] = {name: _documented(member) for name, member in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if name in schema:
            documented[name] = _documented(schema[name])
    return documented


def facts(schema: Schema) -> list[str]:
    """Return what the schema says of the default and the bounds, as sentences."""
    said = []
    if "default" in schema and schema["default"] != {}:
        said.append(f"Defaults to {_written(schema['default'])}.")
    if "minimum" in schema and "maximum" in schema:
        said.append(f"From {schema['minimum']} to {schema['maximum']}.")
    if "maxItems" in schema:
        said.append(f"At most {schema['maxItems']} entries.")
    if schema.get("type") not in ("object", "boolean"):
        rules = [rule["message"] for rule in schema.get("x-kubernetes-validations", [])]
        said += [f"It {message}." for message in rules]
    return said


def _written(value: JsonValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))

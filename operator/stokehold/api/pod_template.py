"""The escape hatch `podTemplate`, and what it must not reach: another node, another scheduler, more GPUs, the host.

The API server refuses each of these by itself, for the webhook may be down; `find_escape` says the same for us.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, JsonValue, WithJsonSchema

from stokehold.api.names import KEY_PREFIX
from stokehold.api.pods import RESOURCES_MESSAGE, cel_allowed_resource, is_allowed_resource

Schema = dict[str, JsonValue]
Object = dict[str, JsonValue]

_OPERATOR_OWNS = "the operator sets it"
_COUNT_ONLY = "GPUs are asked for by their number only"


class Forbidden(NamedTuple):
    """A field that a template must leave alone, and why."""

    name: str
    type: str
    why: str


FORBIDDEN_METADATA = (
    Forbidden("name", "string", _OPERATOR_OWNS),
    Forbidden("generateName", "string", _OPERATOR_OWNS),
    Forbidden("namespace", "string", _OPERATOR_OWNS),
    Forbidden("finalizers", "array", _OPERATOR_OWNS),
    Forbidden("ownerReferences", "array", _OPERATOR_OWNS),
)
FORBIDDEN_SPEC = (
    Forbidden("nodeName", "string", "the operator chooses the nodes"),
    Forbidden("schedulerName", "string", "the cluster's own scheduler binds the pods"),
    Forbidden("schedulingGates", "array", "the operator decides when pods may start"),
    Forbidden("schedulingGroup", "object", "the operator starts all pods of a job together"),
    Forbidden("workloadRef", "object", "the operator starts all pods of a job together"),
    Forbidden("priorityClassName", "string", "use spec.priorityClassName"),
    Forbidden("priority", "integer", "use spec.priorityClassName"),
    Forbidden("preemptionPolicy", "string", "use spec.priorityClassName"),
    Forbidden("restartPolicy", "string", _OPERATOR_OWNS),
    Forbidden("hostname", "string", _OPERATOR_OWNS),
    Forbidden("subdomain", "string", _OPERATOR_OWNS),
    Forbidden("hostPID", "boolean", "pods must not share the node's processes"),
    Forbidden("hostIPC", "boolean", "pods must not share the node's memory segments"),
    Forbidden("hostNetwork", "boolean", "pods must not use the node's network"),
    Forbidden("resourceClaims", "array", _COUNT_ONLY),
)
FORBIDDEN_RESOURCES = (Forbidden("claims", "array", _COUNT_ONLY),)
FORBIDDEN_VOLUME = (Forbidden("hostPath", "object", "pods must not read or write the node's folders"),)
FORBIDDEN_TERM = (Forbidden("matchFields", "array", "the operator chooses the nodes"),)

_KEYS = f"must not use keys that start with {KEY_PREFIX}, they are the operator's"
_TOLERATION = (
    f"tolerations must name a key that does not start with {KEY_PREFIX}: the operator tolerates the taints of the nodes"
    " that it chooses"
)
_PRIVILEGED = "securityContext.privileged must not be true: a privileged container reaches every GPU of the node"


def _open(properties: Schema | None = None, rules: list[JsonValue] | None = None) -> Schema:
    schema: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if properties:
        schema["properties"] = properties
    if rules:
        schema["x-kubernetes-validations"] = rules
    return schema


def _rule(cel: str, message: str) -> JsonValue:
    return {"rule": cel, "message": message}


def _list(items: Schema, most: int) -> Schema:
    return {"type": "array", "maxItems": most, "items": items}


def _forbid(fields: tuple[Forbidden, ...]) -> tuple[Schema, list[JsonValue]]:
    """Return the members as CEL must know them to see that they are there, and the rules that refuse them."""
    members: Schema = {}
    for name, kind, _ in fields:
        open_object: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        string: Schema = {"type": "string"}
        items = string if name == "finalizers" else open_object
        shapes: dict[str, JsonValue] = {"array": {"type": "array", "items": items}, "object": open_object}
        members[name] = shapes.get(kind, {"type": kind})
    return members, [_rule(f"!has(self.{field.name})", _refusal(field)) for field in fields]


def _refusal(field: Forbidden) -> str:
    return f"{field.name} is not allowed here: {field.why}"


def _metadata_schema() -> Schema:
    members, rules = _forbid(FORBIDDEN_METADATA)
    return _open({**members, "labels": _map(64, 63), "annotations": _map(64, 262144)}, rules)


def _map(most: int, longest: int) -> Schema:
    return {
        "type": "object",
        "maxProperties": most,
        "additionalProperties": {"type": "string", "maxLength": longest},
        "x-kubernetes-validations": [_rule(f"self.all(key, !key.startsWith('{KEY_PREFIX}'))", _KEYS)],
    }


def _resources_schema() -> Schema:
    amounts: Schema = {
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 40,
        },
        "x-kubernetes-validations": [_rule(f"self.all(name, {cel_allowed_resource('name')})", RESOURCES_MESSAGE)],
    }
    members, rules = _forbid(FORBIDDEN_RESOURCES)
    return _open({**members, "requests": amounts, "limits": amounts}, rules)


def _container_schema() -> Schema:
    context = _open({"privileged": {"type": "boolean"}})
    rule = _rule(
        "!has(self.securityContext) || !has(self.securityContext.privileged) || !self.securityContext.privileged",
        _PRIVILEGED,
    )
    return _open({"resources": _resources_schema(), "securityContext": context}, [rule])


def _key_schema() -> Schema:
    key: Schema = {"key": {"type": "string", "maxLength": 317}}
    return _open(key, [_rule(f"!has(self.key) || !self.key.startsWith('{KEY_PREFIX}')", _KEYS)])


def _affinity_schema() -> Schema:
    members, rules = _forbid(FORBIDDEN_TERM)
    term = _open({**members, "matchExpressions": _list(_key_schema(), 16)}, rules)
    node = _open(
        {
            "requiredDuringSchedulingIgnoredDuringExecution": _open({"nodeSelectorTerms": _list(term, 16)}),
            "preferredDuringSchedulingIgnoredDuringExecution": _list(_open({"preference": term}), 16),
        }
    )
    return _open({"nodeAffinity": node})


def _spec_schema() -> Schema:
    members, rules = _forbid(FORBIDDEN_SPEC)
    toleration = _open(
        {"key": {"type": "string", "maxLength": 317}},
        [_rule(f"has(self.key) && self.key != '' && !self.key.startsWith('{KEY_PREFIX}')", _TOLERATION)],
    )
    volume = _open(*_forbid(FORBIDDEN_VOLUME))
    return _open(
        {
            **members,
            "containers": _list(_container_schema(), 16),
            "initContainers": _list(_container_schema(), 16),
            "resources": _resources_schema(),
            "tolerations": _list(toleration, 32),
            "nodeSelector": _map(32, 63),
            "affinity": _affinity_schema(),
            "volumes": _list(volume, 32),
        },
        rules,
    )


def template_schema() -> Schema:
    """Return the schema of a pod template: open, but with the forbidden places named."""
    return _open({"metadata": _metadata_schema(), "spec": _spec_schema()})


def find_escape(template: Object) -> str | None:
    """Return what the template reaches for and must not, as one sentence that names the field, or None."""
    return next(_escapes(template), None)


def _escapes(template: Object) -> Iterator[str]:
    metadata, spec = _object(template, "metadata"), _object(template, "spec")
    yield from _forbidden("metadata", metadata, FORBIDDEN_METADATA)
    yield from _bad_keys("metadata.labels", _object(metadata, "labels"))
    yield from _bad_keys("metadata.annotations", _object(metadata, "annotations"))
    yield from _forbidden("spec", spec, FORBIDDEN_SPEC)
    yield from _bad_keys("spec.nodeSelector", _object(spec, "nodeSelector"))
    yield from _bad_resources("spec.resources", _object(spec, "resources"))
    for name in ("containers", "initContainers"):
        for index, container in enumerate(_objects(spec, name)):
            yield from _bad_container(f"spec.{name}[{index}]", container)
    if not all(map(_is_own_toleration, _objects(spec, "tolerations"))):
        yield f"spec.{_TOLERATION}"
    for index, volume in enumerate(_objects(spec, "volumes")):
        yield from _forbidden(f"spec.volumes[{index}]", volume, FORBIDDEN_VOLUME)
    yield from _bad_affinity(_object(_object(spec, "affinity"), "nodeAffinity"))


def _forbidden(path: str, part: Object, fields: tuple[Forbidden, ...]) -> Iterator[str]:
    for field in fields:
        if field.name in part:
            yield f"{path}.{_refusal(field)}"


def _is_own_toleration(toleration: Object) -> bool:
    key = toleration.get("key")
    return isinstance(key, str) and key != "" and not key.startswith(KEY_PREFIX)


def _bad_keys(path: str, entries: Object) -> Iterator[str]:
    if any(key.startswith(KEY_PREFIX) for key in entries):
        yield f"{path} {_KEYS}"


def _bad_resources(path: str, resources: Object) -> Iterator[str]:
    for name in ("requests", "limits"):
        if not all(map(is_allowed_resource, _object(resources, name))):
            yield f"{path}.{name} {RESOURCES_MESSAGE}"
    yield from _forbidden(path, resources, FORBIDDEN_RESOURCES)


def _bad_container(path: str, container: Object) -> Iterator[str]:
    yield from _bad_resources(f"{path}.resources", _object(container, "resources"))
    if _object(container, "securityContext").get("privileged") not in (None, False):
        yield f"{path}.{_PRIVILEGED}"


def _bad_affinity(node: Object) -> Iterator[str]:
    required = _object(node, "requiredDuringSchedulingIgnoredDuringExecution")
    preferred = _objects(node, "preferredDuringSchedulingIgnoredDuringExecution")
    terms = [*_objects(required, "nodeSelectorTerms"), *(_object(entry, "preference") for entry in preferred)]
    for term in terms:
        yield from _forbidden("spec.affinity.nodeAffinity", term, FORBIDDEN_TERM)
        for expression in _objects(term, "matchExpressions"):
            if str(expression.get("key", "")).startswith(KEY_PREFIX):
                yield f"spec.affinity.nodeAffinity {_KEYS}"


def _object(parent: Object, name: str) -> Object:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _objects(parent: Object, name: str) -> list[Object]:
    value = parent.get(name)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _refuse_escape(template: Object) -> Object:
    if (found := find_escape(template)) is not None:
        raise ValueError(found)
    return template


PodTemplate = Annotated[dict[str, JsonValue], AfterValidator(_refuse_escape), WithJsonSchema(template_schema())]

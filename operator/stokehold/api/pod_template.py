"""The escape hatch `podTemplate`, and what it must not reach: another node, another scheduler, more GPUs, the host.

The API server refuses each of these by itself, for the webhook may be down; `find_escape` says the same for us.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, JsonValue, WithJsonSchema

from stokehold.api.names import KEY_PREFIX
from stokehold.api.pods import (
    CEL_ALLOWED_VARIABLE,
    RESOURCES_MESSAGE,
    VARIABLE_MESSAGE,
    cel_allowed_resource,
    is_allowed_resource,
    is_allowed_variable,
)

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
_PRIVILEGED = "privileged must not be true: a privileged container reaches every GPU of the node"


def _open(what: str, properties: Schema, rules: list[JsonValue] | None = None) -> Schema:
    schema: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": properties}
    if what:
        schema["description"] = what
    if rules:
        schema["x-kubernetes-validations"] = rules
    return schema


def _rule(cel: str, message: str, field: str = "") -> JsonValue:
    rule: Schema = {"rule": cel, "message": message}
    return rule | {"fieldPath": field} if field else rule


def _list(what: str, items: Schema, most: int) -> Schema:
    return {"description": what, "type": "array", "maxItems": most, "items": items}


def _map(what: str, most: int, longest: int) -> Schema:
    return {
        "description": what,
        "type": "object",
        "maxProperties": most,
        "additionalProperties": {"type": "string", "maxLength": longest},
        "x-kubernetes-validations": [_rule(f"self.all(key, !key.startsWith('{KEY_PREFIX}'))", _KEYS)],
    }


def _forbid(fields: tuple[Forbidden, ...]) -> tuple[Schema, list[JsonValue]]:
    """Return the members as CEL must know them to see that they are there, and the rules that refuse them."""
    members: Schema = {}
    for name, kind, why in fields:
        open_object: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        string: Schema = {"type": "string"}
        array: Schema = {"type": "array", "items": string if name == "finalizers" else open_object}
        shape = {"array": array, "object": open_object}.get(kind, {"type": kind})
        members[name] = {"description": f"Not allowed: {why}.", **shape}
    return members, [_rule(f"!has(self.{field.name})", _refusal(field), f".{field.name}") for field in fields]


def _refusal(field: Forbidden) -> str:
    return f"{field.name} is not allowed here: {field.why}"


def _metadata_schema() -> Schema:
    members, rules = _forbid(FORBIDDEN_METADATA)
    labels = _map("Labels of the pods, besides the operator's own.", 64, 63)
    annotations = _map("Annotations of the pods, besides the operator's own.", 64, 262144)
    what = "Labels and annotations of the pods."
    return _open(what, {**members, "labels": labels, "annotations": annotations}, rules)


def _resources_schema(what: str) -> Schema:
    amounts: Schema = {
        "description": "Amounts of CPU, memory, disk and network devices, as in a container of Kubernetes.",
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
    return _open(what, {**members, "requests": amounts, "limits": amounts}, rules)


def _containers_schema(what: str) -> Schema:
    privileged: Schema = {"description": "Not allowed to be true.", "type": "boolean"}
    privileged_rule = _rule("!has(self.privileged) || !self.privileged", _PRIVILEGED, ".privileged")
    name: Schema = {"description": "The name of the variable.", "type": "string", "maxLength": 253}
    name_rule = _rule(f"!has(self.name) || {CEL_ALLOWED_VARIABLE}", VARIABLE_MESSAGE, ".name")
    container = _open(
        "",
        {
            "env": _list("Environment variables of the container.", _open("", {"name": name}, [name_rule]), 256),
            "resources": _resources_schema("What the container asks for. GPUs cannot be asked for here."),
            "securityContext": _open(
                "How the container is kept apart from its node.", {"privileged": privileged}, [privileged_rule]
            ),
        },
    )
    return _list(what, container, 16)


def _affinity_schema() -> Schema:
    key: Schema = {"description": "The key of a label of nodes.", "type": "string", "maxLength": 317}
    rule = _rule(f"!has(self.key) || !self.key.startsWith('{KEY_PREFIX}')", _KEYS, ".key")
    members, rules = _forbid(FORBIDDEN_TERM)
    expressions = _list("Conditions on the labels of nodes.", _open("", {"key": key}, [rule]), 16)
    term = _open("Which nodes.", {**members, "matchExpressions": expressions}, rules)
    terms = _list("Alternatives, as in a pod of Kubernetes.", term, 16)
    wish = _open("", {"preference": term})
    node = _open(
        "Which nodes, as in a pod of Kubernetes. It narrows down the nodes that the operator chooses from.",
        {
            "requiredDuringSchedulingIgnoredDuringExecution": _open("What must hold.", {"nodeSelectorTerms": terms}),
            "preferredDuringSchedulingIgnoredDuringExecution": _list("What should hold.", wish, 16),
        },
    )
    return _open("Near to what and far from what the pods run.", {"nodeAffinity": node})


def _tolerations_schema() -> Schema:
    key: Schema = {"description": "The key of a taint.", "type": "string", "maxLength": 317}
    rule = _rule(f"has(self.key) && self.key != '' && !self.key.startsWith('{KEY_PREFIX}')", _TOLERATION)
    return _list("Taints that the pods tolerate, besides those of the GPUs.", _open("", {"key": key}, [rule]), 32)


def _spec_schema() -> Schema:
    members, rules = _forbid(FORBIDDEN_SPEC)
    selector = "Labels of the nodes that the operator chooses from, with exactly these values."
    volumes = _list("Volumes of the pods, as in a pod of Kubernetes.", _open("", *_forbid(FORBIDDEN_VOLUME)), 32)
    return _open(
        "The rest of the pod, as in a pod of Kubernetes.",
        {
            **members,
            "containers": _containers_schema("Containers of the pods. The one named main runs the image of the spec."),
            "initContainers": _containers_schema("Containers that run before, or beside with restartPolicy Always."),
            "resources": _resources_schema("What the whole pod asks for. GPUs cannot be asked for here."),
            "tolerations": _tolerations_schema(),
            "nodeSelector": _map(selector, 32, 63),
            "affinity": _affinity_schema(),
            "volumes": volumes,
        },
        rules,
    )


def template_schema() -> Schema:
    """Return the schema of a pod template: its two parts are open, but the forbidden places are named."""
    return {"type": "object", "properties": {"metadata": _metadata_schema(), "spec": _spec_schema()}}


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
    if not all(is_allowed_variable(str(variable.get("name"))) for variable in _objects(container, "env")):
        yield f"{path}.env {VARIABLE_MESSAGE}"
    if _object(container, "securityContext").get("privileged") not in (None, False):
        yield f"{path}.securityContext.{_PRIVILEGED}"


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

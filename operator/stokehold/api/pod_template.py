"""The escape hatch `podTemplate`, and what it must not reach: another node, another scheduler, more GPUs, the host.

A template is handed on as it was written; the models here only judge it. The API server refuses the same by itself,
from the rules in the CRDs, for the webhook may be down.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from stokehold.api.base import Bool, Int, Part, Rule
from stokehold.api.fields import (
    ANNOTATIONS_RULE,
    LABELS_RULE,
    LabelKey,
    LabelMap,
    ObjectName,
    ShortName,
)
from stokehold.api.names import KEY_PREFIX
from stokehold.api.open_parts import Forbidden, OpenPart
from stokehold.api.pods import UNRESERVED_NAME, VARIABLE_RULES, ResourceList

_OPERATOR_OWNS = "the operator sets it"
_OPERATOR_CHOOSES = "the operator chooses the nodes"
_COUNT_ONLY = "GPUs are asked for by their number only"
_TOGETHER = "the operator starts all pods of a job together"
_OTHER_PODS = (
    "the operator chooses the nodes without a look at which other pods run there; use nodeSelector, nodeAffinity or"
    " spec.topology, and ask for all GPUs of a node to have it alone"
)
_USE_PRIORITY = "use spec.priorityClassName"

_KEYS_MESSAGE = f"must not use keys that start with {KEY_PREFIX}, they are the operator's"
_NO_OWN_KEYS = Rule(
    _KEYS_MESSAGE,
    cel=f"self.all(key, !key.startsWith('{KEY_PREFIX}'))",
    holds=lambda entries: not any(key.startswith(KEY_PREFIX) for key in entries),
)
_NO_OWN_KEY = Rule(
    _KEYS_MESSAGE,
    cel=f"!self.startsWith('{KEY_PREFIX}')",
    holds=lambda key: not key.startswith(KEY_PREFIX),
)

# Each of them comes close to a privileged container. Runtimes read them in either case.
_CAPABILITIES = ("ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "DAC_READ_SEARCH", "BPF")
_CAPABILITY = re.compile(f"^(CAP_)?({'|'.join(_CAPABILITIES)})$", re.IGNORECASE)


class TemplateMetadata(OpenPart):
    """Labels and annotations of the pods."""

    FORBIDDEN = (
        Forbidden("name", "string", _OPERATOR_OWNS),
        Forbidden("generateName", "string", _OPERATOR_OWNS),
        Forbidden("namespace", "string", _OPERATOR_OWNS),
        Forbidden("finalizers", "strings", _OPERATOR_OWNS),
        Forbidden("ownerReferences", "array", _OPERATOR_OWNS),
    )

    labels: Annotated[LabelMap, Field(max_length=64), _NO_OWN_KEYS, LABELS_RULE] = Field(default_factory=dict)
    """Labels of the pods, besides the operator's own."""
    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=262144)]], Field(max_length=64), _NO_OWN_KEYS, ANNOTATIONS_RULE
    ] = Field(default_factory=dict)
    """Annotations of the pods, besides the operator's own."""


class TemplateVariable(OpenPart):
    """An environment variable, as in a container of Kubernetes."""

    RULES = VARIABLE_RULES

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name of the variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """The value."""


class TemplatePort(OpenPart):
    """A port of the container, as in a container of Kubernetes."""

    FORBIDDEN = (Forbidden("hostPort", "integer", "pods must not use the node's network"),)


class TemplateMount(OpenPart):
    """Where a volume appears in the container, as in a container of Kubernetes."""

    mount_path: Annotated[str, Field(min_length=1, max_length=1024)]
    """The absolute path in the container, for example /data."""


class TemplateResources(OpenPart):
    """What is asked for besides the GPUs, which cannot be asked for here."""

    FORBIDDEN = (Forbidden("claims", "array", _COUNT_ONLY),)

    requests: ResourceList = Field(default_factory=dict)
    """What is sure to be there, for example cpu: 16 and memory: 128Gi."""
    limits: ResourceList = Field(default_factory=dict)
    """What may be used at most, for example memory: 128Gi."""


class TemplateCapabilities(OpenPart):
    """What the container may do beyond an ordinary one, as in a container of Kubernetes."""

    add: Annotated[
        tuple[Annotated[str, Field(max_length=63)], ...],
        Field(max_length=64),
        Rule(
            f"must not name {', '.join(_CAPABILITIES)}: with them a container reaches the node",
            cel=f"self.all(one, !one.matches('(?i){_CAPABILITY.pattern}'))",
            holds=lambda names: not any(map(_CAPABILITY.fullmatch, names)),
        ),
    ] = ()
    """Capabilities besides the usual ones, for example IPC_LOCK."""


class TemplateSecurity(OpenPart):
    """How the container is kept apart from its node."""

    RULES = (
        Rule(
            "privileged must not be true: a privileged container reaches every GPU of the node",
            cel="!has(self.privileged) || !self.privileged",
            holds=lambda security: not security.privileged,
            field=".privileged",
        ),
    )

    privileged: Bool | None = None
    """Not allowed to be true."""
    capabilities: TemplateCapabilities | None = None
    """What the container may do beyond an ordinary one."""


class TemplateHook(OpenPart):
    """What is done at one moment, as in a container of Kubernetes."""


class TemplateLifecycle(OpenPart):
    """What is done when the container starts and before it stops, as in a container of Kubernetes."""

    pre_stop: TemplateHook | None = None
    """Before it is told to stop. A replica of an InferencePool waits until nobody is sent to it any more."""


class TemplateContainer(OpenPart):
    """A container, as in a pod of Kubernetes."""

    name: ShortName
    """The name of the container. The one named main runs the image of the spec."""
    env: Annotated[tuple[TemplateVariable, ...], Field(max_length=256)] = ()
    """Environment variables of the container."""
    ports: Annotated[tuple[TemplatePort, ...], Field(max_length=64)] = ()
    """Ports of the container."""
    volume_mounts: Annotated[tuple[TemplateMount, ...], Field(max_length=64)] = ()
    """Where volumes appear in the container."""
    resources: TemplateResources | None = None
    """What the container asks for. GPUs cannot be asked for here."""
    lifecycle: TemplateLifecycle | None = None
    """What is done when the container starts and before it stops."""
    security_context: TemplateSecurity | None = None
    """How the container is kept apart from its node."""


class TemplateToleration(OpenPart):
    """A taint that the pods tolerate, as in a pod of Kubernetes."""

    RULES = (
        Rule(
            f"tolerations must name a key that does not start with {KEY_PREFIX}: the operator tolerates the taints of"
            " the nodes that it chooses",
            cel=f"has(self.key) && self.key != '' && !self.key.startsWith('{KEY_PREFIX}')",
            holds=lambda one: bool(one.key) and not one.key.startswith(KEY_PREFIX),
        ),
    )

    key: Annotated[str, Field(max_length=317)] | None = None
    """The key of the taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """Whether any value is tolerated (Exists) or only the given one (Equal)."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The effect of the taint. Left out, all effects."""


class TemplateRequirement(OpenPart):
    """One condition on the labels of a node."""

    RULES = (
        Rule(
            "values must be given for In, NotIn, Gt and Lt, and only for them",
            cel="(self.operator in ['In', 'NotIn', 'Gt', 'Lt']) == (has(self.values) && self.values.size() > 0)",
            holds=lambda one: (one.operator in ("In", "NotIn", "Gt", "Lt")) == bool(one.values),
            field=".values",
        ),
    )

    key: Annotated[LabelKey, _NO_OWN_KEY]
    """The key of a label of nodes."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the label is compared."""
    values: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=64)] = ()
    """The values to compare with."""


class TemplateTerm(OpenPart):
    """Which nodes: all conditions must hold."""

    FORBIDDEN = (Forbidden("matchFields", "array", _OPERATOR_CHOOSES),)

    match_expressions: Annotated[tuple[TemplateRequirement, ...], Field(max_length=16)] = ()
    """Conditions on the labels of nodes."""


class TemplateWish(OpenPart):
    """Which nodes are liked better, as in a pod of Kubernetes."""

    preference: TemplateTerm
    """Which nodes."""


class TemplateTerms(OpenPart):
    """Which nodes, as alternatives of which one must hold."""

    node_selector_terms: Annotated[tuple[TemplateTerm, ...], Field(min_length=1, max_length=16)]
    """The alternatives."""


class TemplateNodeAffinity(OpenPart):
    """Which nodes, as in a pod of Kubernetes. It narrows down the nodes that the operator chooses from."""

    required_during_scheduling_ignored_during_execution: TemplateTerms | None = None
    """What must hold."""
    preferred_during_scheduling_ignored_during_execution: Annotated[tuple[TemplateWish, ...], Field(max_length=16)] = ()
    """What should hold."""


class TemplatePodAffinity(OpenPart):
    """Near to which other pods, or far from which, as in a pod of Kubernetes. Wishes change nothing."""

    FORBIDDEN = (Forbidden("requiredDuringSchedulingIgnoredDuringExecution", "array", _OTHER_PODS),)


class TemplateSpread(OpenPart):
    """How pods are spread, as in a pod of Kubernetes. Wishes change nothing."""

    RULES = (
        Rule(
            f"whenUnsatisfiable must not be DoNotSchedule: {_OTHER_PODS}",
            cel="self.whenUnsatisfiable != 'DoNotSchedule'",
            holds=lambda spread: spread.when_unsatisfiable != "DoNotSchedule",
            field=".whenUnsatisfiable",
        ),
    )

    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Only ScheduleAnyway is allowed."""


class TemplateAffinity(OpenPart):
    """Near to what and far from what the pods run, as in a pod of Kubernetes."""

    node_affinity: TemplateNodeAffinity | None = None
    """Which nodes, as in a pod of Kubernetes. It narrows down the nodes that the operator chooses from."""
    pod_affinity: TemplatePodAffinity | None = None
    """Near to which other pods. Only wishes are allowed, and they change nothing."""
    pod_anti_affinity: TemplatePodAffinity | None = None
    """Far from which other pods. Only wishes are allowed, and they change nothing."""


class TemplateClaim(OpenPart):
    """A PersistentVolumeClaim in the same namespace."""

    claim_name: ObjectName
    """The name of the claim."""


class TemplateVolume(OpenPart):
    """A volume, as in a pod of Kubernetes."""

    FORBIDDEN = (Forbidden("hostPath", "object", "pods must not read or write the node's folders"),)

    name: Annotated[ShortName, UNRESERVED_NAME]
    """The name that volumeMounts refer to."""
    persistent_volume_claim: TemplateClaim | None = None
    """A PersistentVolumeClaim in the same namespace."""


class TemplateSpec(OpenPart):
    """The rest of the pod, as in a pod of Kubernetes."""

    FORBIDDEN = (
        Forbidden("nodeName", "string", _OPERATOR_CHOOSES),
        Forbidden("schedulerName", "string", "the cluster's own scheduler binds the pods"),
        Forbidden("schedulingGates", "array", "the operator decides when pods may start"),
        Forbidden("schedulingGroup", "object", _TOGETHER),
        Forbidden("workloadRef", "object", _TOGETHER),
        Forbidden("priorityClassName", "string", _USE_PRIORITY),
        Forbidden("priority", "integer", _USE_PRIORITY),
        Forbidden("preemptionPolicy", "string", _USE_PRIORITY),
        Forbidden("restartPolicy", "string", _OPERATOR_OWNS),
        Forbidden("hostname", "string", _OPERATOR_OWNS),
        Forbidden("hostnameOverride", "string", _OPERATOR_OWNS),
        Forbidden("subdomain", "string", _OPERATOR_OWNS),
        Forbidden("hostPID", "boolean", "pods must not share the node's processes"),
        Forbidden("hostIPC", "boolean", "pods must not share the node's memory segments"),
        Forbidden("hostNetwork", "boolean", "pods must not use the node's network"),
        Forbidden("resourceClaims", "array", _COUNT_ONLY),
        Forbidden("overhead", "object", "the RuntimeClass sets it"),
        Forbidden("ephemeralContainers", "array", "they are for pods that run already"),
    )

    containers: Annotated[tuple[TemplateContainer, ...], Field(max_length=16)] = ()
    """Containers of the pods. The one named main runs the image of the spec."""
    init_containers: Annotated[tuple[TemplateContainer, ...], Field(max_length=16)] = ()
    """Containers that run before the others, or beside them with restartPolicy Always."""
    resources: TemplateResources | None = None
    """What the whole pod asks for. GPUs cannot be asked for here."""
    tolerations: Annotated[tuple[TemplateToleration, ...], Field(max_length=32)] = ()
    """Taints that the pods tolerate, besides those of the GPUs."""
    node_selector: Annotated[LabelMap, Field(max_length=32), _NO_OWN_KEYS, LABELS_RULE] = Field(default_factory=dict)
    """Labels of the nodes that the operator chooses from, with exactly these values."""
    affinity: TemplateAffinity | None = None
    """Near to what and far from what the pods run."""
    topology_spread_constraints: Annotated[tuple[TemplateSpread, ...], Field(max_length=16)] = ()
    """How pods are spread. Only wishes are allowed, and they change nothing."""
    volumes: Annotated[tuple[TemplateVolume, ...], Field(max_length=32)] = ()
    """Volumes of the pods, as in a pod of Kubernetes."""
    termination_grace_period_seconds: Annotated[Int, Field(ge=0, le=3600)] | None = None
    """How long the pods have to end before they are killed. For a TrainingJob use checkpoint.gracePeriod instead."""


class Template(Part):
    """A partial PodTemplateSpec: what pods need beyond the other fields of the spec."""

    metadata: TemplateMetadata | None = None
    """Labels and annotations of the pods."""
    spec: TemplateSpec | None = None
    """The rest of the pod, as in a pod of Kubernetes."""


class _Judged:
    """Checks the template by the models above, and shows their schema instead of an open one."""

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_judge, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(Template.__pydantic_core_schema__)


def _judge(template: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        Template.model_validate(template)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        raise ValueError(f"{path.removeprefix('.')}: {first['msg']}") from error
    return template


PodTemplate = Annotated[dict[str, JsonValue], _Judged()]

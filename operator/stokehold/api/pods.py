"""The parts of a pod that users may write at the top of a spec: environment, resources, volumes."""

import re
from typing import Annotated

from pydantic import Field

from stokehold.api.base import Bool, Part, RawObject, Rule
from stokehold.api.fields import AbsolutePath, ObjectName, ShortName, exactly_one, unique_by
from stokehold.api.quantities import Quantity

# Resources that a container may ask for; GPUs are counted by the kinds' own fields, or two ledgers would disagree.
ALLOWED_RESOURCES = ("cpu", "memory", "ephemeral-storage", "vpc.amazonaws.com/efa")
ALLOWED_RESOURCE_PREFIXES = ("hugepages-", "rdma/")
RESOURCES_MESSAGE = (
    "may only name cpu, memory, ephemeral-storage, hugepages-*, rdma/* and vpc.amazonaws.com/efa;"
    " the number of GPUs is set by gpusPerNode, gpusPerReplica or gpus"
)


# Variables by which a container without a GPU request could take every GPU of its node; runtimes obey them.
DEVICE_VARIABLES = tuple(f"{vendor}_VISIBLE_DEVICES" for vendor in ("NVIDIA", "AMD", "HABANA", "ASCEND"))
_VARIABLE = re.compile("^[ -<>-~]+$")  # printable ASCII but '=', which is all that Kubernetes takes

VARIABLE_RULES = (
    Rule(
        "name must be printable ASCII without '='",
        cel=f"self.name.matches('{_VARIABLE.pattern}')",
        holds=lambda variable: _VARIABLE.fullmatch(variable.name) is not None,
        field=".name",
    ),
    Rule(
        f"name must not be {' or '.join(DEVICE_VARIABLES)}: the node decides which GPUs the container sees",
        cel=f"!(self.name in {list(DEVICE_VARIABLES)})",
        holds=lambda variable: variable.name not in DEVICE_VARIABLES,
        field=".name",
    ),
)

UNRESERVED_NAME = Rule(
    "must not start with stokehold-, as the operator's own volumes do",
    cel="!self.startsWith('stokehold-')",
    holds=lambda name: not name.startswith("stokehold-"),
)


def is_allowed_resource(name: str) -> bool:
    """Say whether a container may name the resource itself."""
    return name in ALLOWED_RESOURCES or name.startswith(ALLOWED_RESOURCE_PREFIXES)


def cel_allowed_resource(name: str) -> str:
    """Return the CEL expression of is_allowed_resource for a variable."""
    prefixes = " || ".join(f"{name}.startsWith('{prefix}')" for prefix in ALLOWED_RESOURCE_PREFIXES)
    return f"({name} in {list(ALLOWED_RESOURCES)} || {prefixes})"


ResourceList = Annotated[
    dict[str, Quantity],
    Field(max_length=16),
    Rule(
        RESOURCES_MESSAGE,
        cel=f"self.all(name, {cel_allowed_resource('name')})",
        holds=lambda amounts: all(map(is_allowed_resource, amounts)),
    ),
]


class Resources(Part):
    """What each pod asks for besides its GPUs, as in a container of Kubernetes."""

    requests: ResourceList = Field(default_factory=dict)
    """What the pod is sure to get, for example cpu: 16 and memory: 128Gi."""
    limits: ResourceList = Field(default_factory=dict)
    """What the pod may use at most, for example memory: 128Gi."""


class FieldRef(Part):
    """A field of the pod itself."""

    field_path: Annotated[str, Field(min_length=1, max_length=253)]
    """The path of the field, for example metadata.name or status.podIP."""
    api_version: Annotated[str, Field(max_length=63)] | None = None
    """The version of the pod API that the path is written in. Leave it out for v1."""


class KeyRef(Part):
    """One key of a ConfigMap or Secret in the same namespace."""

    name: ObjectName
    """The name of the ConfigMap or Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key to take the value from."""
    optional: Bool | None = None
    """Whether the pod may start without the object or the key. Left out, it may not."""


class ResourceFieldRef(Part):
    """An amount of resources of a container."""

    resource: Annotated[str, Field(min_length=1, max_length=63)]
    """The amount to take, for example limits.memory."""
    container_name: ShortName | None = None
    """The container to take it from. Left out, it is the main one."""
    divisor: Quantity | None = None
    """The unit to give the amount in, for example 1Mi."""


class EnvSource(Part):
    """Where the value of an environment variable comes from. Set exactly one."""

    RULES = (
        exactly_one(
            ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"),
            "must set exactly one of fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef",
        ),
    )

    field_ref: FieldRef | None = None
    """A field of the pod."""
    resource_field_ref: ResourceFieldRef | None = None
    """An amount of resources of a container of the pod."""
    config_map_key_ref: KeyRef | None = None
    """A key of a ConfigMap in the same namespace."""
    secret_key_ref: KeyRef | None = None
    """A key of a Secret in the same namespace."""


class EnvVar(Part):
    """An environment variable: a name with either a value or a source of one."""

    RULES = (
        Rule(
            "must not set both value and valueFrom",
            cel="!(has(self.value) && has(self.valueFrom))",
            holds=lambda env: env.value is None or env.value_from is None,
        ),
        *VARIABLE_RULES,
    )

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name of the variable, for example NCCL_DEBUG."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """The value. $(NAME) stands for a variable that was defined before, $(CHECKPOINT_DIR) for example."""
    value_from: EnvSource | None = None
    """Where the value comes from instead."""


class ObjectRef(Part):
    """A ConfigMap or Secret in the same namespace."""

    name: ObjectName
    """The name of the object."""
    optional: Bool | None = None
    """Whether the pod may start without the object. Left out, it may not."""


class EnvFrom(Part):
    """All keys of a ConfigMap or Secret as environment variables. Set exactly one of the two."""

    RULES = (exactly_one(("configMapRef", "secretRef"), "must set exactly one of configMapRef and secretRef"),)

    prefix: Annotated[str, Field(max_length=253)] | None = None
    """What to put before each name, for example S3_."""
    config_map_ref: ObjectRef | None = None
    """The ConfigMap to read."""
    secret_ref: ObjectRef | None = None
    """The Secret to read."""


class ClaimSource(Part):
    """A PersistentVolumeClaim in the same namespace."""

    claim_name: ObjectName
    """The name of the claim."""
    read_only: Bool | None = None
    """Whether to mount it read-only. Left out, it is writable."""


_SOURCES = (
    "persistentVolumeClaim",
    "configMap",
    "secret",
    "emptyDir",
    "projected",
    "downwardAPI",
    "nfs",
    "csi",
    "ephemeral",
    "image",
)


class Volume(Part):
    """A volume of the pod, from exactly one source. Folders of the node (hostPath) are refused."""

    RULES = (
        exactly_one(
            _SOURCES,
            f"must set exactly one source out of {', '.join(_SOURCES)}; hostPath and others are not allowed",
        ),
    )

    name: Annotated[ShortName, UNRESERVED_NAME]
    """The name that volumeMounts refer to."""
    persistent_volume_claim: ClaimSource | None = None
    """A PersistentVolumeClaim in the same namespace."""
    config_map: RawObject | None = None
    """The keys of a ConfigMap as files, as in a pod of Kubernetes."""
    secret: RawObject | None = None
    """The keys of a Secret as files, as in a pod of Kubernetes."""
    empty_dir: RawObject | None = None
    """An empty folder that lives as long as the pod, as in a pod of Kubernetes."""
    projected: RawObject | None = None
    """Several sources in one folder, as in a pod of Kubernetes."""
    downward_api: Annotated[RawObject | None, Field(alias="downwardAPI")] = None
    """Fields of the pod as files, as in a pod of Kubernetes."""
    nfs: RawObject | None = None
    """A share of an NFS server, as in a pod of Kubernetes."""
    csi: RawObject | None = None
    """A volume that a CSI driver makes for this pod, as in a pod of Kubernetes."""
    ephemeral: RawObject | None = None
    """A claim that is made and deleted with the pod, as in a pod of Kubernetes."""
    image: RawObject | None = None
    """The files of an OCI image, as in a pod of Kubernetes."""


class VolumeMount(Part):
    """Where a volume appears in the container."""

    name: ShortName
    """The name of the volume."""
    mount_path: AbsolutePath
    """The absolute path in the container, for example /data."""
    sub_path: Annotated[str, Field(max_length=1024)] | None = None
    """The folder of the volume to mount. Left out, it is the whole volume."""
    read_only: Bool | None = None
    """Whether to mount it read-only. Left out, it is writable."""


Env = Annotated[tuple[EnvVar, ...], Field(max_length=256)]
EnvFroms = Annotated[tuple[EnvFrom, ...], Field(max_length=32)]
Volumes = Annotated[tuple[Volume, ...], Field(max_length=32), unique_by("name")]
VolumeMounts = Annotated[tuple[VolumeMount, ...], Field(max_length=64), unique_by("mountPath")]

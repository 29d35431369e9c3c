"""Where the nodes of a GPUNodePool come from: one optional member for each provider."""

import re
from typing import Annotated

from pydantic import Field

from stokehold.api.base import Int, Part, Rule
from stokehold.api.durations import Duration, between
from stokehold.api.fields import ObjectName, exactly_one, unique

InstanceTypes = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
    Field(min_length=1, max_length=32),
    unique("an instance type"),
]
_URL = re.compile(r"^(https://[^/ ]+|http://(localhost|127[.]0[.]0[.]1)(:[0-9]+)?)(/[^ ]*)?$")

GroupName = Annotated[str, Field(min_length=1, max_length=253)]


class NodeClassRef(Part):
    """The node class of Karpenter's own provider."""

    group: ObjectName
    """The API group, for example karpenter.k8s.aws."""
    kind: Annotated[str, Field(min_length=1, max_length=63)]
    """The kind, for example EC2NodeClass."""
    name: ObjectName
    """The name of the node class."""


class KarpenterProvider(Part):
    """Nodes from Karpenter, one NodeClaim for each."""

    node_class_ref: NodeClassRef
    """The node class that tells Karpenter how to make a node."""
    instance_types: InstanceTypes
    """The instance types that will do, for example [p5.48xlarge]."""
    expire_after: Annotated[Duration, between("5m", "365d")] = Duration.parse("720h")
    """After how long a node is taken away in any case, should the operator not be there to do it."""
    termination_grace_period: Annotated[Duration, between("0s", "24h")] = Duration.parse("10m")
    """How long pods have to end when a node is taken away."""


class ClusterApiProvider(Part):
    """Nodes from a MachineDeployment or MachinePool of Cluster API."""

    RULES = (
        exactly_one(("machineDeployment", "machinePool"), "must set exactly one of machineDeployment and machinePool"),
    )

    namespace: ObjectName
    """The namespace of the group."""
    machine_deployment: ObjectName | None = None
    """The MachineDeployment whose replicas are raised and lowered."""
    machine_pool: ObjectName | None = None
    """The MachinePool whose replicas are raised and lowered. Single machines cannot be chosen for removal there."""
    kubeconfig_secret: ObjectName | None = None
    """The Secret in the operator's namespace with the kubeconfig of the management cluster, under the key value. Left
    out, it is this cluster."""


class AwsProvider(Part):
    """Nodes from an auto scaling group of AWS, without Karpenter."""

    auto_scaling_group: GroupName
    """The name of the auto scaling group."""
    instance_types: InstanceTypes | None = None
    """The instance types that will do, for example [p5.48xlarge]. Left out, those of the group."""


class WebhookProvider(Part):
    """Nodes from a service of your own that speaks the webhook protocol."""

    url: Annotated[
        str,
        Field(max_length=2048),
        Rule(
            "must be a URL that starts with https://, or with http:// for a service on the same machine",
            cel=f"self.matches('{_URL.pattern}')",
            holds=lambda url: _URL.fullmatch(url) is not None,
        ),
    ]
    """The address of the service, for example https://nodes.example.com/v1."""
    secret_ref: ObjectName | None = None
    """The Secret in the operator's namespace with the bearer token, under the key token, and the key with which
    requests are signed, under the key signingKey."""
    ca_bundle: Annotated[str, Field(max_length=65536)] | None = None
    """The certificate authorities to trust, as PEM. Left out, those of the system."""
    timeout: Annotated[Duration, between("1s", "5m")] = Duration.parse("10s")
    """How long to wait for each answer."""


class SimulatedProvider(Part):
    """Nodes that exist only as objects, for trying things out and for tests. Nothing is bought."""

    boot_time: Annotated[Duration, between("0s", "24h")] = Duration.parse("20s")
    """How long a node takes from the request until it is ready."""
    slowest_boot_time: Annotated[Duration, between("0s", "24h")] | None = None
    """How long the slowest node takes: each has its own time between bootTime and this. Left out, all take bootTime."""
    available_nodes: Annotated[Int, Field(ge=0, le=10_000)] | None = None
    """How many nodes can be had at one time; more are refused for lack of capacity. Left out, as many as asked for."""
    failure_percent: Annotated[Int, Field(ge=0, le=100)] = 0
    """How many requests out of a hundred fail for lack of capacity."""
    gpu_missing_percent: Annotated[Int, Field(ge=0, le=100)] = 0
    """How many nodes out of a hundred join without GPUs."""
    duplicate_percent: Annotated[Int, Field(ge=0, le=100)] = 0
    """How many requests out of a hundred are answered with two machines, as providers do when an answer is lost."""


class Provider(Part):
    """Where nodes come from. Set exactly one."""

    RULES = (
        exactly_one(
            ("karpenter", "clusterAPI", "aws", "webhook", "simulated"),
            "must set exactly one of karpenter, clusterAPI, aws, webhook and simulated",
        ),
    )

    karpenter: KarpenterProvider | None = None
    """Nodes from Karpenter. Not built yet: nothing is bought."""
    cluster_api: Annotated[ClusterApiProvider | None, Field(alias="clusterAPI")] = None
    """Nodes from Cluster API. Not built yet: nothing is bought."""
    aws: AwsProvider | None = None
    """Nodes from an auto scaling group of AWS. Not built yet: nothing is bought."""
    webhook: WebhookProvider | None = None
    """Nodes from a service of your own."""
    simulated: SimulatedProvider | None = None
    """Nodes that exist only as objects."""

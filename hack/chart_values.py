"""The values of the Helm chart: names, types, defaults and what they mean.

`make generate` writes helm/stokehold/values.yaml, values.schema.json and README.md from here, so that a value cannot
exist in one of them alone. Each part refuses what it does not know: Helm then names the typo.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from stokehold.api.base import Part

# Passed on to Kubernetes as they are; the API server judges them.
KubeObject = dict[str, JsonValue]
KubeList = tuple[KubeObject, ...]
Strings = dict[str, str]

Seconds = Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m|h)$")]
# Who upgrades the driver or changes MIG layouts says so here, and waits until nobody holds the driver open: the label
# for clients that do not come from the GPU operator, and that of the exporter, which older releases have alone.
NOT_PAUSED: list[JsonValue] = [
    {
        "key": f"nvidia.com/gpu.deploy.{name}",
        "operator": "NotIn",
        "values": ["paused-for-driver-upgrade", "paused-for-mig-change"],
    }
    for name in ("client", "dcgm-exporter")
]
# Of NVIDIA's feature discovery, of node feature discovery, of GKE: each alone says that there is a GPU.
HAS_GPUS: tuple[dict[str, JsonValue], ...] = (
    {"key": "nvidia.com/gpu.present", "operator": "In", "values": ["true"]},
    {"key": "feature.node.kubernetes.io/pci-10de.present", "operator": "In", "values": ["true"]},
    {"key": "cloud.google.com/gke-accelerator", "operator": "Exists"},
)
GPU_NODES: KubeObject = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [has, *NOT_PAUSED]} for has in HAS_GPUS]
        }
    }
}


class Image(Part):
    """The one image of the operator and the agent."""

    repository: str = "ghcr.io/stokehold/stokehold"
    """Registry and name."""
    tag: str = ""
    """Left empty, the chart's appVersion."""
    digest: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    """Pins the image; wins over the tag."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When the kubelet pulls."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the release's namespace."""


class CRDs(Part):
    """The kinds."""

    install: bool = True
    """Install and upgrade the CRDs with the chart. They stay when the release goes."""


class RBAC(Part):
    """The rights of people."""

    aggregate: bool = True
    """Add the kinds of stokehold.dev to the built-in roles view, edit and admin, and let everybody read queues."""


class Resources(Part):
    """What a container gets."""

    requests: Strings = {}
    """By resource."""
    limits: Strings = {}
    """By resource."""


class Account(Part):
    """A service account."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """The account that the pods run under."""
    annotations: Strings = {}
    """For clouds that give rights to service accounts."""


class DisruptionBudget(Part):
    """The PodDisruptionBudget."""

    enabled: bool = True
    """With two or more replicas, let a drain take one at a time."""


class Operator(Part):
    """The operator: one replica leads, all serve admission."""

    replicas: Annotated[int, Field(ge=0, le=9)] = 2
    """How many run. 0 when it runs elsewhere, for example as a process in development."""
    service_account: Account = Account(name="stokehold-operator")
    """The operator's account; its rights are in templates/operator-rbac.yaml."""
    kube_api_qps: Annotated[int, Field(ge=1)] = 200
    """Requests to the API server a second, at most."""
    kube_api_burst: Annotated[int, Field(ge=1)] = 400
    """Requests to the API server that may go at once."""
    bind_timeout: Seconds = "60s"
    """A gang whose pods are not bound after so long is taken back and planned again."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least that is logged."""
    log_format: Literal["json", "text"] = "json"
    """For machines or for people."""
    extra_args: tuple[str, ...] = ()
    """More options of `stokehold run`; of two equal ones the last counts."""
    resources: Resources = Resources(requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    """1,000 nodes and 2,000 pods take under 250 MiB."""
    disruption_budget: DisruptionBudget = DisruptionBudget()
    """What a drain may take."""
    priority_class_name: str = "system-cluster-critical"
    """The pods' PriorityClass; it must not wait behind the work that it places."""
    node_selector: Strings = {}
    """Labels that its nodes must have."""
    tolerations: KubeList = ()
    """Taints that it takes."""
    affinity: KubeObject = {}
    """Replicas are spread over nodes and zones without it."""
    pod_annotations: Strings = {}
    """More annotations of the pods."""
    pod_labels: Strings = {}
    """More labels of the pods."""


class IssuerRef(Part):
    """A cert-manager issuer."""

    name: str = ""
    """Left empty, the chart makes a self-signed one."""
    kind: Literal["Issuer", "ClusterIssuer"] = "Issuer"
    """Of this namespace or of the cluster."""


class Certificate(Part):
    """The certificate that the webhook serves with."""

    source: Literal["Helm", "CertManager", "Secret"] = "Helm"
    """Helm makes one at the first installation and keeps it over upgrades; it needs access to the cluster for that, so
    use CertManager where manifests are rendered without one (Argo CD, `helm template`). Secret takes one of yours."""
    secret_name: str = ""
    """With Secret: where tls.crt and tls.key are, in the release's namespace."""
    ca_bundle: str = ""
    """With Secret: the authority that signed it, PEM in base64."""
    issuer_ref: IssuerRef = IssuerRef()
    """With CertManager: who signs."""


class Webhook(Part):
    """Admission: a bad object is refused when it is written. What the API server can judge alone stands in the CRDs."""

    enabled: bool = True
    """Without it the same faults show up as reasons to wait."""
    failure_policy: Literal["Ignore", "Fail"] = "Ignore"
    """What the API server does while no replica answers. Ignore: all that is refused here is found again by the
    planners, so an outage of the operator never keeps anybody from working. Fail: nothing enters unchecked."""
    timeout_seconds: Annotated[int, Field(ge=1, le=30)] = 3
    """How long the API server waits for an answer."""
    url: Annotated[str, Field(pattern=r"^(https://[^/?#]+)?$")] = ""
    """Where the operator listens if it does not run in this cluster, for example https://127.0.0.1:9443. Left empty,
    the chart's Service."""
    certificate: Certificate = Certificate()
    """Where its certificate comes from."""


class Agent(Part):
    """The node agent, on each node with GPUs."""

    enabled: bool = True
    """Without it nobody sees what GPUs do: idle workspaces are never stopped."""
    service_account: Account = Account(name="stokehold-agent")
    """The agent's account."""
    own_node_only: bool = True
    """Add an admission policy: an agent may write only the GPUNode of the node that its pod runs on."""
    runtime_class_name: str = "nvidia"
    """Brings the driver's library into the container. Leave it empty where every container gets it."""
    affinity: KubeObject = GPU_NODES
    """Which nodes have GPUs; from one whose driver is about to be replaced the agent goes, so that it can be."""
    node_selector: Strings = {}
    """Labels that its nodes must have besides."""
    tolerations: KubeList = ({"operator": "Exists"},)
    """GPU nodes are tainted in many ways, and all of them must be seen."""
    interval: Seconds = "15s"
    """How often it looks."""
    window: Seconds = "5m"
    """A GPU is Quiet when every look of this time was quiet."""
    extra_args: tuple[str, ...] = ()
    """More options of `stokehold agent`."""
    resources: Resources = Resources(requests={"cpu": "20m", "memory": "96Mi"}, limits={"memory": "256Mi"})
    """At 8 GPUs it takes 0.1 % of a core and 65 MiB. It must never ask for a GPU."""
    max_unavailable: Annotated[str, Field(pattern=r"^[0-9]+%?$")] = "10%"
    """How many nodes may be without an agent during a rollout."""
    priority_class_name: str = "system-node-critical"
    """The pods' PriorityClass."""
    pod_annotations: Strings = {}
    """More annotations of the pods."""
    pod_labels: Strings = {}
    """More labels of the pods."""


class PriorityClasses(Part):
    """The classes that order the queue."""

    create: bool = True
    """serve, train-high, train-normal, workspace and train-low; none lets kube-scheduler evict anything."""


class Monitors(Part):
    """Objects of the Prometheus operator that scrape us."""

    enabled: bool = False
    """A ServiceMonitor for the operator, a PodMonitor for the agents."""
    interval: Seconds = "30s"
    """How often."""
    labels: Strings = {}
    """What your Prometheus selects them by."""


class Rules(Part):
    """The alerts."""

    enabled: bool = False
    """A PrometheusRule of the files in alerts/."""
    labels: Strings = {}
    """What your Prometheus selects it by."""
    runbook_url: Annotated[str, Field(pattern=r"^(https?://[^#\s]+)?$")] = ""
    """Where you serve docs/runbooks.md as a page: each alert gets the annotation runbook_url, with its own anchor."""


class Dashboards(Part):
    """The Grafana dashboards."""

    enabled: bool = False
    """A ConfigMap for each file in dashboards/, for Grafana's sidecar."""
    labels: Strings = {"grafana_dashboard": "1"}
    """What the sidecar selects them by."""
    annotations: Strings = {}
    """For example the folder."""


class Monitoring(Part):
    """Prometheus and Grafana."""

    monitors: Monitors = Monitors()
    """Who scrapes."""
    rules: Rules = Rules()
    """Who is called."""
    dashboards: Dashboards = Dashboards()
    """What is seen."""


class NetworkPolicy(Part):
    """Who may reach our pods."""

    enabled: bool = False
    """Admit only the webhook's and the metrics' ports."""
    metrics_from: KubeList = ()
    """NetworkPolicy peers that may scrape. Left empty, everybody in the cluster."""


class SimulatedProvider(Part):
    """Nodes that exist only as objects. For trying things out and for tests, never where real work runs."""

    enabled: bool = False
    """Lets pools with provider.simulated make Node objects."""


class Values(Part):
    """All values of the chart."""

    image: Image = Image()
    """The image of all pods."""
    crds: CRDs = CRDs()
    """The kinds."""
    rbac: RBAC = RBAC()
    """The rights of people."""
    operator: Operator = Operator()
    """The operator."""
    webhook: Webhook = Webhook()
    """Admission."""
    agent: Agent = Agent()
    """The node agent."""
    priority_classes: PriorityClasses = PriorityClasses()
    """The order of the queue."""
    monitoring: Monitoring = Monitoring()
    """Prometheus and Grafana."""
    network_policy: NetworkPolicy = NetworkPolicy()
    """Network access."""
    simulated_provider: SimulatedProvider = SimulatedProvider()
    """Pools with provider.simulated."""


# Helm hands it to every subchart.
GLOBAL: dict[str, Any] = {"type": "object", "description": "Values of a parent chart; none is used here."}

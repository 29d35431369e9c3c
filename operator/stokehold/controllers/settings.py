"""What an administrator may set about the operator; filled from options and the environment by the command line."""

from dataclasses import dataclass, field
from datetime import timedelta

from stokehold.cluster.notebooks import SERVICE_URL
from stokehold.cluster.scraping.scraper import ScrapeSettings
from stokehold.planning.autoscaling.settings import AutoscalingSettings
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.provisioning.settings import ProvisioningSettings
from stokehold.planning.scheduling.settings import SchedulingSettings


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where admission is served; the certificate files are read again when they change."""

    port: int
    certificate: str
    key: str
    address: str = "0.0.0.0"  # noqa: S104 - the API server calls from outside the pod


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of `stokehold run`."""

    identity: str
    namespace: str = "stokehold-system"
    kubeconfig: str | None = None
    api_qps: float = 200
    api_burst: int = 400
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 8080
    port_file: str | None = None
    """Where to write the port that was chosen, for whoever started the process with port 0."""
    webhook: Webhook | None = None
    lease_name: str = "stokehold"
    settle_time: timedelta = timedelta(seconds=30)
    """For how long a node's GPUs must stay after they came back until it takes new work."""
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    provisioning: ProvisioningSettings = field(default_factory=ProvisioningSettings)
    autoscaling: AutoscalingSettings = field(default_factory=AutoscalingSettings)
    scraping: ScrapeSettings = field(default_factory=ScrapeSettings)
    culling: CullingSettings = field(default_factory=CullingSettings)
    notebook_url: str = SERVICE_URL
    """Where the Jupyter server of a workspace is; {service}, {namespace} and {port} are filled in."""
    notebook_interval_seconds: float = 30.0
    debounce_seconds: float = 0.05
    """After a wake-up: changes come in swarms, and one plan answers them all."""
    provisioning_debounce_seconds: float = 0.2
    """The same for nodes that are bought, which take minutes: a second look at each change is not worth its price."""
    resync_seconds: float = 3.0
    """The longest pause between two plans: deadlines and back-offs pass without any event."""
    stale_watch_seconds: float = 90.0
    """A watch that has been silent for longer makes the operator not ready."""

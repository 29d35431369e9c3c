"""The agent program: its options, and the one place where its parts are built."""

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from stokehold.agent.cycle import Agent, Senses
from stokehold.agent.kube import ApiAccess, ConfigurationError, KubeStatusStore, from_kubeconfig, in_cluster
from stokehold.agent.metrics import StateCollector, registry_for
from stokehold.agent.node_state import Rules
from stokehold.agent.pod_resources import PodResources
from stokehold.agent.probe import run_probe
from stokehold.agent.processes import ProcessTable
from stokehold.agent.publish import Pace, WriteSchedule
from stokehold.agent.sampler import Deadlines, Sampler
from stokehold.agent.sampling import Thresholds, Window
from stokehold.agent.web import serve
from stokehold.agent.writing import Writer

logger = logging.getLogger(__name__)

# A longer pause between two looks is a gap.
LONGEST_PAUSE_IN_INTERVALS = 2.5
EXIT_NO_NVML = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent was told; without access it writes nothing and only serves metrics."""

    node: str
    interval: float
    rules: Rules
    deadlines: Deadlines
    pace: Pace
    pod_resources: Path
    list_seconds: float
    proc: Path
    pod_logs: Path
    metrics_address: str
    access: ApiAccess | None


def wall_clock() -> datetime:
    """The time of day."""
    return datetime.now(UTC)  # noqa: TID251 - the agent's only clock


async def run_agent(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; NVML is closed when this returns."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    store = KubeStatusStore(settings.access) if settings.access is not None else None
    senses = Senses(
        Sampler(settings.deadlines),
        PodResources(settings.pod_resources, settings.list_seconds),
        ProcessTable(settings.proc, settings.pod_logs),
    )
    own_version = version("stokehold")
    writer = Writer(WriteSchedule(settings.node, settings.pace), store, own_version)
    agent = Agent(senses, writer, settings.rules, settings.interval, wall_clock)
    collector = StateCollector(settings.node, own_version, lambda: agent.state, agent.counts)
    web = await serve(settings.metrics_address, registry_for(collector), lambda: agent.state)
    logger.info("agent of node %s looks every %g s", settings.node, settings.interval)
    try:
        await agent.run(stop)
    finally:
        await agent.close()
        await web.cleanup()
        if store is not None:
            await store.close()
    logger.info("stopped; NVML is closed")


class Seconds(click.ParamType[float]):
    """A duration such as 15s, 250ms, 5m or 24h."""

    name = "duration"
    _UNITS = (("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0))

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The duration in seconds, more than zero."""
        if isinstance(value, float):
            return value
        text = str(value)
        for unit, seconds in self._UNITS:
            number = text.removesuffix(unit)
            if number != text and number.replace(".", "", 1).isdigit() and float(number) > 0:
                return float(number) * seconds
        return self.fail(f"{text!r} is no duration; write 15s, 250ms or 5m", param, ctx)


def _env(name: str) -> str:
    return f"STOKEHOLD_AGENT_{name}"


@click.group("agent", invoke_without_command=True)
@click.option("--node-name", envvar="NODE_NAME", help="The node whose GPUNode is written.")
@click.option(
    "--interval", type=Seconds(), default="15s", envvar=_env("INTERVAL"), help="How often the GPUs are looked at."
)
@click.option(
    "--window",
    type=Seconds(),
    default="5m",
    envvar=_env("WINDOW"),
    help="A GPU is Quiet when every look for this long was quiet.",
)
@click.option(
    "--heartbeat",
    type=Seconds(),
    default="5m",
    envvar=_env("HEARTBEAT"),
    help="The GPUNode is written at least this often.",
)
@click.option(
    "--nvml-timeout",
    type=Seconds(),
    default="10s",
    envvar=_env("NVML_TIMEOUT"),
    help="A look that takes longer is given up, and NVML's process killed.",
)
@click.option(
    "--utilization-percent",
    type=click.FloatRange(0, 100),
    default=3.0,
    envvar=_env("UTILIZATION_PERCENT"),
    help="A GPU that is used more than this is Active.",
)
@click.option(
    "--pod-resources-dir",
    type=click.Path(path_type=Path),
    default="/var/lib/kubelet/pod-resources",
    envvar=_env("POD_RESOURCES_DIR"),
    help="The directory of the kubelet's socket; mount the directory, never the socket.",
)
@click.option(
    "--pod-resources-timeout",
    type=Seconds(),
    default="5s",
    envvar=_env("POD_RESOURCES_TIMEOUT"),
    help="Owners are unknown while the kubelet takes longer than this to name them.",
)
@click.option(
    "--proc-dir",
    type=click.Path(path_type=Path),
    default="/proc",
    envvar=_env("PROC_DIR"),
    help="The host's /proc (with hostPID it is /proc).",
)
@click.option(
    "--pod-logs-dir",
    type=click.Path(path_type=Path),
    default="/var/log/pods",
    envvar=_env("POD_LOGS_DIR"),
    help="The kubelet's log directory; its names tell which pod has which UID.",
)
@click.option(
    "--metrics-address",
    default="127.0.0.1:9400",
    envvar=_env("METRICS_ADDRESS"),
    help="Where /metrics and /healthz listen.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    envvar=_env("KUBECONFIG"),
    help="Instead of the pod's service account.",
)
@click.option(
    "--write/--no-write",
    default=True,
    envvar=_env("WRITE"),
    help="Without writing, the agent only serves metrics.",
)
@click.pass_context
def agent_command(context: click.Context, /, **options: Any) -> None:
    """Watch this node's GPUs, write its GPUNode and serve metrics."""
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(run_agent(_settings(options)))


def _settings(options: dict[str, Any]) -> Settings:
    if not options["node_name"]:
        raise click.UsageError("give --node-name, or NODE_NAME from spec.nodeName")
    interval, timeout = options["interval"], options["nvml_timeout"]
    if options["window"] < 2 * interval:
        raise click.UsageError("--window must hold at least two intervals; one look proves no quiet")
    return Settings(
        node=options["node_name"],
        interval=interval,
        rules=Rules(
            Thresholds(utilization_percent=options["utilization_percent"]),
            Window(options["window"], max(interval, timeout) * LONGEST_PAUSE_IN_INTERVALS),
        ),
        deadlines=Deadlines(look=timeout, first_back_off=min(interval, 2.0)),
        pace=Pace(heartbeat=options["heartbeat"], first_retry=min(options["heartbeat"], 5.0)),
        pod_resources=options["pod_resources_dir"],
        list_seconds=options["pod_resources_timeout"],
        proc=options["proc_dir"],
        pod_logs=options["pod_logs_dir"],
        metrics_address=options["metrics_address"],
        access=_access(options["kubeconfig"]) if options["write"] else None,
    )


def _access(kubeconfig: Path | None) -> ApiAccess:
    try:
        return from_kubeconfig(kubeconfig) if kubeconfig is not None else in_cluster(os.environ)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


@agent_command.command("probe")
@click.option("--timeout", type=Seconds(), default="10s", help="For each call.")
@click.pass_context
def probe_command(context: click.Context, timeout: float) -> None:
    """Print as JSON what NVML can and cannot give on this machine, and how long each call takes."""
    report = asyncio.run(run_probe(timeout))
    click.echo(report.to_json())
    context.exit(0 if report.is_open else EXIT_NO_NVML)

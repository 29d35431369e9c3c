"""`stokehold`: the programs (`run`, `agent`) and what people ask of them (`why`). Heavy imports wait for their use."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from stokehold.api.durations import Duration
from stokehold.observability import logs

KUBECONFIG = click.option("--kubeconfig", help="Default: $KUBECONFIG, else the service account of the pod.")


class LazyGroup(click.Group):
    """Commands that live in other parts of the program, imported when they are called."""

    lazy: Mapping[str, str] = {"agent": "stokehold.agent.run:agent_command"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, imported or not."""
        return sorted([*super().list_commands(ctx), *self.lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a lazy command."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, name = self.lazy[cmd_name].split(":")
        command: click.Command = getattr(__import__(module, fromlist=[name]), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STOKEHOLD"})
@click.version_option(package_name="stokehold")
def main() -> None:
    """Keeps GPUs busy with work that matters, and lets the rest go cold."""


@main.command()
@KUBECONFIG
@click.option("--namespace", default="stokehold-system", show_default=True, help="Where the Lease lies.")
@click.option("--identity", default=lambda: f"{socket.gethostname()}-{os.getpid()}", help="This process's name.")
@click.option("--kube-api-qps", "api_qps", default=200.0, show_default=True, help="Requests a second, at most.")
@click.option("--kube-api-burst", "api_burst", default=400, show_default=True, help="Requests that may go at once.")
@click.option("--bind-timeout", default="60s", show_default=True, help="Then a gang that is not bound is taken back.")
@click.option("--agent-silent-after", default="11m", show_default=True, help="Then a GPUNode says nothing any more.")
@click.option("--notebook-url", help="Where workspaces' Jupyter servers are: {service}, {namespace}, {port}.")
@click.option("--notebook-interval", default="30s", show_default=True, help="How often Jupyter servers are asked.")
@click.option("--metrics-address", default="127.0.0.1", show_default=True, help="Where /metrics and probes listen.")
@click.option("--metrics-port", default=8080, show_default=True, help="0 lets the system choose.")
@click.option("--port-file", type=click.Path(), help="Write the port of /metrics here once it listens.")
@click.option("--webhook-port", type=int, help="Serve admission here; needs the two files.")
@click.option("--webhook-address", default="0.0.0.0", show_default=True, help="Where admission listens.")  # noqa: S104
@click.option("--webhook-cert", type=click.Path(), help="Its certificate (PEM); read again when it changes.")
@click.option("--webhook-key", type=click.Path(), help="The certificate's key (PEM).")
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
@click.option("--log-level", default="INFO", show_default=True)
def run(log_format: str, log_level: str, **options: Any) -> None:
    """Run the operator. Several may run; one acts, the others stand by."""
    from stokehold.controllers.run import run_operator  # noqa: PLC0415 - 60 MiB that other commands do without
    from stokehold.controllers.settings import Settings, Webhook  # noqa: PLC0415 - as above
    from stokehold.planning.culling.settings import CullingSettings  # noqa: PLC0415 - as above
    from stokehold.planning.scheduling.settings import SchedulingSettings  # noqa: PLC0415 - as above

    logs.configure(level=log_level, as_json=log_format == "json")
    port, address, certificate, key = (options.pop(f"webhook_{name}") for name in ("port", "address", "cert", "key"))
    if port is not None and not (certificate and key):
        raise click.UsageError("--webhook-port needs --webhook-cert and --webhook-key")
    webhook = None if port is None else Webhook(port, certificate, key, address)
    bind_timeout, silent, interval = (
        _duration(f"--{name.replace('_', '-')}", options.pop(name))
        for name in ("bind_timeout", "agent_silent_after", "notebook_interval")
    )
    if options["notebook_url"] is None:
        del options["notebook_url"]
    settings = Settings(
        webhook=webhook,
        scheduling=SchedulingSettings(bind_timeout=bind_timeout),
        culling=CullingSettings(bind_timeout=bind_timeout, agent_silent_after=silent),
        notebook_interval_seconds=interval.total_seconds(),
        **options,
    )
    sys.exit(asyncio.run(run_operator(settings)))


@main.command("why")
@KUBECONFIG
@click.argument("what", metavar="tj/NAME")
@click.option("-n", "--namespace", help="Default: the namespace of the kubeconfig's context.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(kubeconfig: str | None, what: str, namespace: str | None, output: str) -> None:
    """Say why a job waits, runs or has ended, in one reason and with the next step."""
    from stokehold.cli import objects  # noqa: PLC0415 - the Kubernetes client is only for commands that ask
    from stokehold.cli.why import sentences, why  # noqa: PLC0415 - as above

    job = asyncio.run(objects.fetch_training_job(kubeconfig, namespace, what))
    if output == "json":
        click.echo(json.dumps(asdict(why(job)), indent=2))
        return
    for line in sentences(job, objects.now()):
        click.echo(line)


def _duration(option: str, text: str) -> timedelta:
    try:
        return Duration.parse(text).to_timedelta()
    except ValueError as error:
        raise click.UsageError(f"{option} {error}") from error


if __name__ == "__main__":
    main()

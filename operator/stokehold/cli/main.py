"""`stokehold`: the programs (`run`, `agent`) and what people ask of them. Heavy imports wait for their use."""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import click

from stokehold.observability import logs

KUBECONFIG = click.option("--kubeconfig", help="Default: $KUBECONFIG, else the service account of the pod.")


class LazyGroup(click.Group):
    """Commands that live in other parts of the program, imported when they are called."""

    lazy: Mapping[str, str] = {
        "agent": "stokehold.agent.run:agent_command",
        "get": "stokehold.cli.get:get",
        "queue": "stokehold.cli.queue:queue",
        "resume": "stokehold.cli.snooze:resume",
        "snooze": "stokehold.cli.snooze:snooze",
        "top": "stokehold.cli.top:top",
        "why": "stokehold.cli.why:explain",
    }

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


CONTEXT = {"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STOKEHOLD", "show_default": True}


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(package_name="stokehold")
def main() -> None:
    """Keeps GPUs busy with work that matters, and lets the rest go cold."""


@main.command()
@KUBECONFIG
@click.option("--namespace", default="stokehold-system", help="Where the Lease lies, and Secrets that pools name.")
@click.option(
    "--identity",
    default=lambda: f"{socket.gethostname()}-{os.getpid()}",
    show_default="HOST-PID",
    help="This process's name; two of one name take the lead from each other.",
)
@click.option("--kube-api-qps", "api_qps", default=200.0, help="The most requests a second to the API server.")
@click.option("--kube-api-burst", "api_burst", default=400, help="The most requests to it at once.")
@click.option("--bind-timeout", default="60s", help="A gang that is not bound after this is taken back.")
@click.option("--settle-time", default="30s", help="GPUs that came back are used once they have stayed for this long.")
@click.option("--refusals-remembered", default="5m", help="How long a node that has refused workers is avoided.")
@click.option("--burst-gpus", default=8, help="Nodes are bought once gangs wait for so many GPUs together ...")
@click.option("--burst-age", default="30s", help="... or once one gang has waited for so long.")
@click.option("--node-ready-within", default="20m", help="A bought node that is not ready after this is given back.")
@click.option("--node-gpus-within", default="3m", help="So is one that has been Ready for this long without its GPUs.")
@click.option("--orphan-after", default="30s", help="A machine that no claim stands for is given back after this.")
@click.option(
    "--capacity-backoff", default="3m", help="How long a zone without capacity is not asked again; doubles, up to 1h."
)
@click.option("--scrape-interval", default="15s", help="How often replicas are asked how busy they are.")
@click.option(
    "--prometheus-url",
    default="",
    show_default=False,
    help="Where queries of InferencePools go, for example http://prom:9090.",
)
@click.option("--scrape-via", default="", hidden=True, help="For clusters without a pod network: {namespace}, {pod}.")
@click.option("--agent-silent-after", default="11m", help="What a GPUNode without a newer heartbeat says is unknown.")
@click.option("--notebook-url", help="Where workspaces' Jupyter servers are: {service}, {namespace}, {port}.")
@click.option("--notebook-interval", default="30s", help="How often Jupyter servers are asked.")
@click.option("--metrics-address", default="127.0.0.1", help="Where /metrics and probes listen.")
@click.option("--metrics-port", default=8080, help="Their port; 0 lets the system choose.")
@click.option("--port-file", type=click.Path(), help="Write the port of /metrics here once it listens.")
@click.option("--webhook-port", type=int, help="Serve admission here; needs the two files.")
@click.option("--webhook-address", default="0.0.0.0", help="Where admission listens.")  # noqa: S104 - its caller is remote
@click.option("--webhook-cert", type=click.Path(), help="Its certificate (PEM); read again when it changes.")
@click.option("--webhook-key", type=click.Path(), help="The certificate's key (PEM).")
@click.option(
    "--log-format", type=click.Choice(["json", "text"]), default="json", help="One JSON object a line, or plain text."
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    help="What is less severe is not written.",
)
def run(log_format: str, log_level: str, **options: Any) -> None:
    """Run the operator. Several may run; one acts, the others stand by."""
    from stokehold.cli.operator_options import settings_of  # noqa: PLC0415 - 60 MiB that other commands do without
    from stokehold.cluster.errors import ConnectError  # noqa: PLC0415 - as above
    from stokehold.controllers.run import run_operator  # noqa: PLC0415 - as above

    logs.configure(level=log_level, as_json=log_format == "json")
    try:
        sys.exit(asyncio.run(run_operator(settings_of(options))))
    except ConnectError as error:
        raise click.ClickException(str(error)) from error


def kubectl_plugin() -> None:
    """The same as `kubectl stokehold`, which kubectl finds by its file's name."""
    main(prog_name="kubectl stokehold")


if __name__ == "__main__":
    main()

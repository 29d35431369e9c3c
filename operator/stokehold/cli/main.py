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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STOKEHOLD"})
@click.version_option(package_name="stokehold")
def main() -> None:
    """Keeps GPUs busy with work that matters, and lets the rest go cold."""


@main.command()
@KUBECONFIG
@click.option("--namespace", default="stokehold-system", show_default=True, help="Where the Lease lies.")
@click.option(
    "--identity",
    default=lambda: f"{socket.gethostname()}-{os.getpid()}",
    help="This process's name; two of one name take the lead from each other.",
)
@click.option("--kube-api-qps", "api_qps", default=200.0, show_default=True, help="Requests a second, at most.")
@click.option("--kube-api-burst", "api_burst", default=400, show_default=True, help="Requests that may go at once.")
@click.option("--bind-timeout", default="60s", show_default=True, help="Then a gang that is not bound is taken back.")
@click.option("--settle-time", default="30s", show_default=True, help="GPUs that came back are used after this.")
@click.option("--refusals-remembered", default="5m", show_default=True, help="How long a node that refused is avoided.")
@click.option("--burst-gpus", default=8, show_default=True, help="Nodes are bought once so many GPUs are waited for.")
@click.option("--burst-age", default="30s", show_default=True, help="... or once a gang has waited for so long.")
@click.option("--node-ready-within", default="20m", show_default=True, help="Then a bought node is given back.")
@click.option("--node-gpus-within", default="3m", show_default=True, help="Then a Ready node without GPUs is too.")
@click.option("--orphan-after", default="30s", show_default=True, help="A machine without a claim is given back then.")
@click.option("--capacity-backoff", default="3m", show_default=True, help="Pause after a lack of capacity; it doubles.")
@click.option(
    "--scrape-interval", default="15s", show_default=True, help="How often replicas are asked how busy they are."
)
@click.option("--prometheus-url", default="", help="Where queries of InferencePools go, for example http://prometheus.")
@click.option("--scrape-via", default="", hidden=True, help="For clusters without a pod network: {namespace}, {pod}.")
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
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
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

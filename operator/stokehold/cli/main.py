"""`stokehold`: the programs (`run`) and what people ask of them (`why`). Heavy imports wait for their command."""

import asyncio
import os
import socket
import sys

import click

from stokehold.observability import logs


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STOKEHOLD"})
@click.version_option(package_name="stokehold")
def main() -> None:
    """Keeps GPUs busy with work that matters, and lets the rest go cold."""


@main.command()
@click.option("--kubeconfig", help="Default: $KUBECONFIG, else the service account of the pod.")
@click.option("--namespace", default="stokehold-system", show_default=True, help="Where the Lease lies.")
@click.option("--identity", default=lambda: f"{socket.gethostname()}-{os.getpid()}", help="This process's name.")
@click.option("--kube-api-qps", default=200.0, show_default=True, help="Requests a second to the API server.")
@click.option("--kube-api-burst", default=400, show_default=True, help="Requests that may go at once.")
@click.option("--metrics-address", default="127.0.0.1", show_default=True, help="Where /metrics and probes listen.")
@click.option("--metrics-port", default=8080, show_default=True, help="0 lets the system choose.")
@click.option("--port-file", type=click.Path(), help="Write the port of /metrics here once it listens.")
@click.option("--webhook-port", type=int, help="Serve admission here; needs the two files.")
@click.option("--webhook-cert", type=click.Path(), help="Its certificate (PEM); read again when it changes.")
@click.option("--webhook-key", type=click.Path(), help="The certificate's key (PEM).")
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
@click.option("--log-level", default="INFO", show_default=True)
def run(  # noqa: PLR0913 - one argument per option
    kubeconfig: str | None,
    namespace: str,
    identity: str,
    kube_api_qps: float,
    kube_api_burst: int,
    metrics_address: str,
    metrics_port: int,
    port_file: str | None,
    webhook_port: int | None,
    webhook_cert: str | None,
    webhook_key: str | None,
    log_format: str,
    log_level: str,
) -> None:
    """Run the operator. Several may run; one acts, the others stand by."""
    from stokehold.controllers.run import run_operator  # noqa: PLC0415 - 60 MiB that other commands do without
    from stokehold.controllers.settings import Settings, Webhook  # noqa: PLC0415 - as above

    logs.configure(level=log_level, as_json=log_format == "json")
    webhook = None
    if webhook_port is not None:
        if not webhook_cert or not webhook_key:
            raise click.UsageError("--webhook-port needs --webhook-cert and --webhook-key")
        webhook = Webhook(webhook_port, webhook_cert, webhook_key)
    settings = Settings(
        identity=identity,
        namespace=namespace,
        kubeconfig=kubeconfig,
        api_qps=kube_api_qps,
        api_burst=kube_api_burst,
        metrics_address=metrics_address,
        metrics_port=metrics_port,
        port_file=port_file,
        webhook=webhook,
    )
    sys.exit(asyncio.run(run_operator(settings)))


if __name__ == "__main__":
    main()

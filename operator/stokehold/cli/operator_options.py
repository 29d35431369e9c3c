"""The options of `stokehold run` as the operator's settings; what cannot be is told as a usage error."""

from datetime import timedelta
from typing import Any

import click

from stokehold.api.durations import Duration
from stokehold.cluster.scraping.scraper import ScrapeSettings
from stokehold.controllers.settings import Settings, Webhook
from stokehold.planning.autoscaling.settings import AutoscalingSettings
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.provisioning.settings import ProvisioningSettings
from stokehold.planning.scheduling.settings import SchedulingSettings

SHORTEST_INTERVAL = timedelta(seconds=1)

Options = dict[str, Any]


def settings_of(options: Options) -> Settings:
    """The settings; options are taken out of `options` as they are used, what is left has a setting's own name."""
    bind_timeout = _duration(options, "bind_timeout")
    interval = _interval(options, "scrape_interval")
    notebook_url = options.pop("notebook_url")
    return Settings(
        webhook=_webhook(options),
        settle_time=_duration(options, "settle_time"),
        scheduling=SchedulingSettings(
            bind_timeout=bind_timeout, fault_window=_duration(options, "refusals_remembered")
        ),
        provisioning=_provisioning(options),
        autoscaling=AutoscalingSettings(fresh_for=3 * interval),
        scraping=ScrapeSettings(
            interval_seconds=interval.total_seconds(),
            prometheus_url=options.pop("prometheus_url"),
            scrape_via=options.pop("scrape_via"),
        ),
        culling=CullingSettings(bind_timeout=bind_timeout, agent_silent_after=_duration(options, "agent_silent_after")),
        notebook_interval_seconds=_interval(options, "notebook_interval").total_seconds(),
        **({"notebook_url": notebook_url} if notebook_url else {}),
        **options,
    )


def _webhook(options: Options) -> Webhook | None:
    port, address, certificate, key = (options.pop(f"webhook_{name}") for name in ("port", "address", "cert", "key"))
    if port is None:
        return None
    if not (certificate and key):
        raise click.UsageError("--webhook-port needs --webhook-cert and --webhook-key")
    return Webhook(port, certificate, key, address)


def _provisioning(options: Options) -> ProvisioningSettings:
    return ProvisioningSettings(
        trigger_gpus=options.pop("burst_gpus"),
        trigger_age=_duration(options, "burst_age"),
        ready_within=_duration(options, "node_ready_within"),
        gpus_within=_duration(options, "node_gpus_within"),
        orphan_after=_duration(options, "orphan_after"),
        capacity_backoff=_duration(options, "capacity_backoff"),
    )


def _interval(options: Options, name: str) -> timedelta:
    interval = _duration(options, name)
    if interval < SHORTEST_INTERVAL:
        raise click.UsageError(f"--{name.replace('_', '-')} must be at least 1s")
    return interval


def _duration(options: Options, name: str) -> timedelta:
    try:
        return Duration.parse(options.pop(name)).to_timedelta()
    except ValueError as error:
        raise click.UsageError(f"--{name.replace('_', '-')} {error}") from error

"""The overview dashboard for Grafana, as a list of panels; `make generate` writes the JSON.

State gauges come from each replica of the operator alike, so queries take their maximum, never their sum over
instances. Nothing depends on the names of scrape jobs.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

UID = "stokehold-overview"
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and what its series are called."""

    expr: str
    legend: str = "__auto"
    heatmap: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `kind` is Grafana's name of the visualisation, `unit` its name of the unit."""

    title: str
    description: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    stacked: bool = False
    options: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it, all of one height."""

    title: str
    height: int
    panels: tuple[Panel, ...]


def _number(title: str, description: str, expr: str, unit: str = "short") -> Panel:
    return Panel(title, description, (Query(expr),), kind="stat", unit=unit, width=4)


def _gpus(state: str) -> str:
    return f'sum(max by (pool) (stokehold_gpus{{state="{state}"}}))'


FLEET = (
    _number("GPUs", "What the nodes of all pools offer to pods.", _gpus("allocatable")),
    _number("Given out", "What live pods have requested, those of others included.", _gpus("used")),
    _number("Free", "GPUs that no pod has requested.", _gpus("free")),
    _number(
        "Waiting jobs", "TrainingJobs that have no GPUs yet.", "sum(max by (queue, reason) (stokehold_jobs_waiting))"
    ),
    _number("Oldest wait", "Of all kinds and queues.", "max(stokehold_oldest_wait_seconds)", "s"),
    _number("Leaders", "1 is right. With 0 nothing is placed.", "sum(stokehold_leader)"),
)

GPUS = (
    Panel(
        "GPUs by pool and state",
        "What is used and what is free, stacked: together the pool's size.",
        (Query('max by (pool, state) (stokehold_gpus{state=~"used|free"})', "{{pool}} {{state}}"),),
        stacked=True,
    ),
    Panel(
        "Given out, by pool",
        "The share of a pool's GPUs that pods have requested, whether they compute or not.",
        (
            Query(
                'max by (pool) (stokehold_gpus{state="used"})'
                ' / (max by (pool) (stokehold_gpus{state="allocatable"}) > 0)',
                "{{pool}}",
            ),
        ),
        unit="percentunit",
    ),
    Panel(
        "Use of GPUs, by model",
        "Utilisation as NVML tells it, the mean over GPUs; each is the maximum since the agent's last look.",
        (Query("avg by (modelName) (DCGM_FI_DEV_GPU_UTIL)", "{{modelName}}"),),
        unit="percent",
    ),
    Panel(
        "Activity",
        "GPUs and MIG devices by the agents' verdict. Unknown is never idle.",
        (Query("count by (verdict) (stokehold_gpu_activity == 1)", "{{verdict}}"),),
        stacked=True,
    ),
    Panel(
        "Health",
        "GPUs and MIG devices by what the driver says of them.",
        (Query("count by (state) (stokehold_gpu_health == 1)", "{{state}}"),),
        stacked=True,
    ),
    Panel(
        "Agents",
        "Agents that are scraped, those of them whose driver answers, and nodes by what the operator hears of them.",
        (
            Query("sum by (agent) (max by (pool, agent) (stokehold_gpu_nodes))", "{{agent}}"),
            Query("count(stokehold_agent_info)", "scraped"),
            Query("sum(stokehold_agent_nvml_responsive)", "driver answers"),
        ),
    ),
)

QUEUE = (
    Panel(
        "Waiting, by reason",
        "TrainingJobs without GPUs; docs/reference/reasons.md explains each reason.",
        (Query("sum by (reason) (max by (queue, reason) (stokehold_jobs_waiting))", "{{reason}}"),),
        stacked=True,
    ),
    Panel(
        "Oldest wait, by kind and queue",
        "Of jobs, workspaces and replicas of serving pools: how long the one that has waited longest has waited.",
        (Query("max by (kind, queue) (stokehold_oldest_wait_seconds)", "{{kind}} {{queue}}"),),
        unit="s",
    ),
    Panel(
        "Time to start",
        "From creation to the first start, of jobs that started in the interval.",
        (Query("sum by (le) (increase(stokehold_job_wait_seconds_bucket[$__rate_interval]))", "{{le}}", heatmap=True),),
        kind="heatmap",
        unit="s",
        options={"calculate": False, "yAxis": {"unit": "s"}, "cellGap": 1},
    ),
    Panel(
        "Jobs, by phase",
        "All TrainingJobs that exist.",
        (Query("sum by (phase) (max by (queue, phase) (stokehold_jobs))", "{{phase}}"),),
        stacked=True,
    ),
    Panel(
        "Ended jobs, by reason",
        "How many ended in the interval.",
        (Query("sum by (reason) (increase(stokehold_jobs_finished_total[$__rate_interval]))", "{{reason}}"),),
    ),
    Panel(
        "Evictions, by reason",
        "Attempts that ended before their work was done. All but WorkerFailed are no fault of the job.",
        (Query("sum by (reason) (increase(stokehold_evictions_total[$__rate_interval]))", "{{reason}}"),),
    ),
)

BURST = (
    Panel(
        "Bought nodes, by phase",
        "GPUNodeClaims that exist. Ready ones can be used, Launched and Registered ones are paid and cannot yet.",
        (Query("sum by (phase) (max by (pool, phase) (stokehold_node_claims))", "{{phase}}"),),
        stacked=True,
    ),
    Panel(
        "Spent, by pool",
        "What the nodes that were given back in the interval have cost, in the currency of the pool.",
        (
            Query(
                "sum by (pool, currency) (increase(stokehold_node_cost_total[$__rate_interval]))",
                "{{pool}} {{currency}}",
            ),
        ),
    ),
    Panel(
        "Paid time, by use",
        "Of those nodes: time in which work ran, in which nothing ran, and before the GPUs could be used.",
        (Query("sum by (use) (increase(stokehold_node_paid_seconds_total[$__rate_interval]))", "{{use}}"),),
        unit="s",
        stacked=True,
    ),
    Panel(
        "Time until the GPUs can be used",
        "From the launch of a machine, 90th percentile.",
        (
            Query(
                "histogram_quantile(0.9, sum by (pool, le)"
                " (rate(stokehold_node_boot_seconds_bucket[$__rate_interval])))",
                "{{pool}}",
            ),
        ),
        unit="s",
    ),
    Panel(
        "Providers that are left alone",
        "Zones that nothing is asked of for a while, by the failure that came before.",
        (Query("max by (pool, reason) (stokehold_provider_breaker_open)", "{{pool}} {{reason}}"),),
    ),
    Panel(
        "Calls to providers, by outcome",
        "All pools together.",
        (
            Query(
                "sum by (call, outcome) (rate(stokehold_provider_calls_total[$__rate_interval]))",
                "{{call}} {{outcome}}",
            ),
        ),
        unit="ops",
    ),
)

WORKSPACES = (
    Panel(
        "Workspaces, by phase",
        "All DevWorkspaces that exist.",
        (Query("max by (phase) (stokehold_workspaces)", "{{phase}}"),),
        stacked=True,
    ),
    Panel(
        "Nobody can tell",
        "Workspaces with an unknown signal, never stopped; the breaker is 1 while too many turned quiet at once.",
        (
            Query("max(stokehold_workspaces_unknown)", "unknown"),
            Query("max(stokehold_mass_idle_breaker_open)", "mass-idle breaker"),
        ),
    ),
    Panel(
        "Stops, and stops that were refused",
        "How many in the interval, by reason.",
        (
            Query(
                "sum by (reason) (increase(stokehold_workspace_stops_total[$__rate_interval]))", "stopped: {{reason}}"
            ),
            Query(
                "sum by (reason) (increase(stokehold_workspace_stops_refused_total[$__rate_interval]))",
                "kept: {{reason}}",
            ),
        ),
    ),
)

SERVING = (
    Panel(
        "Replicas, wanted and ready",
        "A pool that wants more than are ready waits for GPUs, or for its model to load.",
        (
            Query(
                "max by (namespace, pool) (stokehold_inference_pool_desired_replicas)", "{{namespace}}/{{pool}} wanted"
            ),
            Query("max by (namespace, pool) (stokehold_inference_pool_ready_replicas)", "{{namespace}}/{{pool}} ready"),
        ),
    ),
    Panel(
        "Age of the load",
        "Since the oldest answer of a pool's replicas; over 45 s the pool is held at what it has.",
        (Query("max by (namespace, pool) (stokehold_inference_pool_load_age_seconds)", "{{namespace}}/{{pool}}"),),
        unit="s",
    ),
    Panel(
        "Decisions, by reason",
        "New numbers of replicas in the interval.",
        (
            Query(
                "sum by (reason) (increase(stokehold_inference_pool_decisions_total[$__rate_interval]))", "{{reason}}"
            ),
        ),
    ),
)

OPERATOR = (
    Panel(
        "Leader",
        "Which process may act. Changes of hands are in the second line.",
        (
            Query("max by (instance) (stokehold_leader)", "{{instance}}"),
            Query("max(stokehold_lease_transitions)", "transitions so far"),
        ),
    ),
    Panel(
        "Watch age",
        "Seconds since the API server last said anything of a resource; about a minute is normal when all is quiet.",
        (Query("max by (resource) (stokehold_watch_age_seconds)", "{{resource}}"),),
        unit="s",
    ),
    Panel(
        "Cycle time, 99th percentile",
        "Time of one planning cycle by its part.",
        (
            Query(
                "histogram_quantile(0.99, sum by (planner, part, le)"
                " (rate(stokehold_cycle_duration_seconds_bucket[$__rate_interval])))",
                "{{planner}} {{part}}",
            ),
        ),
        unit="s",
    ),
    Panel(
        "Requests to the API server, by verb",
        "All operators together.",
        (Query("sum by (verb) (rate(stokehold_api_request_duration_seconds_count[$__rate_interval]))", "{{verb}}"),),
        unit="reqps",
    ),
    Panel(
        "Requests that failed, by code",
        "0 is no answer at all, 409 an object that changed meanwhile.",
        (
            Query(
                'sum by (code) (rate(stokehold_api_request_duration_seconds_count{code!~"2.."}[$__rate_interval]))',
                "{{code}}",
            ),
        ),
        unit="reqps",
    ),
    Panel(
        "Actions, by outcome",
        "What the planners decided and what became of it. Outdated ones are planned anew.",
        (Query("sum by (outcome) (rate(stokehold_actions_total[$__rate_interval]))", "{{outcome}}"),),
        unit="ops",
    ),
)

ROWS = (
    Row("Now", 4, FLEET),
    Row("GPUs", 8, GPUS),
    Row("Queue", 8, QUEUE),
    Row("Burst", 8, BURST),
    Row("Workspaces", 8, WORKSPACES),
    Row("Serving", 8, SERVING),
    Row("Operator", 8, OPERATOR),
)


def overview() -> str:
    """Return the dashboard as JSON."""
    document = {
        "uid": UID,
        "title": "Stokehold overview",
        "description": "GPUs, the queue and the operator at a glance. Generated from hack/dashboard.py.",
        "tags": ["stokehold"],
        "schemaVersion": 41,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_layout()),
    }
    return json.dumps(document, indent=2) + "\n"


def _layout() -> Iterator[Json]:
    """Rows from the top, panels from the left, wrapped at the full width."""
    y = number = 0
    for row in ROWS:
        number += 1
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "gridPos": place, "collapsed": False, "panels": []}
        y, x = y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + row.height
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": row.height})
            x += panel.width
        y += row.height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> Json:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 40} if panel.stacked else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": panel.options,
        "targets": [_target(query, panel, name) for query, name in zip(panel.queries, "ABCDEF", strict=False)],
    }


def _target(query: Query, panel: Panel, name: str) -> Json:
    return {
        "refId": name,
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": panel.kind == "stat",
        "range": panel.kind != "stat",
        "format": "heatmap" if query.heatmap else "time_series",
    }

"""Every metric of the operator, once: name, unit, labels. Labels are bounded: kinds, verbs, reasons, pools.

The reference page in docs/ is generated from this file.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from stokehold.model.reasons import Eviction

REGISTRY = CollectorRegistry()

CYCLE_SECONDS = Histogram(
    "stokehold_cycle_duration_seconds",
    "Time of one planning cycle by part: snapshot, plan, apply.",
    ["planner", "part"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
CYCLE_FAILURES = Counter(
    "stokehold_cycle_failures_total",
    "Planning cycles that ended with an error.",
    ["planner"],
    registry=REGISTRY,
)
ACTIONS = Counter(
    "stokehold_actions_total",
    "Actions of the planners by outcome: done, refused, outdated, unknown, failed (a fault of the operator).",
    ["action", "outcome"],
    registry=REGISTRY,
)
WRITES_REFUSED = Counter(
    "stokehold_writes_refused_total",
    "Writes that the API server refused, by the kind of object that they were for (none: a pod, node or new claim) and "
    "reason: Invalid, Forbidden, AlreadyExists, TooManyRequests, Gone, Api (any other).",
    ["kind", "reason"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "stokehold_api_request_duration_seconds",
    "Requests to the API server by verb, resource and status code (0: no answer).",
    ["verb", "resource", "code"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15),
    registry=REGISTRY,
)
ADMISSIONS = Counter(
    "stokehold_admissions_total",
    "Objects judged by the webhook, by outcome: allowed, refused, failed (then its failure policy decides).",
    ["resource", "outcome"],
    registry=REGISTRY,
)
WEBHOOK_CERTIFICATE_EXPIRY = Gauge(
    "stokehold_webhook_certificate_expiry_timestamp_seconds",
    "Until when the certificate that the webhook serves is valid, in Unix time; 0 while it serves none.",
    registry=REGISTRY,
)
WEBHOOK_CERTIFICATE_REFUSED = Gauge(
    "stokehold_webhook_certificate_refused",
    "1 while the webhook's certificate on disk cannot be used, else 0; the one before it is served on.",
    registry=REGISTRY,
)
WATCH_AGE_SECONDS = Gauge(
    "stokehold_watch_age_seconds",
    "Seconds since the API server last said anything on this watch.",
    ["resource"],
    registry=REGISTRY,
)
WATCH_SIGNALS = Counter(
    "stokehold_watch_signals_total",
    "What happened on watches: event, list, reconnect, stall, broken (an object that cannot be read).",
    ["resource", "signal"],
    registry=REGISTRY,
)
UNREADABLE = Gauge(
    "stokehold_unreadable_objects",
    "Objects of our kinds that this version cannot read; they and their pods are left alone, an Event says why.",
    ["kind"],
    registry=REGISTRY,
)
LEADER = Gauge("stokehold_leader", "1 while this process may act, else 0.", registry=REGISTRY)
LEASE_TRANSITIONS = Gauge(
    "stokehold_lease_transitions", "How often the leadership has changed hands, as the Lease says.", registry=REGISTRY
)
CLOCK_DEVIATION_SECONDS = Gauge(
    "stokehold_clock_deviation_seconds",
    "By how much this machine's clock is ahead of the API server's, or of the time that the operator goes by while the "
    "API server has told none.",
    registry=REGISTRY,
)
JOBS = Gauge("stokehold_jobs", "TrainingJobs by queue and phase.", ["queue", "phase"], registry=REGISTRY)
JOBS_WAITING = Gauge(
    "stokehold_jobs_waiting", "Waiting TrainingJobs by queue and reason.", ["queue", "reason"], registry=REGISTRY
)
OLDEST_WAIT_SECONDS = Gauge(
    "stokehold_oldest_wait_seconds",
    "How long the TrainingJob, DevWorkspace or replica that has waited longest for GPUs has waited, by kind and queue.",
    ["kind", "queue"],
    registry=REGISTRY,
)
GPUS = Gauge(
    "stokehold_gpus",
    "GPUs of each pool by state: allocatable, used (requested by live pods), free, terminating (used by pods that are "
    "being deleted).",
    ["pool", "gpu_type", "state"],
    registry=REGISTRY,
)
GPU_NODES = Gauge(
    "stokehold_gpu_nodes",
    "Nodes of each pool by their agent: heard, silent (it wrote once, but not of late), absent (it never wrote).",
    ["pool", "agent"],
    registry=REGISTRY,
)
PODS_PAST_QUEUE = Gauge(
    "stokehold_pods_past_queue",
    "Pods with our labels that run although the queue has not placed them: made by hand, or freed from their gate.",
    ["namespace", "kind"],
    registry=REGISTRY,
)
JOB_WAIT_SECONDS = Histogram(
    "stokehold_job_wait_seconds",
    "Time from a TrainingJob's creation to its first start.",
    ["queue"],
    buckets=(1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
    registry=REGISTRY,
)
JOBS_FINISHED = Counter(
    "stokehold_jobs_finished_total", "TrainingJobs that ended, by reason.", ["queue", "reason"], registry=REGISTRY
)
EVICTIONS = Counter(
    "stokehold_evictions_total",
    "Attempts that ended before their work was done, by reason.",
    ["reason"],
    registry=REGISTRY,
)
WORKSPACES = Gauge("stokehold_workspaces", "DevWorkspaces by phase.", ["phase"], registry=REGISTRY)
WORKSPACES_IDLE = Gauge(
    "stokehold_workspaces_idle",
    "DevWorkspaces that are idle for long enough to be stopped, by what keeps them (reasons of the condition Idle).",
    ["reason"],
    registry=REGISTRY,
)
WORKSPACES_UNKNOWN = Gauge(
    "stokehold_workspaces_unknown",
    "Running DevWorkspaces of which nobody can tell whether they are used; they are never stopped for being idle.",
    registry=REGISTRY,
)
WORKSPACE_STOPS = Counter(
    "stokehold_workspace_stops_total",
    "DevWorkspaces that the operator decided to stop, by reason.",
    ["reason"],
    registry=REGISTRY,
)
WORKSPACE_STOPS_REFUSED = Counter(
    "stokehold_workspace_stops_refused_total",
    "Idle DevWorkspaces that were not stopped, by what kept them; each counts once when that begins.",
    ["reason"],
    registry=REGISTRY,
)
MASS_IDLE_BREAKER_OPEN = Gauge(
    "stokehold_mass_idle_breaker_open",
    "1 while so many DevWorkspaces turned quiet at once that none is stopped for being idle, else 0.",
    registry=REGISTRY,
)
RECLAIMED_GPU_SECONDS = Gauge(
    "stokehold_workspace_reclaimed_gpu_seconds",
    "GPU-seconds that others could have since idle DevWorkspaces were stopped; of those that still exist.",
    registry=REGISTRY,
)
NOTEBOOK_PROBES = Counter(
    "stokehold_notebook_probes_total",
    "Questions to the Jupyter servers of DevWorkspaces, by outcome: busy, idle, unknown.",
    ["outcome"],
    registry=REGISTRY,
)

CLAIMS = Gauge("stokehold_node_claims", "GPUNodeClaims by pool and phase.", ["pool", "phase"], registry=REGISTRY)
PROVIDER_CALLS = Counter(
    "stokehold_provider_calls_total",
    "Calls to providers of nodes by pool, call (launch, list, terminate) and outcome: done, capacity, quota, config, "
    "auth, rate-limited, unavailable, timeout, error.",
    ["pool", "call", "outcome"],
    registry=REGISTRY,
)
PROVIDER_SECONDS = Histogram(
    "stokehold_provider_call_duration_seconds",
    "Time of calls to providers of nodes.",
    ["pool", "call"],
    buckets=(0.05, 0.25, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
BREAKER_OPEN = Gauge(
    "stokehold_provider_breaker_open",
    "Zones of a pool (or the whole pool) whose provider is not asked now because it failed, by reason.",
    ["pool", "reason"],
    registry=REGISTRY,
)
NODE_BOOT_SECONDS = Histogram(
    "stokehold_node_boot_seconds",
    "Time from the provider's launch of a bought node until its GPUs could be used.",
    ["pool"],
    buckets=(10, 30, 60, 120, 180, 300, 450, 600, 900, 1200, 1800),
    registry=REGISTRY,
)
NODE_FAILURES = Counter(
    "stokehold_node_claim_failures_total",
    "Bought nodes that did not come, or went, by reason.",
    ["pool", "reason"],
    registry=REGISTRY,
)
NODE_PAID_SECONDS = Counter(
    "stokehold_node_paid_seconds_total",
    "Seconds that nodes which were given back have been paid for, by use: booting, idle, busy.",
    ["pool", "use"],
    registry=REGISTRY,
)
NODE_COST = Counter(
    "stokehold_node_cost_total",
    "What nodes that were given back have cost, in the currency of the label.",
    ["pool", "currency"],
    registry=REGISTRY,
)
ORPHANS = Counter(
    "stokehold_orphan_machines_total",
    "Machines that a provider ran without a claim, and that were given back.",
    ["pool"],
    registry=REGISTRY,
)
POOL_DESIRED = Gauge(
    "stokehold_inference_pool_desired_replicas",
    "Replicas that each InferencePool should have.",
    ["namespace", "pool"],
    registry=REGISTRY,
)
POOL_READY = Gauge(
    "stokehold_inference_pool_ready_replicas",
    "Replicas of each InferencePool that can take requests.",
    ["namespace", "pool"],
    registry=REGISTRY,
)
POOL_LOAD_AGE_SECONDS = Gauge(
    "stokehold_inference_pool_load_age_seconds",
    "Age of the oldest answer that an InferencePool is scaled by; none before the first answer.",
    ["namespace", "pool"],
    registry=REGISTRY,
)
POOL_DECISIONS = Counter(
    "stokehold_inference_pool_decisions_total",
    "Changes of the number of replicas of InferencePools, by reason.",
    ["reason"],
    registry=REGISTRY,
)
SCRAPES = Counter(
    "stokehold_scrapes_total",
    "Questions for the load of InferencePools by source (pod, prometheus) and result (ok, failed).",
    ["source", "result"],
    registry=REGISTRY,
)

ALL: tuple[MetricWrapperBase, ...] = (
    CYCLE_SECONDS,
    CYCLE_FAILURES,
    ACTIONS,
    WRITES_REFUSED,
    REQUEST_SECONDS,
    ADMISSIONS,
    WEBHOOK_CERTIFICATE_EXPIRY,
    WEBHOOK_CERTIFICATE_REFUSED,
    WATCH_AGE_SECONDS,
    WATCH_SIGNALS,
    UNREADABLE,
    LEADER,
    LEASE_TRANSITIONS,
    CLOCK_DEVIATION_SECONDS,
    JOBS,
    JOBS_WAITING,
    OLDEST_WAIT_SECONDS,
    GPUS,
    GPU_NODES,
    PODS_PAST_QUEUE,
    JOB_WAIT_SECONDS,
    JOBS_FINISHED,
    EVICTIONS,
    CLAIMS,
    PROVIDER_CALLS,
    PROVIDER_SECONDS,
    BREAKER_OPEN,
    NODE_BOOT_SECONDS,
    NODE_FAILURES,
    NODE_PAID_SECONDS,
    NODE_COST,
    ORPHANS,
    POOL_DESIRED,
    POOL_READY,
    POOL_LOAD_AGE_SECONDS,
    POOL_DECISIONS,
    SCRAPES,
    WORKSPACES,
    WORKSPACES_IDLE,
    WORKSPACES_UNKNOWN,
    WORKSPACE_STOPS,
    WORKSPACE_STOPS_REFUSED,
    MASS_IDLE_BREAKER_OPEN,
    RECLAIMED_GPU_SECONDS,
    NOTEBOOK_PROBES,
)

for _reason in Eviction:  # a series that starts at 1 hides its first increase from rate() and increase()
    EVICTIONS.labels(_reason)

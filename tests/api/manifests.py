"""Manifests of every kind: good ones, and for each rule one that breaks it and the words that the refusal must have."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]
LONG = "x" * 201


def manifest(kind: str, spec: Manifest, name: str = "good") -> Manifest:
    return {"apiVersion": "stokehold.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


GOOD: Mapping[str, Manifest] = {
    "TrainingJob": manifest(
        "TrainingJob",
        {
            "queueName": "nlp",
            "priorityClassName": "train-normal",
            "image": "registry.local/llama:1",
            "command": ["torchrun", "train.py", "--ckpt=$(CHECKPOINT_DIR)"],
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
            "resources": {"requests": {"cpu": "16", "memory": "128Gi"}, "limits": {"memory": "128Gi"}},
            "numNodes": 4,
            "minNodes": 2,
            "gpusPerNode": 8,
            "gpuTypes": ["h100", "a100-80gb"],
            "topology": {"preferred": "rack"},
            "checkpoint": {"claimName": "ckpt", "path": "/ckpt", "signal": "SIGUSR1", "gracePeriod": "5m"},
            "expectedRuntime": "6h",
            "maxRuntime": "1d",
            "capacity": ["on-prem", "reserved", "spot", "on-demand"],
            "dataClass": "internal",
            "failurePolicy": {"maxRestarts": 3},
            "suspend": False,
            "podTemplate": {"metadata": {"labels": {"team": "nlp"}}, "spec": {"nodeSelector": {"disk": "nvme"}}},
        },
    ),
    "InferencePool": manifest(
        "InferencePool",
        {
            "image": "registry.local/vllm:1",
            "args": ["--model", "/models/llama"],
            "port": 8000,
            "gpusPerReplica": 1,
            "gpuTypes": ["l40s", "a100-80gb"],
            "replicas": {"min": 2, "max": 20},
            "scaling": {
                "engine": "vllm",
                "metrics": [{"type": "Queue", "target": "8"}],
                "scaleDownDelay": "5m",
                "schedule": [
                    {"timeZone": "Europe/Berlin", "start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "minReplicas": 6}
                ],
            },
            "rollout": {"strategy": "Canary", "steps": [10, 50], "maxSurge": 0},
            "disruption": {"minAvailable": "50%"},
        },
    ),
    "DevWorkspace": manifest(
        "DevWorkspace",
        {
            "image": "registry.local/jupyter:1",
            "gpus": 1,
            "storage": {"size": "50Gi", "mountPath": "/home/dev"},
            "idle": {"after": "2h", "warnBefore": "15m", "snooze": {"max": "4h", "budgetPerDay": "8h"}},
            "schedule": {"timeZone": "Europe/Berlin", "stop": ["0 20 * * 1-5"]},
            "maxLifetime": "7d",
        },
    ),
    "GPUQueue": manifest(
        "GPUQueue",
        {
            "weight": 200,
            "namespaces": {"matchLabels": {"team": "nlp"}},
            "quotas": [{"gpuType": "h100", "nominal": 16, "borrowingLimit": 8, "lendingLimit": 4}],
            "budget": {"amount": "25000.50", "currency": "EUR", "period": "Month", "onSoft": [50, 80]},
            "defaultMaxRuntime": "24h",
        },
    ),
    "GPUNodePool": manifest(
        "GPUNodePool",
        {
            "provider": {"simulated": {"bootTime": "20s"}},
            "gpuType": "h100",
            "gpusPerNode": 8,
            "capacityClass": "spot",
            "dataClasses": ["public"],
            "price": {"perNodeHour": "55.04", "currency": "USD"},
            "limits": {"maxNodes": 4},
            "keepWarm": 1,
            "scaleDown": {"delay": "5m"},
        },
    ),
    "GPUNodeClaim": manifest(
        "GPUNodeClaim", {"poolName": "cloud", "gpuType": "h100", "gpusPerNode": 8, "capacityClass": "spot"}
    ),
    "GPUNode": manifest("GPUNode", {}),
}


@dataclass(frozen=True)
class Bad:
    """One change to a good manifest; `words` must all stand in the API server's refusal."""

    sentence: str
    kind: str
    change: Manifest
    words: tuple[str, ...]

    def manifest(self) -> Manifest:
        broken = deepcopy(GOOD[self.kind])
        _merge(broken, self.change)
        return broken


class Gone:
    """Take the field away."""


def _merge(into: Manifest, change: Manifest) -> None:
    for key, value in change.items():
        if value is Gone:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict) and value:
            _merge(into[key], value)
        else:
            into[key] = value


def _spec(kind: str):
    def bad(sentence: str, change: Manifest, *words: str) -> Bad:
        return Bad(sentence, kind, {"spec": change}, words)

    return bad


def _pod(sentence: str, pod: Manifest, *words: str) -> Bad:
    return Bad(f"a pod template with {sentence}", "TrainingJob", {"spec": {"podTemplate": pod}}, words)


FLOOR = {"start": "0 8 * * *", "end": "0 9 * * *", "minReplicas": 1}
QUOTA = {"gpuType": "h100", "nominal": 16}
EXISTS = {"key": "a", "operator": "Exists", "values": ["b"]}

tj, gpool, gws, gq, gnp, gnc = map(
    _spec, ("TrainingJob", "InferencePool", "DevWorkspace", "GPUQueue", "GPUNodePool", "GPUNodeClaim")
)

BAD: tuple[Bad, ...] = (
    tj("no image", {"image": Gone}, "spec.image", "Required"),
    tj("an image with a space", {"image": "a b"}, "spec.image", "without spaces"),
    tj("a misspelt field", {"gpuPerNode": 8}, "gpuPerNode", "unknown field"),
    tj("no nodes", {"numNodes": 0, "minNodes": Gone}, "spec.numNodes", "greater than or equal to 1"),
    tj("fewer than no nodes", {"numNodes": -1, "minNodes": Gone}, "spec.numNodes", "greater than or equal to 1"),
    tj("half a node", {"numNodes": 1.5}, "spec.numNodes", "integer"),
    tj("a number of nodes in quotes", {"numNodes": "4"}, "spec.numNodes", "integer"),
    tj("two thousand million nodes", {"numNodes": 2147483647}, "spec.numNodes", "less than or equal to 4096"),
    tj("a number of GPUs beyond 64 bits", {"gpusPerNode": 9223372036854775807}, "spec.gpusPerNode", "64"),
    tj("a negative number of GPUs", {"gpusPerNode": -1}, "spec.gpusPerNode", "greater than or equal to 0"),
    tj("more minNodes than numNodes", {"minNodes": 5}, "minNodes", "at most numNodes"),
    tj("an expected runtime beyond the limit", {"expectedRuntime": "48h"}, "expectedRuntime", "at most maxRuntime"),
    tj("a runtime without a unit", {"maxRuntime": "90"}, "spec.maxRuntime", "90m"),
    tj("a runtime in ISO 8601", {"maxRuntime": "PT5M"}, "spec.maxRuntime", "duration"),
    tj("a runtime of nothing", {"maxRuntime": "0s", "expectedRuntime": Gone}, "spec.maxRuntime", "from 1s"),
    tj("a negative runtime", {"maxRuntime": "-5m"}, "spec.maxRuntime", "duration"),
    tj("both topology wishes", {"topology": {"required": "rack"}}, "spec.topology", "exactly one"),
    tj("a topology without a wish", {"topology": {"preferred": Gone}}, "spec.topology", "exactly one"),
    tj("a GPU type twice", {"gpuTypes": ["h100", "h100"]}, "spec.gpuTypes", "twice"),
    tj("an unknown capacity class", {"capacity": ["cloud"]}, "spec.capacity", "on-prem"),
    tj("an unknown signal", {"checkpoint": {"signal": "SIGKILL"}}, "spec.checkpoint.signal", "SIGUSR1"),
    tj("a relative checkpoint path", {"checkpoint": {"path": "ckpt"}}, "spec.checkpoint.path", "absolute"),
    tj("a grace period of a day", {"checkpoint": {"gracePeriod": "24h"}}, "gracePeriod", "1h"),
    tj("more than a hundred restarts", {"failurePolicy": {"maxRestarts": 101}}, "maxRestarts", "100"),
    tj("negative restarts", {"failurePolicy": {"maxRestarts": -1}}, "maxRestarts", "0"),
    tj("GPUs among the resources", {"resources": {"limits": {"nvidia.com/gpu": "8"}}}, "resources", "gpusPerNode"),
    tj("a quantity that is none", {"resources": {"requests": {"cpu": "many"}}}, "resources.requests", "quantity"),
    tj("a queue name with a slash", {"queueName": "a/b"}, "spec.queueName", "lower-case"),
    tj("a suspend in quotes", {"suspend": "true"}, "spec.suspend", "boolean"),
    tj("an environment variable without a name", {"env": [{"value": "1"}]}, "spec.env[0].name", "Required"),
    Bad("a name of 201 characters", "TrainingJob", {"metadata": {"name": LONG}}, ("metadata.name", "200")),
    _pod("a node's name", {"spec": {"nodeName": "n1"}}, "nodeName", "not allowed"),
    _pod("another scheduler", {"spec": {"schedulerName": "mine"}}, "schedulerName", "not allowed"),
    _pod("a scheduling gate", {"spec": {"schedulingGates": [{"name": "a.b/c"}]}}, "schedulingGates", "not allowed"),
    _pod("a priority class", {"spec": {"priorityClassName": "system-node-critical"}}, "priorityClassName"),
    _pod("a priority", {"spec": {"priority": 2000000000}}, "priority"),
    _pod("the host's processes", {"spec": {"hostPID": True}}, "hostPID"),
    _pod("the host's memory", {"spec": {"hostIPC": True}}, "hostIPC"),
    _pod("the host's network", {"spec": {"hostNetwork": True}}, "hostNetwork"),
    _pod("a restart policy", {"spec": {"restartPolicy": "Always"}}, "restartPolicy"),
    _pod("our pool's label", {"spec": {"nodeSelector": {"stokehold.dev/pool": "gold"}}}, "nodeSelector"),
    _pod(
        "a privileged container",
        {"spec": {"containers": [{"name": "main", "securityContext": {"privileged": True}}]}},
        "privileged",
    ),
    _pod(
        "GPUs in a container",
        {"spec": {"containers": [{"name": "side", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]}},
        "resources",
    ),
    _pod(
        "GPUs in an init container",
        {"spec": {"initContainers": [{"name": "init", "resources": {"limits": {"amd.com/gpu": "8"}}}]}},
        "resources",
    ),
    _pod("the burst toleration", {"spec": {"tolerations": [{"key": "stokehold.dev/burst"}]}}, "tolerations"),
    _pod("a toleration of everything", {"spec": {"tolerations": [{"operator": "Exists"}]}}, "tolerations"),
    _pod("a host path", {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}, "hostPath"),
    _pod("our labels", {"metadata": {"labels": {"stokehold.dev/job": "x"}}}, "labels"),
    _pod("our annotations", {"metadata": {"annotations": {"stokehold.dev/finished": "x"}}}, "annotations"),
    _pod("a finalizer", {"metadata": {"finalizers": ["a.b/c"]}}, "finalizers"),
    gpool("a minimum above the maximum", {"replicas": {"min": 5, "max": 3}}, "replicas", "max"),
    gpool("no maximum", {"replicas": {"max": Gone}}, "spec.replicas.max", "Required"),
    gpool("a port beyond the last", {"port": 65536}, "spec.port", "65535"),
    gpool("an unknown metric", {"scaling": {"metrics": [{"type": "Mood", "target": "1"}]}}, "type", "Queue"),
    gpool("a target that is no number", {"scaling": {"metrics": [{"type": "Queue", "target": "x"}]}}, "target"),
    gpool(
        "a Prometheus metric without a query",
        {"scaling": {"metrics": [{"type": "Prometheus", "target": "1"}]}},
        "query",
    ),
    gpool(
        "a schedule that is no cron",
        {"scaling": {"schedule": [{"start": "8am", "end": "0 9 * * *", "minReplicas": 1}]}},
        "start",
        "cron",
    ),
    gpool("canary steps that fall", {"rollout": {"steps": [50, 10]}}, "steps"),
    gpool("an unknown engine", {"scaling": {"engine": "abacus"}}, "spec.scaling.engine", "vllm"),
    gws("a negative number of GPUs", {"gpus": -1}, "spec.gpus", "greater than or equal to 0"),
    gws("storage of a negative size", {"storage": {"size": "-5Gi"}}, "spec.storage.size", "quantity"),
    gws("a warning before it is idle", {"idle": {"warnBefore": "3h"}}, "warnBefore", "at most after"),
    gws("a snooze beyond the day's", {"idle": {"snooze": {"max": "9h"}}}, "max", "at most budgetPerDay"),
    gws("an unknown mode", {"idle": {"mode": "Delete"}}, "spec.idle.mode", "DryRun"),
    gws("an exemption without an end", {"idle": {"exempt": {"reason": "demo"}}}, "until", "Required"),
    gws("a time zone that is none", {"schedule": {"timeZone": "Berlin!"}}, "timeZone", "Europe/Berlin"),
    gws("a stop time that is no cron", {"schedule": {"stop": ["every evening"]}}, "stop", "cron"),
    gq("a negative quota", {"quotas": [{"gpuType": "h100", "nominal": -4}]}, "nominal", "0"),
    gq("half a GPU", {"quotas": [{"gpuType": "h100", "nominal": 8.5}]}, "nominal", "integer"),
    gq("a quota in milli", {"quotas": [{"gpuType": "h100", "nominal": "1500m"}]}, "nominal", "integer"),
    gq("a quota in peta", {"quotas": [{"gpuType": "h100", "nominal": "10P"}]}, "nominal", "integer"),
    gq("a type twice", {"quotas": [{"gpuType": "h100", "nominal": 1}, {"gpuType": "h100", "nominal": 2}]}, "quotas"),
    gq(
        "more to lend than there is",
        {"quotas": [{"gpuType": "h100", "nominal": 1, "lendingLimit": 2}]},
        "lendingLimit",
        "at most nominal",
    ),
    gq("a budget with an exponent", {"budget": {"amount": "1e400"}}, "budget.amount"),
    gq("a budget that is no number", {"budget": {"amount": "NaN"}}, "budget.amount"),
    gq("a negative budget", {"budget": {"amount": "-1"}}, "budget.amount"),
    gq("a budget with a comma", {"budget": {"amount": "12,50"}}, "budget.amount"),
    gq("a currency that is none", {"budget": {"currency": "Euro"}}, "budget.currency"),
    gq("a weight of nothing", {"weight": 0}, "spec.weight", "1"),
    gq(
        "a selector with values for Exists",
        {"namespaces": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
        "values",
    ),
    gnp("neither nodes nor a provider", {"provider": Gone}, "exactly one of nodeSelector"),
    gnp("nodes and a provider", {"nodeSelector": {"a": "b"}}, "exactly one of nodeSelector"),
    gnp("two providers", {"provider": {"webhook": {"url": "https://nodes.example.com"}}}, "provider", "exactly one"),
    gnp("no limit", {"limits": Gone, "keepWarm": Gone}, "limits.maxNodes"),
    gnp("more warm nodes than the limit", {"keepWarm": 5}, "keepWarm", "limits.maxNodes"),
    gnp("a resource without a domain", {"resourceName": "gpu"}, "resourceName", "nvidia.com/gpu"),
    gnp("two prices", {"price": {"perGpuHour": "6.88"}}, "price", "exactly one"),
    gnp("a webhook that is no address", {"provider": {"simulated": Gone, "webhook": {"url": "nodes"}}}, "url"),
    gnc("another pool than before it was made", {"poolName": "UPPER"}, "spec.poolName", "lower-case"),
    gnc("no GPUs", {"gpusPerNode": 0}, "spec.gpusPerNode", "1"),
    gnc("a deadline of a second", {"readyWithin": "1s"}, "spec.readyWithin", "10s"),
    Bad("an unknown field", "GPUNode", {"spec": {"color": "red"}}, ("color", "unknown field")),
)

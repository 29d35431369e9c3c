"""The second scenario: own nodes are full, a gang gets four cloud nodes at once, and they go when it has ended."""

import json

from hack.demo.stage import NAMESPACE, Object, Stage, expect

POOL = "cloud-h100"


def own_nodes_are_full(stage: Stage) -> str:
    """All H100 nodes that the cluster owns are at work."""
    stage.cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    stage.cluster.kubectl("-n", NAMESPACE, "delete", "trainingjobs", "--all", "--wait=false")
    stage.wait("an empty namespace", lambda: not stage.jobs() and not stage.pods(), within=40)
    stage.apply("burst-pools.yaml")
    stage.apply("burst-resident.yaml")
    nodes = stage.wait_phase("resident", "Running")["placement"]["nodes"]
    return f"{len(nodes)} nodes of 8 GPUs"


def four_nodes_are_claimed_at_once(stage: Stage) -> str:
    """A gang of four nodes waits: four claims are written together, all in one zone."""
    stage.apply("burst-jobs.yaml")
    took = stage.wait("four claims", lambda: len(_claims(stage)) == 4)
    claims = _claims(stage)
    zones = {claim["spec"]["zone"] for claim in claims}
    expect(len(zones) == 1, f"the claims are for zones {zones}")
    expect({claim["spec"]["for"]["name"] for claim in claims} == {"burst"}, "they are for somebody else")
    stage.wait("a reason", lambda: _reason(stage, "burst") == "ProvisioningCapacity")
    return f"after {took:.1f} s: {stage.status('burst')['queue']['message']}"


def no_pod_exists_before_all_are_ready(stage: Stage) -> str:
    """While they boot no worker exists; then all four start on them."""
    expect(not stage.pods("burst") or _ready(stage) == 4, "workers exist before all nodes are ready")
    nodes = stage.wait_phase("burst", "Running", within=60)["placement"]["nodes"]
    expect(_ready(stage) == 4, f"{_ready(stage)} nodes are ready")
    expect(set(nodes) == {claim["status"]["nodeName"] for claim in _claims(stage)}, f"it runs on {nodes}")
    return f"on {', '.join(nodes)}"


def restricted_job_never_bursts(stage: Stage) -> str:
    """The same gang with restricted data buys nothing, and says why."""
    stage.wait("the reason", lambda: "restricted may not go" in _message(stage, "secret"))
    expect(all(claim["spec"]["for"]["name"] != "secret" for claim in _claims(stage)), "nodes were bought for it")
    expect(not stage.pods("secret"), "it has pods")
    return _message(stage, "secret")


def its_cost_is_told(stage: Stage) -> str:
    """It ends, and its status says what its GPUs have cost."""
    usage = stage.wait_phase("burst", "Succeeded", within=60)["usage"]
    expect(float(usage["cost"]) > 0, f"the usage is {usage}")
    return f"{usage['gpuSeconds']} GPU-seconds, {usage['cost']} {usage['currency']}"


def the_nodes_go(stage: Stage) -> str:
    """The empty nodes are closed, given back and deleted; nothing is left to be paid."""
    took = stage.wait("no claims and no nodes", lambda: not _claims(stage) and not _bought(stage), within=60)
    return f"after {took:.1f} s"


SCENARIO = (
    own_nodes_are_full,
    four_nodes_are_claimed_at_once,
    no_pod_exists_before_all_are_ready,
    restricted_job_never_bursts,
    its_cost_is_told,
    the_nodes_go,
)


def _claims(stage: Stage) -> list[Object]:
    found: Object = json.loads(stage.cluster.kubectl("get", "gpunodeclaims", "-o", "json"))
    items: list[Object] = found["items"]
    return items


def _bought(stage: Stage) -> list[Object]:
    return [node for node in stage.nodes() if "stokehold.dev/claim" in node["metadata"]["labels"]]


def _ready(stage: Stage) -> int:
    return sum(claim.get("status", {}).get("phase") == "Ready" for claim in _claims(stage))


def _reason(stage: Stage, job: str) -> str:
    return str(stage.status(job).get("queue", {}).get("reason", ""))


def _message(stage: Stage, job: str) -> str:
    return str(stage.status(job).get("queue", {}).get("message", ""))

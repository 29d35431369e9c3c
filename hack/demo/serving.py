"""A model is served: the replicas follow the load of real HTTP engines, and stay when nobody knows the load."""

from hack.demo.stage import Object, Stage, expect

POOL = "chat"
CLIENTS_PER_REPLICA = 8
SCRAPE_SECONDS, DELAY_SECONDS = 2, 5
"""How often the operator reads the load, and scaling.scaleDownDelay of chat.yaml."""
# Pods of the local cluster have no address, so the engines of the whole pool are one server beside the operator.


def pool_of_one_replica_serves(stage: Stage) -> str:
    """A team serves a model: one replica, a Service, a disruption budget."""
    stage.open_namespace()
    stage.apply("chat.yaml")
    _wait_replicas(stage, 1)
    children = [name for name in stage.names("deployments,services,poddisruptionbudgets") if name.endswith(f"/{POOL}")]
    expect(len(children) == 3, f"its children are {children}")
    return ", ".join(children)


def load_brings_four_replicas(stage: Stage) -> str:
    """32 clients come: four replicas, each on a GPU of its own."""
    stage.engines.clients = 4 * CLIENTS_PER_REPLICA
    took = _wait_replicas(stage, 4)
    decision = _status(stage)["decisions"][-1]
    expect(decision["reason"] == "LoadRose", f"the reason is {decision['reason']}")
    return f"after {took:.1f} s: {decision['message']}"


def the_clients_go_and_so_do_replicas(stage: Stage) -> str:
    """The clients go: one replica again, when fewer were enough for the whole delay."""
    stage.engines.clients = 0
    took = _wait_replicas(stage, 1, within=60)
    decision = _status(stage)["decisions"][-1]
    expect(decision["reason"] == "LoadFell", f"the reason is {decision['reason']}")
    last_seen = DELAY_SECONDS - SCRAPE_SECONDS  # the clients may have been counted for the last time before they went
    expect(took >= last_seen, f"it took only {took:.1f} s")
    return f"after {took:.1f} s: {decision['message']}"


def metrics_vanish_and_the_pool_is_held(stage: Stage) -> str:
    """At three replicas the metrics vanish and the clients go: nothing is given back, and the status says why."""
    stage.engines.clients = 3 * CLIENTS_PER_REPLICA
    _wait_replicas(stage, 3)
    stage.engines.silent = True
    stage.wait("MetricsFresh=False", lambda: _fresh(stage).get("status") == "False")
    stage.engines.clients = 0
    failed = stage.operator.metric("stokehold_scrapes_total", source="pod", result="failed")
    stage.wait(
        "five more rounds in vain",
        lambda: stage.operator.metric("stokehold_scrapes_total", source="pod", result="failed") >= failed + 15,
        within=40,
    )
    expect(_status(stage)["desiredReplicas"] == 3, f"it wants {_status(stage)['desiredReplicas']} replicas")
    message = str(_fresh(stage)["message"])
    expect("vllm:num_requests_running" in message, f"it says {message}")
    return message


def metrics_return_under_another_name(stage: Stage) -> str:
    """They come back with underscores for colons, as some clients write them: the pool goes on."""
    stage.engines.separator, stage.engines.silent = "_", False
    stage.wait("MetricsFresh=True", lambda: _fresh(stage).get("status") == "True")
    _wait_replicas(stage, 1, within=60)
    return str(_fresh(stage)["message"])


SCENARIO = (
    pool_of_one_replica_serves,
    load_brings_four_replicas,
    the_clients_go_and_so_do_replicas,
    metrics_vanish_and_the_pool_is_held,
    metrics_return_under_another_name,
)


def _wait_replicas(stage: Stage, count: int, within: float = 30.0) -> float:
    def settled() -> bool:
        status = _status(stage)
        return (status.get("desiredReplicas"), status.get("readyReplicas", 0)) == (count, count)

    return stage.wait(f"{POOL} has {count} ready replicas", settled, within)


def _status(stage: Stage) -> Object:
    found = (pool.get("status", {}) for pool in stage.serving_pools() if pool["metadata"]["name"] == POOL)
    return next(found, {})


def _fresh(stage: Stage) -> Object:
    return next((c for c in _status(stage).get("conditions", ()) if c["type"] == "MetricsFresh"), {})

"""The autoscaling cycle: serving pools, from their load to their Deployments. Here it is only counted."""

from stokehold.model.actions import Action, WriteStatus
from stokehold.model.reasons import Scaling
from stokehold.model.snapshot import Snapshot
from stokehold.observability import metrics

for _reason in Scaling:  # a series that starts at 1 hides its first increase
    metrics.POOL_DECISIONS.labels(_reason)


def count_done(action: Action) -> None:
    """Metrics of a decision that has been carried out."""
    if isinstance(action, WriteStatus) and action.decides:
        metrics.POOL_DECISIONS.labels(action.decides).inc()


def count_scrape(source: str, result: str) -> None:
    """One answer of a replica or of Prometheus."""
    metrics.SCRAPES.labels(source, result).inc()


def count_state(snapshot: Snapshot) -> None:
    """Metrics of how the pools stand."""
    gauges = (metrics.POOL_DESIRED, metrics.POOL_READY, metrics.POOL_LOAD_AGE_SECONDS)
    for gauge in gauges:
        gauge.clear()
    for pool in snapshot.serving_pools.values():
        desired, ready = pool.status.desired_replicas, pool.pod_set.ready_replicas if pool.pod_set else 0
        metrics.POOL_READY.labels(*pool.key).set(ready)
        if desired is not None:
            metrics.POOL_DESIRED.labels(*pool.key).set(desired)
        load = snapshot.loads.get(pool.key)
        sources = [*load.replicas.values(), *load.queries.values()] if load is not None else []
        read_at = [source.reading.at for source in sources if source.reading is not None]
        if read_at:
            age = (snapshot.taken_at - min(read_at)).total_seconds()
            metrics.POOL_LOAD_AGE_SECONDS.labels(*pool.key).set(age)

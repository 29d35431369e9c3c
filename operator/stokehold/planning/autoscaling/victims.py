"""Which replicas should go first when a pool shrinks. Pure.

The ReplicaSet controller chooses: first pods without a node, then those that are not ready, then by the annotation
pod-deletion-cost. That annotation is all that we add: of ready replicas the least busy go first.
"""

from stokehold.model.load import PoolLoad, Signal
from stokehold.model.pods import Pod
from stokehold.model.snapshot import ServingPool


def least_busy(pool: ServingPool, load: PoolLoad | None, count: int) -> tuple[Pod, ...]:
    """So many ready replicas with the fewest requests, as far as those that are not ready do not go before them."""
    live = [pod for pod in pool.pods if pod.is_active]
    ready = [pod for pod in live if pod.ready]
    left = count - (len(live) - len(ready))
    if left <= 0 or load is None:
        return ()

    def requests(pod: Pod) -> float:
        source = load.replicas.get(pod.uid)
        if source is None or source.reading is None:
            return float("inf")  # unknown is not idle
        values = source.reading.values
        return values.get(Signal.RUNNING, 0.0) + values.get(Signal.WAITING, 0.0)

    return tuple(sorted(ready, key=lambda pod: (requests(pod), pod.name))[:left])

"""Which resources are watched, and which index hears of them."""

import asyncio
from collections.abc import Iterator
from typing import Any

from stokehold.cluster import resources, wire
from stokehold.cluster.client import KubeApi
from stokehold.cluster.informers import Informer
from stokehold.cluster.reading import (
    Unreadable,
    read_job,
    read_namespace,
    read_node,
    read_node_pool,
    read_pod,
    read_priority_class,
    read_queue,
)
from stokehold.cluster.snapshots import Cluster
from stokehold.model.snapshot import Job, Pod
from stokehold.observability import metrics


class Watches:
    """All informers of the operator."""

    def __init__(self, api: KubeApi, cluster: Cluster) -> None:
        def count(plural: str, signal: str) -> None:
            metrics.WATCH_SIGNALS.labels(plural, signal).inc()

        jobs = cluster.jobs

        def convert_job(raw: wire.OwnKind) -> Job | Unreadable:
            return read_job(raw, jobs.values.get((raw.metadata.namespace, raw.metadata.name)))

        self.pods: Informer[Pod] = Informer(
            api, resources.PODS, wire=wire.Pod, convert=read_pod, listener=cluster.pods, record=count
        )
        self.jobs: Informer[Job | Unreadable] = Informer(
            api, resources.TRAINING_JOBS, wire=wire.OwnKind, convert=convert_job, listener=jobs, record=count
        )
        self._others: tuple[Informer[Any], ...] = (
            Informer(api, resources.NODES, wire=wire.Node, convert=read_node, listener=cluster.nodes, record=count),
            Informer(
                api,
                resources.NAMESPACES,
                wire=wire.Namespace,
                convert=read_namespace,
                listener=cluster.namespaces,
                record=count,
            ),
            Informer(
                api,
                resources.PRIORITY_CLASSES,
                wire=wire.PriorityClass,
                convert=read_priority_class,
                listener=cluster.priority_classes,
                record=count,
            ),
            Informer(
                api,
                resources.GPU_QUEUES,
                wire=wire.OwnKind,
                convert=read_queue,
                listener=cluster.queues,
                record=count,
            ),
            Informer(
                api,
                resources.GPU_NODE_POOLS,
                wire=wire.OwnKind,
                convert=read_node_pool,
                listener=cluster.node_pools,
                record=count,
            ),
        )

    def __iter__(self) -> Iterator[Informer[Any]]:
        return iter((self.pods, self.jobs, *self._others))

    async def run(self) -> None:
        """Keep all of them fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self:
                group.create_task(informer.run(), name=f"watch {informer.resource.plural}")

    async def wait_synced(self) -> None:
        """Return when each has taken its first complete list: plans on half a cluster would double-book it."""
        await asyncio.gather(*(informer.wait_synced() for informer in self))

    def problems(self, stale_after_seconds: float) -> list[str]:
        """Why the operator does not see the cluster as it is, in words for a probe; empty if it does."""
        found = []
        for informer in self:
            name, age = informer.resource.plural, informer.age_seconds()
            metrics.WATCH_AGE_SECONDS.labels(name).set(age)
            if not informer.synced:
                found.append(f"{name}: not listed yet ({informer.last_error or 'in progress'})")
            elif age > stale_after_seconds:
                found.append(f"{name}: nothing heard for {age:.0f} s ({informer.last_error or 'no error'})")
        return found

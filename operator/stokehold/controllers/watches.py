"""Which resources are watched, and which index hears of them."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from stokehold.api.names import GROUP, HOLIDAYS_LABEL, JOB_LABEL, SERVING_LABEL, WORKSPACE_LABEL
from stokehold.cluster import resources, wire
from stokehold.cluster.client import KubeApi
from stokehold.cluster.indexes import Owners
from stokehold.cluster.informers import Informer
from stokehold.cluster.own_kinds import (
    Unreadable,
    read_claim,
    read_job,
    read_node_pool,
    read_queue,
    read_serving_pool,
    read_sighting,
    read_workspace,
)
from stokehold.cluster.reading.children import child_reader, read_pod_set
from stokehold.cluster.reading.nodes import read_node
from stokehold.cluster.reading.pods import read_pod
from stokehold.cluster.reading.rules import read_autoscaler, read_holidays, read_namespace, read_priority_class
from stokehold.cluster.reading.storage import read_storage_class, read_volume, read_volume_claim
from stokehold.cluster.snapshots import Cluster
from stokehold.cluster.store import Listener
from stokehold.cluster.watching import Wire
from stokehold.model.snapshot import Job
from stokehold.observability import metrics

T = TypeVar("T")
W = TypeVar("W", bound=Wire)


class Watches:
    """All informers of the operator."""

    def __init__(self, api: KubeApi, cluster: Cluster) -> None:
        def count(plural: str, signal: str) -> None:
            metrics.WATCH_SIGNALS.labels(plural, signal).inc()

        jobs = cluster.jobs
        self._unreadable_jobs = jobs.unreadable

        def convert_job(raw: wire.OwnKind) -> Job | Unreadable:
            return read_job(raw, jobs.values.get((raw.metadata.namespace, raw.metadata.name)))

        def watch(
            resource: resources.Resource,
            form: type[W],
            convert: Callable[[W], T | None],
            listener: Listener[T],
            labels: str | None = None,
        ) -> Informer[T]:
            return Informer(
                api, resource, wire=form, convert=convert, listener=listener, label_selector=labels, record=count
            )

        own = wire.OwnKind
        self.pods = watch(resources.PODS, wire.Pod, read_pod, cluster.pods)
        cluster.outside.steady_seconds = self.pods.steady_seconds
        self.jobs = watch(resources.TRAINING_JOBS, own, convert_job, jobs)
        cluster.orphans.sees_jobs = lambda: self.jobs.is_current
        cluster.orphans.unread_jobs = lambda: (broken.uid for broken in self.jobs.broken.values())
        self.workspaces = watch(resources.DEV_WORKSPACES, own, read_workspace, cluster.workspaces)
        self.stateful_sets = watch(
            resources.STATEFUL_SETS, wire.PodSet, read_pod_set, cluster.stateful_sets, labels=WORKSPACE_LABEL
        )
        self.serving_pools = watch(resources.INFERENCE_POOLS, own, read_serving_pool, cluster.serving_pools)
        # By our own labels: Helm and others write app.kubernetes.io/managed-by over.
        self.deployments = watch(
            resources.DEPLOYMENTS, wire.PodSet, read_pod_set, cluster.deployments, labels=SERVING_LABEL
        )

        def watch_children(resource: resources.Resource, label: str, owners: Owners) -> Informer[str]:
            return watch(resource, wire.Child, child_reader(label), owners, labels=label)

        self.services = (
            watch_children(resources.SERVICES, SERVING_LABEL, cluster.serving_services),
            watch_children(resources.SERVICES, WORKSPACE_LABEL, cluster.workspace_services),
            watch_children(resources.SERVICES, JOB_LABEL, cluster.gang_services),
        )
        self.budgets = watch_children(resources.POD_DISRUPTION_BUDGETS, SERVING_LABEL, cluster.disruption_budgets)
        self.autoscalers = watch(
            resources.HORIZONTAL_POD_AUTOSCALERS, wire.Autoscaler, read_autoscaler, cluster.autoscalers
        )
        self.claims = watch(resources.GPU_NODE_CLAIMS, own, read_claim, cluster.claims)
        cluster.outside.unread_claims = lambda: (broken.uid for broken in self.claims.broken.values())
        self.node_pools = watch(resources.GPU_NODE_POOLS, own, read_node_pool, cluster.node_pools)
        cluster.outside.unread_pools = lambda: (name for _, name in self.node_pools.broken)
        self.volume_claims = watch(  # all: workspaces mount others than their own, too
            resources.PERSISTENT_VOLUME_CLAIMS, wire.VolumeClaim, read_volume_claim, cluster.volume_claims
        )
        self._others: tuple[Informer[Any], ...] = (
            watch(resources.CONFIG_MAPS, wire.ConfigMap, read_holidays, cluster.holidays, labels=HOLIDAYS_LABEL),
            watch(resources.PERSISTENT_VOLUMES, wire.Volume, read_volume, cluster.volumes),
            watch(resources.STORAGE_CLASSES, wire.StorageClass, read_storage_class, cluster.storage_classes),
            watch(resources.NODES, wire.Node, read_node, cluster.nodes),
            watch(resources.NAMESPACES, wire.Namespace, read_namespace, cluster.namespaces),
            watch(resources.PRIORITY_CLASSES, wire.PriorityClass, read_priority_class, cluster.priority_classes),
            watch(resources.GPU_QUEUES, own, read_queue, cluster.queues),
            watch(resources.GPU_NODES, own, read_sighting, cluster.sightings),
        )

    def __iter__(self) -> Iterator[Informer[Any]]:
        written = (self.pods, self.jobs, self.workspaces, self.stateful_sets, self.volume_claims)
        serving = (self.serving_pools, self.deployments, *self.services, self.budgets, self.autoscalers)
        return iter((*written, *serving, self.claims, self.node_pools, *self._others))

    async def run(self) -> None:
        """Keep all of them fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self:
                group.create_task(informer.run(), name=f"watch {informer.resource.plural}")

    def unreadable(self) -> Iterator[Unreadable]:
        """Objects of our kinds that nobody can read, those that could be read once and still count as they were too."""
        yield from self._unreadable_jobs.values()
        for informer in self:
            if informer.resource.group != GROUP:
                continue
            for (namespace, name), broken in informer.broken.items():
                version = str(broken.version)
                yield Unreadable(namespace, name, broken.uid, version, broken.why, informer.resource.kind)

    async def wait_synced(self) -> None:
        """Return when each has taken its first complete list: plans on half a cluster would double-book it."""
        await asyncio.gather(*(informer.wait_synced() for informer in self))

    def problems(self, stale_after_seconds: float) -> list[str]:
        """Why the operator does not see the cluster as it is, in words for a probe, once a kind; empty if it does."""
        found: dict[str, str] = {}
        oldest: dict[str, float] = {}
        for informer in self:
            name, age = informer.resource.plural, informer.age_seconds()
            oldest[name] = max(age, oldest.get(name, 0.0))
            metrics.WATCH_AGE_SECONDS.labels(name).set(oldest[name])
            if not informer.is_served:
                why = f"the API server does not know this kind{_remedy(informer.resource)}"
            elif not informer.synced:
                why = f"not listed yet ({informer.last_error or 'in progress'})"
            elif age > stale_after_seconds:
                why = f"nothing heard for {age:.0f} s ({informer.last_error or 'no error'})"
            else:
                continue
            found.setdefault(name, why)
        return [f"{name}: {why}" for name, why in found.items()]


def _remedy(resource: resources.Resource) -> str:
    return "; helm upgrade makes its CRD again, or kubectl apply -f crds/" if resource.group == GROUP else ""

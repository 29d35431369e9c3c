"""A cluster of values that carries plans out as API server, kube-scheduler, kubelets and garbage collector would.

It keeps the operator's own indexes up to date, so that a plan is made of what it would really see, and honours the
guards of each write (names, uids, resource versions): plans may be carried out in part, twice, or long after the
world has moved on. `instant` is the shortcut for large worlds: pods run as soon as they are created, and are gone
as soon as they are let go.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from stokehold.api.v1alpha1.training_job import TrainingJobSpec, TrainingJobStatus
from stokehold.cluster.snapshots import Cluster
from stokehold.cluster.store import Key
from stokehold.model import names
from stokehold.model.accounting import Resources, total
from stokehold.model.actions import Action, AdmitJob, DeleteOrphan, DeletePod, FinishJob, ReleasePod, WriteStatus
from stokehold.model.demand import demand_of, shape_of
from stokehold.model.pods import DELETED, Pod, Worker
from stokehold.model.snapshot import Claim, Job, Namespace, Node, NodePool, Queue, Snapshot

GRACE = timedelta(seconds=30)

Write = Callable[[], bool]
"""One request to the API server; False when it was refused, which ends the action that it belongs to."""


class World:
    """Nodes, pods and jobs, and what becomes of them."""

    def __init__(self, now: datetime, *, instant: bool = False) -> None:
        self.now = now
        self.cluster = Cluster(lambda: None, lambda: self.now)
        self.pods: dict[Key, Pod] = {}
        self.default_requests: dict[str, int] = {}
        """Of a LimitRange: what a pod asks for whose spec does not say it."""
        self._instant = instant
        self._uids = 0

    def snapshot(self) -> Snapshot:
        """What the operator sees."""
        return self.cluster.snapshot()

    @property
    def jobs(self) -> dict[Key, Job]:
        """The jobs, without their pods."""
        return self.cluster.jobs.values

    def add_node(self, node: Node) -> None:
        self.cluster.nodes.on_upsert(("", node.name), self.cluster.nodes.values.get(node.name), node)

    def remove_node(self, name: str) -> None:
        self.cluster.nodes.on_delete(("", name), self.cluster.nodes.values[name])

    def add_namespace(self, namespace: Namespace) -> None:
        self.cluster.namespaces.on_upsert(("", namespace.name), None, namespace)

    def add_queue(self, queue: Queue) -> None:
        self.cluster.queues.on_upsert(("", queue.name), None, queue)

    def add_node_pool(self, pool: NodePool) -> None:
        self.cluster.node_pools.on_upsert(("", pool.name), None, pool)

    def add_claim(self, claim: Claim) -> None:
        self.cluster.claims.on_upsert(("", claim.name), None, claim)

    def add_job(self, namespace: str, name: str, fields: dict[str, Any], created_at: datetime | None = None) -> Job:
        """A user applies a TrainingJob; `fields` is its spec in camelCase."""
        spec = TrainingJobSpec.model_validate({"image": "registry.local/train:1", **fields})
        job = Job(
            namespace=namespace,
            name=name,
            uid=self._uid(name),
            resource_version="1",
            generation=1,
            created_at=created_at or self.now,
            spec=spec,
            status=TrainingJobStatus(),
            demand=demand_of(spec),
            shape=shape_of(spec),
        )
        self._store(job)
        return job

    def edit_job(self, key: Key, **fields: Any) -> None:
        """The user changes the spec."""
        job = self.jobs[key]
        spec = job.spec.model_copy(update=fields)
        self._store(
            _changed(job, spec=spec, demand=demand_of(spec), shape=shape_of(spec), generation=job.generation + 1)
        )

    def change_job(self, key: Key, **fields: Any) -> None:
        """Anything else happens to the object: its status is wiped, its proof is lost."""
        self._store(_changed(self.jobs[key], **fields))

    def delete_job(self, key: Key, *, collected: bool = True) -> None:
        """The user deletes it; the garbage collector asks its pods to go, unless it does not know the kind yet."""
        job = self.jobs[key]
        self.cluster.jobs.on_delete(key, job)
        for pod in self.pods_of(job) if collected else ():
            self.delete_pod(pod)

    def add_pod(self, pod: Pod) -> None:
        self.cluster.pods.on_upsert(pod.key, self.pods.get(pod.key), pod)
        self.pods[pod.key] = pod

    def delete_pod(self, pod: Pod) -> None:
        """Somebody asks a pod to go; it goes when its kubelet and our finalizer let it."""
        if pod.terminating_since is None:
            self.add_pod(replace(pod, terminating_since=self.now + GRACE))
        self._sweep(pod.key)

    def remove_pod(self, key: Key) -> None:
        """It is gone."""
        if known := self.pods.pop(key, None):
            self.cluster.pods.on_delete(key, known)

    def pods_of(self, job: Job) -> list[Pod]:
        return list(self.cluster.pods.by_owner.get(job.uid, {}).values())

    def end_pod(self, pod: Pod, phase: str, exit_code: int | None = 0, reason: str = "") -> None:
        """Its containers end."""
        self.add_pod(replace(pod, phase=phase, finished_at=self.now, exit_code=exit_code, reason=reason))
        self._sweep(pod.key)

    def bind_and_start(self) -> None:
        """kube-scheduler binds each pod whose node has room for it and is fit; kubelets start what is bound."""
        for pod in sorted(self.pods.values(), key=lambda pod: pod.name):
            if pod.phase != "Pending" or pod.terminating_since is not None:
                continue
            node = self.cluster.nodes.values.get(pod.node)
            if pod.bound or (node is not None and not node.unschedulable and self._has_room(node, pod)):
                self.add_pod(replace(pod, bound=True, phase="Running", started_at=self.now, ready=True))
            else:
                self.add_pod(replace(pod, unschedulable="0/1 nodes are available"))

    def finish_deletions(self) -> None:
        """Kubelets end what was asked to go; what is on no node or was never bound needs none."""
        for pod in list(self.pods.values()):
            if pod.terminating_since is not None and not pod.is_over:
                self.end_pod(pod, "Failed", 143, DELETED)

    def bound(self, node: str) -> Resources:
        """What the live pods that are bound to a node request."""
        return total([pod.requests for pod in self.pods.values() if _takes(pod, node)])

    def carry_out_in_part(self, actions: Iterable[Action], sizes: Iterable[int]) -> None:
        """Of each action only so many requests arrive; what has no size does not at all."""
        for action, size in zip(actions, sizes, strict=False):
            for write in list(self.writes(action))[:size]:
                if not write():
                    break

    def carry_out(self, actions: Iterable[Action]) -> int:
        """What the API server makes of a plan; returns how many gangs started."""
        admitted = 0
        for action in actions:
            done = all(write() for write in self.writes(action))
            admitted += done and isinstance(action, AdmitJob)
        return admitted

    def writes(self, action: Action) -> Iterator[Write]:
        """The requests that carry out an action, in order; the first that is refused is the last."""
        match action:
            case AdmitJob():
                self.cluster.gang_services.on_upsert(action.job.key, None, action.job.uid)
                for index in action.missing:
                    yield lambda index=index: self._create(action, index)  # type: ignore[misc]
            case WriteStatus():
                if isinstance(subject := action.subject, Job):
                    yield lambda: self._write(subject, status=TrainingJobStatus.model_validate(action.status))
            case FinishJob():
                yield from self._finish(action)
            case ReleasePod():
                yield lambda: self._release(action.pod)
            case DeletePod():
                yield lambda: self._delete(action.pod)
            case DeleteOrphan():
                yield lambda: self._knows_owner(action.pod) or self._delete(action.pod)
            case _:
                pass  # this world has jobs alone

    def _create(self, action: AdmitJob, index: int) -> bool:
        job, nodes = action.job, action.placement.nodes
        name = names.pod_name(job.name, action.attempt, index)
        if there := self.pods.get((job.namespace, name)):
            if there.owner_uid != job.uid:
                self.cluster.note_refusal(job, f"pods {name} exists already and belongs to something else")
            return there.owner_uid == job.uid
        gpu = {action.placement.gpu_resource: job.demand.gpus} if job.demand.gpus else {}
        asked = demand_of(job.spec) if job.added else job.demand
        place = action.placement
        lead = () if index else nodes
        worker = Worker(
            job.name,
            action.attempt,
            index,
            len(nodes),
            action.restarts,
            place.pool,
            place.gpu_type,
            place.capacity,
            lead,
            job.generation,
        )
        pod = Pod(
            namespace=job.namespace,
            name=name,
            uid=self._uid(name),
            phase="Running" if self._instant else "Pending",
            requests={**self.default_requests, **dict(asked.requests), **gpu},
            node=nodes[index],
            bound=self._instant,
            owner_uid=job.uid,
            worker=worker,
            tracked=True,
            created_at=self.now,
            started_at=self.now if self._instant else None,
        )
        self.add_pod(pod)
        if job.key not in self.jobs or self.jobs[job.key].uid != job.uid:
            self.delete_pod(pod)  # the garbage collector finds that its owner is gone
        return True

    def _finish(self, action: FinishJob) -> Iterator[Write]:
        job = action.job
        if job.proof is None:
            yield lambda: self._write(job, proof=action.proof)
        if action.status is not None:
            status = TrainingJobStatus.model_validate(action.status)
            version = job.resource_version if job.proof is not None else _next(job)
            yield lambda: self._write(replace(job, resource_version=version), status=status)

    def _write(self, job: Job, **fields: Any) -> bool:
        """Refused when the object has changed since, or is another one of that name."""
        now = self.jobs.get(job.key)
        if now is None or (now.uid, now.resource_version) != (job.uid, job.resource_version):
            return False
        self._store(_changed(now, **fields))
        return True

    def _release(self, pod: Pod) -> bool:
        now = self.pods.get(pod.key)
        if now is None or now.uid != pod.uid:
            return False
        if self._instant:
            self.remove_pod(pod.key)
            return True
        self.add_pod(replace(now, tracked=False))
        self._sweep(pod.key)
        return True

    def _delete(self, pod: Pod) -> bool:
        now = self.pods.get(pod.key)
        if now is None or now.uid != pod.uid:
            return False
        if self._instant:
            self.remove_pod(pod.key)
        else:
            self.delete_pod(now)
        return True

    def _knows_owner(self, pod: Pod) -> bool:
        return any(job.uid == pod.owner_uid for job in self.jobs.values())

    def _sweep(self, key: Key) -> None:
        """The API server removes what was asked to go, has ended or never ran, and has no finalizer."""
        pod = self.pods[key]
        stopped = pod.is_over or not pod.bound or pod.node not in self.cluster.nodes.values
        if pod.terminating_since is not None and stopped and not pod.tracked:
            self.remove_pod(key)

    def _has_room(self, node: Node, pod: Pod) -> bool:
        taken = self.bound(node.name)
        return all(
            taken.get(name, 0) + amount <= node.allocatable.get(name, 0) for name, amount in pod.requests.items()
        )

    def _store(self, job: Job) -> None:
        bare = replace(job, pods=(), create_error="", create_failed_at=None)
        self.cluster.jobs.on_upsert(job.key, self.jobs.get(job.key), bare)

    def _uid(self, name: str) -> str:
        self._uids += 1
        return f"uid-{self._uids}-{name}"


def overbooked(snapshot: Snapshot, actions: Iterable[Action]) -> list[str]:
    """Where a plan starts a gang without room for it beside all that is there and what other gangs were promised."""
    booked: dict[str, list[Resources]] = defaultdict(list)
    wanted: dict[str, set[str]] = defaultdict(set)
    for action in actions:
        if not isinstance(action, AdmitJob):
            continue
        gpus = {action.placement.gpu_resource: action.job.demand.gpus}
        requests = {**dict(action.job.demand.requests), **gpus}
        for index in action.missing:
            booked[action.placement.nodes[index]].append(requests)
        if len(action.missing) == len(action.placement.nodes):  # a new gang, not the rest of an old one
            for node in action.placement.nodes:
                wanted[node].update(name for name, amount in requests.items() if amount)
    return [
        f"{node}: {resource}"
        for node, resources in wanted.items()
        for resource in resources
        if total(booked[node])[resource] + snapshot.used.get(node, {}).get(resource, 0)
        > snapshot.nodes[node].allocatable.get(resource, 0)
    ]


def _changed(job: Job, **fields: Any) -> Job:
    return replace(job, resource_version=_next(job), **fields)


def _next(job: Job) -> str:
    return str(int(job.resource_version) + 1)


def _takes(pod: Pod, node: str) -> bool:
    return pod.bound and pod.node == node and not pod.is_over

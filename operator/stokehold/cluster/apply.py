"""Carries out what the planners decided: one action, one or a few calls. The only writer.

Every write is idempotent or guarded (deterministic names, uid, resourceVersion), so a plan that was carried out
in part, twice, or by a leader that has been replaced since does no harm. What fails is simply planned again; only a
refusal that the owner of the job can mend is remembered.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, assert_never

from stokehold.api.names import API_VERSION, FINISHED_ANNOTATION, TRACKING_FINALIZER
from stokehold.cluster import manifests
from stokehold.cluster.client import KubeApi, PatchKind
from stokehold.cluster.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from stokehold.cluster.informers import Informer
from stokehold.cluster.reading import Unreadable, proof_text
from stokehold.cluster.resources import EVENTS, PODS, SERVICES, TRAINING_JOBS, Resource
from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import Action, AdmitJob, DeletePod, FinishJob, Note, ReleasePod, WriteJobStatus
from stokehold.model.snapshot import Job, Pod
from stokehold.observability import logs

T = TypeVar("T")

FIELD_MANAGER = "stokehold"
MOST_AT_ONCE = 32
"""Calls in flight. More only lengthens the API server's queue."""

log = logs.get("apply")

Observer = Callable[[str, str], None]
"""Told of each action: its name, and its outcome (done, refused, outdated, unknown)."""


@dataclass(frozen=True, slots=True)
class Caches:
    """The informers to which the server's replies are shown at once, before their watches tell."""

    pods: Informer[Pod]
    jobs: Informer[Job | Unreadable]


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: its name in Events, and the check that it may still write."""

    identity: str
    check_leader: Callable[[], None]


class Applier:
    """Carries out plans on one API server."""

    def __init__(
        self,
        api: KubeApi,
        cluster: Cluster,
        caches: Caches,
        writer: Writer,
        clock: Callable[[], datetime],
        observe: Observer,
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._caches = caches
        self._writer = writer
        self._clock = clock
        self._observe = observe
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    async def apply(self, actions: Iterable[Action]) -> Counter[str]:
        """Carry out all actions, many at a time; returns how many ended how. Raises NotLeaderError when replaced."""
        outcomes = await asyncio.gather(*(self._carry_out(action) for action in actions), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return Counter(outcome for outcome in outcomes if isinstance(outcome, str))

    async def _carry_out(self, action: Action) -> str:
        name = type(action).__name__
        outcome = "done"
        try:
            await self._dispatch(action)
        except (ConflictError, NotFoundError):
            outcome = "outdated"  # it changed or went away; the watch tells, and the next plan knows better
        except UnavailableError as error:
            outcome = "unknown"
            log.warning("the API server did not answer", action=name, error=str(error))
        except ApiError as error:
            outcome = "refused"
            log.warning("the API server refused a write", action=name, target=_target(action), error=str(error))
        self._observe(name, outcome)
        return outcome

    async def _dispatch(self, action: Action) -> None:
        match action:
            case AdmitJob():
                await self._admit(action)
            case WriteJobStatus():
                await self._write_status(action.job, action.job.resource_version, action.status)
                await self._tell(action.job, action.notes)
            case FinishJob():
                await self._finish(action)
            case ReleasePod():
                await self._release(action.pod)
            case DeletePod():
                await self._delete(action)
            case _:
                assert_never(action)

    async def _admit(self, action: AdmitJob) -> None:
        """The Service, then the lead worker, which knows the placement, then all others at once."""
        job, size = action.job, len(action.placement.nodes)
        try:
            if size > 1:
                await self._create_own(SERVICES, manifests.service(job), job)
            await self._create_worker(action, action.missing[0])
            await self._create_workers(action, action.missing[1:])
        except (ForbiddenError, InvalidError, AlreadyExistsError) as error:
            self._cluster.note_refusal(job, str(error))
            raise
        if job.create_error:
            self._cluster.note_refusal(job, "")
        log.info(
            "admitted",
            job=f"{job.namespace}/{job.name}",
            attempt=action.attempt,
            pool=action.placement.pool,
            nodes=",".join(action.placement.nodes),
        )
        await self._tell(job, action.notes)

    async def _create_workers(self, action: AdmitJob, indices: Iterable[int]) -> None:
        """All of them, even if one fails; then the first failure."""
        tries = (self._create_worker(action, index) for index in indices)
        for result in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _create_worker(self, action: AdmitJob, index: int) -> None:
        pod = await self._create_own(PODS, manifests.worker(action, index), action.job)
        self._caches.pods.observe_write(pod)

    async def _create_own(self, resource: Resource, body: dict[str, Any], job: Job) -> dict[str, Any]:
        """Create an object of the job, or take the one that an earlier try has made."""
        try:
            return await self._call(
                lambda: self._api.create(resource, body, job.namespace, field_manager=FIELD_MANAGER)
            )
        except AlreadyExistsError:
            name = body["metadata"]["name"]
            found = await self._call(lambda: self._api.get(resource, name, job.namespace))
            if any(ref.get("uid") == job.uid for ref in found["metadata"].get("ownerReferences", ())):
                return found
            raise AlreadyExistsError(
                409, "AlreadyExists", f"{resource.kind} {name} exists already and belongs to something else"
            ) from None

    async def _write_status(self, job: Job, version: str, status: dict[str, Any]) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": job.name, "namespace": job.namespace, "uid": job.uid, "resourceVersion": version},
            "status": status,
        }
        written = await self._call(
            lambda: self._api.patch(
                TRAINING_JOBS,
                job.name,
                body,
                namespace=job.namespace,
                kind=PatchKind.APPLY,
                subresource="status",
                field_manager=FIELD_MANAGER,
                force=True,
            )
        )
        self._caches.jobs.observe_write(written)

    async def _finish(self, action: FinishJob) -> None:
        """First the proof on the object: should we die before the status, the job is over all the same."""
        job, version = action.job, action.job.resource_version
        if job.proof is None:
            proven = await self._prove(action)
            version = proven["metadata"]["resourceVersion"]
            self._caches.jobs.observe_write(proven)
        if action.status is not None:
            await self._write_status(job, version, action.status)
        proof = action.proof
        log.info("finished", job=f"{job.namespace}/{job.name}", outcome=proof.outcome, reason=proof.reason)
        await self._tell(job, action.notes)

    async def _prove(self, action: FinishJob) -> dict[str, Any]:
        job = action.job
        metadata = {
            "uid": job.uid,
            "resourceVersion": job.resource_version,
            "annotations": {FINISHED_ANNOTATION: proof_text(action.proof)},
        }
        return await self._call(
            lambda: self._api.patch(
                TRAINING_JOBS,
                job.name,
                {"metadata": metadata},
                namespace=job.namespace,
                kind=PatchKind.MERGE,
                field_manager=FIELD_MANAGER,
            )
        )

    async def _release(self, pod: Pod) -> None:
        """Take our finalizer off, and nobody else's."""
        patch = {"metadata": {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER]}}
        released = await self._call(
            lambda: self._api.patch(
                PODS, pod.name, patch, namespace=pod.namespace, kind=PatchKind.STRATEGIC, field_manager=FIELD_MANAGER
            )
        )
        if pod.terminating_since is None:  # else this was its end, and the watch says so
            self._caches.pods.observe_write(released)

    async def _delete(self, action: DeletePod) -> None:
        pod = action.pod
        deleted = await self._call(lambda: self._api.delete(PODS, pod.name, namespace=pod.namespace, uid=pod.uid))
        log.info("pod deleted", pod=f"{pod.namespace}/{pod.name}", why=action.why)
        if deleted.get("kind") == "Pod" and deleted["metadata"].get("finalizers"):
            self._caches.pods.observe_write(deleted)

    async def _tell(self, job: Job, notes: Iterable[Note]) -> None:
        """Events come after the write that they tell of, and never stand in its way."""
        for note in notes:
            body = manifests.event(job, note, self._clock(), self._writer.identity)
            try:
                await self._call(lambda body=body: self._api.create(EVENTS, body, job.namespace))  # type: ignore[misc]
            except ApiError as error:
                if not isinstance(error, AlreadyExistsError):
                    log.debug("event not written", error=str(error))

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        async with self._slots:
            self._writer.check_leader()
            return await call()


def _target(action: Action) -> str:
    thing = action.pod if isinstance(action, ReleasePod | DeletePod) else action.job
    return f"{thing.namespace}/{thing.name}"

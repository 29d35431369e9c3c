"""Writes for TrainingJobs: their workers, their end, and the pods of attempts that are over."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from stokehold.api.names import FINISHED_ANNOTATION, TRACKING_FINALIZER
from stokehold.cluster import manifests
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.client import PatchKind
from stokehold.cluster.errors import ConflictError, NotFoundError
from stokehold.cluster.own_kinds import proof_text
from stokehold.cluster.resources import PODS, SERVICES, TRAINING_JOBS
from stokehold.model import names
from stokehold.model.actions import AdmitJob, FinishJob
from stokehold.model.pods import Pod
from stokehold.observability import logs

log = logs.get("apply")


async def admit(writes: Writes, action: AdmitJob) -> None:
    """The Service, then the lead worker, which knows the placement, then all others at once."""
    job, size = action.job, len(action.placement.nodes)
    if size > 1:
        await writes.create_own(SERVICES, manifests.service(job), job)
    await _create_worker(writes, action, action.missing[0])
    await _create_workers(writes, action, action.missing[1:])
    log.info(
        "admitted",
        job=f"{job.namespace}/{job.name}",
        attempt=action.attempt,
        pool=action.placement.pool,
        nodes=",".join(action.placement.nodes),
    )
    await writes.tell(job, action.notes)


async def finish(writes: Writes, action: FinishJob) -> None:
    """First the proof on the object: should we die before the status, the job is over all the same."""
    job, version = action.job, action.job.resource_version
    if job.proof is None:
        proven = await _prove(writes, action)
        version = proven["metadata"]["resourceVersion"]
    if action.status is not None:
        await writes.write_status(job, action.status, version)
    proof = action.proof
    log.info("finished", job=f"{job.namespace}/{job.name}", outcome=proof.outcome, reason=proof.reason)
    await writes.tell(job, action.notes)


async def release(writes: Writes, pod: Pod) -> None:
    """Take our finalizer off, and nobody else's."""
    patch = {"metadata": {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING_FINALIZER]}}
    lives_on = pod.terminating_since is None  # else this is its end, and the watch says so
    await writes.patch(PODS, pod.name, patch, namespace=pod.namespace, kind=PatchKind.STRATEGIC, shows=lives_on)


async def delete_orphan(writes: Writes, pod: Pod) -> None:
    """The garbage collector does the same, but hears of our kinds only half a minute after they were made.

    As it does, we ask the API server itself: our own watch may be late. ConflictError when the job may exist.
    """
    found = await writes.call(lambda: writes.api.get(PODS, pod.name, pod.namespace))
    if found["metadata"]["uid"] != pod.uid or not await _has_lost_its_job(writes, found):
        raise ConflictError(0, "NotAnOrphan", f"pod {pod.name} has its TrainingJob, as far as the API server knows")
    await delete(writes, pod, "its TrainingJob is gone")
    if pod.worker is None or pod.worker.index != 0 or pod.worker.gang_size == 1:
        return
    with suppress(NotFoundError):
        name = names.service_name(pod.worker.job)
        service = await writes.call(lambda: writes.api.get(SERVICES, name, pod.namespace))
        if await _has_lost_its_job(writes, service):
            uid = service["metadata"]["uid"]
            await writes.call(lambda: writes.api.delete(SERVICES, name, namespace=pod.namespace, uid=uid))


async def _has_lost_its_job(writes: Writes, child: dict[str, Any]) -> bool:
    """Whether the API server knows TrainingJobs, and not the one that owns this."""
    refs = child["metadata"].get("ownerReferences", ())
    owner = next((ref for ref in refs if ref.get("controller") and ref["kind"] == TRAINING_JOBS.kind), None)
    if owner is None:
        return False
    namespace = child["metadata"]["namespace"]
    try:
        job = await writes.call(lambda: writes.api.get(TRAINING_JOBS, owner["name"], namespace))
    except NotFoundError as error:
        return error.is_of_object
    return bool(job["metadata"]["uid"] != owner["uid"])


async def delete(writes: Writes, pod: Pod, why: str) -> None:
    """Delete the very pod that was seen, not one that took its name."""
    deleted = await writes.call(lambda: writes.api.delete(PODS, pod.name, namespace=pod.namespace, uid=pod.uid))
    log.info("pod deleted", pod=f"{pod.namespace}/{pod.name}", why=why)
    if deleted.get("kind") == "Pod" and deleted["metadata"].get("finalizers"):
        writes.show(PODS, deleted)


async def _create_workers(writes: Writes, action: AdmitJob, indices: Iterable[int]) -> None:
    """All of them, even if one fails; then the first failure."""
    tries = (_create_worker(writes, action, index) for index in indices)
    for result in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _create_worker(writes: Writes, action: AdmitJob, index: int) -> None:
    await writes.create_own(PODS, manifests.worker(action, index), action.job)


async def _prove(writes: Writes, action: FinishJob) -> dict[str, Any]:
    job = action.job
    metadata = {
        "uid": job.uid,
        "resourceVersion": job.resource_version,
        "annotations": {FINISHED_ANNOTATION: proof_text(action.proof, job.name), **writes.stamp()},
    }
    return await writes.patch(TRAINING_JOBS, job.name, {"metadata": metadata}, namespace=job.namespace)

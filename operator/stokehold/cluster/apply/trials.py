"""Pods that are tried before anything is made for their owner: a dry run, of which nothing remains in the cluster.

It tells what a LimitRange, a RuntimeClass or a webhook adds to their requests. When that is more than the plan has
reckoned with, nothing is made, and the next plan knows. Of those that have the same shape only one is tried; when the
API server does not answer that one, nobody else asks it the same. A refusal may be for that one alone.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec

from stokehold.cluster import manifests, wire, workspace_manifests
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.errors import AlreadyExistsError, ConflictError, InvalidError, UnavailableError
from stokehold.cluster.reading.pods import read_pod
from stokehold.cluster.resources import PODS
from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import AdmitJob, StartWorkspace
from stokehold.model.demand import beyond
from stokehold.model.snapshot import Job, Workspace


class Trials:
    """Tries pods; knows through the `Cluster` of which shapes one was seen of late."""

    def __init__(self, writes: Writes, cluster: Cluster) -> None:
        self._writes = writes
        self._cluster = cluster
        self._under_way: dict[tuple[str, str], asyncio.Future[UnavailableError | None]] = {}
        """By namespace and shape: the try that others wait for, which tells them whether nobody answered."""

    async def try_worker(self, action: AdmitJob) -> None:
        """Before the first of a gang whose shape nobody knows. ConflictError when it is to be planned anew."""
        job = action.job
        if len(action.missing) < len(action.placement.nodes):
            return  # the rest of a gang of which pods are there
        if self._cluster.added_to(job) is None:
            await self._try_or_wait(job, manifests.worker(action, action.missing[0]))
        self._check(job)

    async def try_workspace(self, action: StartWorkspace) -> None:
        """At each start: only the StatefulSet's controller would hear of a quota or a policy that refuses its pod, and
        the node would be kept for a pod that never comes."""
        await self._try(action.workspace, workspace_manifests.pod(action.workspace, action.placement))
        self._check(action.workspace)

    async def _try_or_wait(self, job: Job, body: dict[str, Any]) -> None:
        """One try for all of a shape. Not one after another: a webhook that is down would take its time for each."""
        key = (job.namespace, job.shape)
        first = self._under_way.get(key)
        if first is not None:
            unanswered = await asyncio.shield(first)  # whoever is cancelled leaves the others waiting
            if unanswered is not None:
                raise UnavailableError(unanswered.status, unanswered.reason, unanswered.message) from unanswered
            if self._cluster.added_to(job) is None:
                await self._try(job, body)
            return
        told = self._under_way[key] = asyncio.get_running_loop().create_future()
        unanswered = None
        try:
            await self._try(job, body)
        except UnavailableError as error:
            unanswered = error
            raise
        finally:
            del self._under_way[key]
            told.set_result(unanswered)

    async def _try(self, owner: Job | Workspace, body: dict[str, Any]) -> None:
        try:
            reply = await self._writes.call(lambda: self._writes.api.create(PODS, body, owner.namespace, dry_run=True))
        except AlreadyExistsError:
            return  # an earlier try has made it, and the watch will tell
        except InvalidError as error:
            if error.status != HTTPStatus.BAD_REQUEST:  # which is the answer of webhooks that cannot do a dry run
                raise
            self._cluster.note_trial(owner, None)
        else:
            self._cluster.note_trial(owner, read_pod(msgspec.convert(reply, wire.Pod)))

    def _check(self, owner: Job | Workspace) -> None:
        more = beyond(owner.demand, dict(self._cluster.added_to(owner) or ()))
        if more:
            told = ", ".join(f"{name} {amount}" for name, amount in more)
            raise ConflictError(0, "Outgrown", f"a pod of it asks for more than was planned: {told}")

"""Carries out what the planners decided: one action, one or a few calls. The only writer.

Every write is idempotent or guarded (deterministic names, uid, resourceVersion), so a plan that was carried out
in part, twice, or by a leader that has been replaced since does no harm. What fails is simply planned again; what is
refused is tried again later and later, and a refusal that the owner of the work can mend is told.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import assert_never

from stokehold.cluster.apply import claims, jobs, services, serving, workspaces
from stokehold.cluster.apply.patience import Key, Patience
from stokehold.cluster.apply.subjects import subject_of, target_of
from stokehold.cluster.apply.trials import Trials
from stokehold.cluster.apply.unheard import Unheard
from stokehold.cluster.apply.writes import Writer, Writes
from stokehold.cluster.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from stokehold.cluster.leases import NotLeaderError
from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import (
    Action,
    AdmitJob,
    ClaimAction,
    CordonNode,
    CreateClaim,
    DeleteClaim,
    DeleteNode,
    DeleteOrphan,
    DeletePod,
    EndWorkspace,
    FinishJob,
    GrowVolume,
    KeepWorkspace,
    LaunchNode,
    Note,
    PlaceReplica,
    ReleaseClaim,
    ReleasePod,
    RestoreService,
    ResumeWorkspace,
    StartWorkspace,
    StopWorkspace,
    TellOfNode,
    TerminateNode,
    TerminateOrphan,
    WriteDeployment,
    WriteStatus,
)
from stokehold.model.reasons import Event
from stokehold.model.snapshot import Job, ServingPool, Workspace
from stokehold.observability import logs

__all__ = ["Applier", "Writer", "Writes"]

log = logs.get("apply")

Observer = Callable[[Action, str], None]
"""Told of each action and its outcome, one of OUTCOMES."""
UNBUILDABLE = (TypeError, AttributeError, ValueError, LookupError)
"""What a template provokes whose parts are none of a pod's: our kinds leave most of them open, for Kubernetes grows."""
OUTCOMES = ("done", "refused", "outdated", "unknown", "failed")

Refused = Callable[[str, str], None]
"""Told of each refusal: the kind of object that the write was for, and the error's name (Invalid, Forbidden ...)."""


class Applier:
    """Carries out plans on one API server."""

    def __init__(self, writes: Writes, cluster: Cluster, observe: Observer, refused: Refused) -> None:
        self._writes = writes
        self._cluster = cluster
        self._observe = observe
        self._refused = refused
        self._patience = Patience()
        self._unheard = Unheard()
        self._trials = Trials(writes, cluster)

    async def apply(self, actions: Iterable[Action]) -> Counter[str]:
        """Carry out all actions, many at a time; returns how many ended how. Raises NotLeaderError when replaced."""
        outcomes = await asyncio.gather(*(self._carry_out(action) for action in actions), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return Counter(outcome for outcome in outcomes if isinstance(outcome, str))

    async def _carry_out(self, action: Action) -> str:
        name, target, key = type(action).__name__, target_of(action), _memory_key(action)
        if self._patience.waits(key) or self._is_vain(action):
            return "held"
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
            log.warning("the API server refused a write", action=name, target=target, error=str(error))
            await self._tell_refusal(action, error)
            if isinstance(action, WriteStatus):
                self._cluster.note_status(action.subject, refused=isinstance(error, InvalidError))
        except NotLeaderError:
            raise
        except Exception:
            outcome = "failed"  # a fault of ours in the work of one must not hold up that of all others
            log.exception("an action failed", action=name, target=target)
        # What creates has a memory of its own for refusals, which its owner can clear.
        if outcome == "failed" or not _creates(action):
            self._patience.note(key, refused=outcome in ("refused", "failed"))
        self._observe(action, outcome)
        return outcome

    def _is_vain(self, action: Action) -> bool:
        return isinstance(action, WriteStatus) and self._unheard.is_vain(action.subject, action.status)

    async def _tell_refusal(self, action: Action, error: ApiError) -> None:
        """Count it, and say it on the object; refused children are told in the status of their owner."""
        subject, why = subject_of(action), type(error).__name__.removesuffix("Error")
        self._refused(subject.KIND if subject is not None else "", why)
        if subject is None or _creates(action) or isinstance(action, GrowVolume):
            return
        name = type(action).__name__
        message = f"the API server refuses what the operator writes for it ({name}): {error.message}"
        await self._writes.tell_once(subject, Note(Event.WRITE_REFUSED, message, f"refused {name} {why}", warning=True))

    async def _dispatch(self, action: Action) -> None:
        writes = self._writes
        match action:
            case AdmitJob() | StartWorkspace() | WriteDeployment():
                await self._create(action)
            case WriteStatus() | TellOfNode():
                await self._tell(action)
            case FinishJob():
                await jobs.finish(writes, action)
            case ReleasePod() | DeletePod() | DeleteOrphan():
                await self._dispatch_pod(action)
            case PlaceReplica():
                await serving.place(writes, action)
            case RestoreService():
                await services.restore(writes, action)
                self._cluster.restores.note(action.owner)
            case EndWorkspace() | ResumeWorkspace() | StopWorkspace() | KeepWorkspace() | GrowVolume():
                await self._dispatch_workspace(action)
            case CreateClaim() | CordonNode() | DeleteNode() | DeleteClaim() | ReleaseClaim():
                await self._dispatch_claim(action)
            case LaunchNode() | TerminateNode() | TerminateOrphan():
                raise TypeError(f"{type(action).__name__} is for a provider, not for the API server")
            case _:
                assert_never(action)

    async def _dispatch_pod(self, action: ReleasePod | DeletePod | DeleteOrphan) -> None:
        match action:
            case ReleasePod():
                await jobs.release(self._writes, action.pod)
            case DeletePod():
                await jobs.delete(self._writes, action.pod, action.why)
            case DeleteOrphan():
                await jobs.delete_orphan(self._writes, action.pod)

    async def _tell(self, action: WriteStatus | TellOfNode) -> None:
        match action:
            case WriteStatus():
                version = await self._writes.write_status(action.subject, action.status)
                self._unheard.note(action.subject, action.status, version)
                self._cluster.note_status(action.subject, refused=False)
                await self._writes.tell(action.subject, action.notes)
            case TellOfNode():
                await self._writes.tell(action.sighting, action.notes)
                self._cluster.note_told(action.sighting, action.known)

    async def _dispatch_workspace(
        self, action: EndWorkspace | ResumeWorkspace | StopWorkspace | KeepWorkspace | GrowVolume
    ) -> None:
        match action:
            case EndWorkspace():
                await workspaces.end(self._writes, action)
            case ResumeWorkspace():
                await workspaces.resume(self._writes, action)
            case StopWorkspace():
                await workspaces.stop(self._writes, action)
            case KeepWorkspace():
                await workspaces.keep(self._writes, action)
            case GrowVolume():
                await self._grow(action)

    async def _dispatch_claim(self, action: ClaimAction) -> None:
        writes = self._writes
        match action:
            case CreateClaim():
                await claims.create(writes, action)
            case CordonNode():
                await claims.cordon(writes, action)
            case DeleteNode():
                await claims.delete_node(writes, action)
            case DeleteClaim():
                await claims.delete(writes, action)
            case ReleaseClaim():
                await claims.release(writes, action)
            case _:
                assert_never(action)

    async def _create(self, action: AdmitJob | StartWorkspace | WriteDeployment) -> None:
        writes = self._writes
        match action:
            case AdmitJob():
                await self._create_for(action.job, self._admit(action))
            case StartWorkspace():
                await self._create_for(action.workspace, self._start(action))
            case WriteDeployment(reshapes=True):
                await self._create_for(action.pool, serving.write_deployment(writes, action))
            case WriteDeployment():  # nothing is created: what was refused stays refused
                await serving.write_deployment(writes, action)

    async def _admit(self, action: AdmitJob) -> None:
        await self._trials.try_worker(action)
        await jobs.admit(self._writes, action)

    async def _start(self, action: StartWorkspace) -> None:
        await self._trials.try_workspace(action)
        await workspaces.start(self._writes, action)

    async def _grow(self, action: GrowVolume) -> None:
        """A storage class that allows no growth says so once; the same size is not asked for again."""
        try:
            await workspaces.grow(self._writes, action)
        except (ForbiddenError, InvalidError) as error:
            self._cluster.note_refused_size(action.workspace, action.size)
            await workspaces.tell_refused_size(self._writes, action, str(error))
            raise

    async def _create_for(self, owner: Job | Workspace | ServingPool, creation: Awaitable[None]) -> None:
        """Remember a refusal that its owner can mend, so that it is told and not repeated in every cycle."""
        try:
            await _built(owner, creation)
        except AlreadyExistsError as error:
            self._cluster.note_refusal(owner, error.message, name_taken=True)
            raise
        except (ForbiddenError, InvalidError) as error:
            self._cluster.note_refusal(owner, str(error))
            raise
        if owner.create_error:
            self._cluster.note_refusal(owner, "")


async def _built(owner: Job | Workspace | ServingPool, creation: Awaitable[None]) -> None:
    """What a template makes of our own building blocks is its author's to hear, as if the API server had refused it."""
    try:
        await creation
    except UNBUILDABLE as error:
        if not owner.spec.pod_template:
            raise
        told = f"a part of spec.podTemplate has another form than in a pod: {error}"
        raise InvalidError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", told) from error


def _memory_key(action: Action) -> Key:
    """Under what a refusal is remembered: one of a number of replicas holds up no new shape."""
    name, subject = type(action).__name__, subject_of(action)
    name = f"{name} with children" if _creates(action) else name
    return name, subject.KIND if subject is not None else "", target_of(action)


def _creates(action: Action) -> bool:
    """Whether it makes children: what refuses them stands in the status of their owner until it is mended."""
    return isinstance(action, AdmitJob | StartWorkspace) or (isinstance(action, WriteDeployment) and action.reshapes)

"""What an action is about: the object of ours that hears of its refusal, and the name under which it is remembered."""

from stokehold.model.actions import (
    Action,
    AdmitJob,
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
from stokehold.model.snapshot import OwnObject


def subject_of(action: Action) -> OwnObject | None:
    """The object of ours that an action is for; None where it is for a pod or a node, or for a claim yet to come."""
    match action:
        case WriteStatus(subject=found) | RestoreService(owner=found):
            return found
        case AdmitJob() | FinishJob():
            return action.job
        case StartWorkspace() | EndWorkspace() | ResumeWorkspace() | StopWorkspace() | KeepWorkspace() | GrowVolume():
            return action.workspace
        case WriteDeployment() | PlaceReplica():
            return action.pool
        case DeleteClaim() | ReleaseClaim():
            return action.claim
        case _:
            return None


def target_of(action: Action) -> str:
    """NAMESPACE/NAME of what it changes; of what has no namespace the name."""
    match action:
        case ReleasePod() | DeletePod() | DeleteOrphan() | PlaceReplica():
            return "/".join(action.pod.key)
        case CreateClaim():
            return action.name
        case CordonNode() | DeleteNode():
            return action.node.name
        case LaunchNode(claim=found) | TerminateNode(claim=found) | TellOfNode(sighting=found):
            return found.name
        case TerminateOrphan():
            return action.instance.provider_id
        case _:
            subject = subject_of(action)
            return "/".join(subject.key).lstrip("/") if subject is not None else ""

"""Where a workspace stands: what its StatefulSet and its pods say, before anybody asks how it is used."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.model.kubelets import Refusal
from stokehold.model.pods import Pod, PodSet
from stokehold.model.reasons import Stop
from stokehold.model.shapes import workspace_digest
from stokehold.model.snapshot import Snapshot, Workspace
from stokehold.model.statuses import whole
from stokehold.planning.culling.settings import CullingSettings
from stokehold.planning.placement.additions import outgrew, told
from stokehold.planning.placement.unbound import why_unbound

STARTING, ACTIVE, QUIET, WARNED = "Starting", "Active", "Quiet", "Warned"
STOPPING, STOPPED = "Stopping", "Stopped"
SECOND = timedelta(seconds=1)
MOST_AHEAD = timedelta(days=1)
REMEMBERED_NODES = 50
"""That have refused its pod: as many as can be, or it would go round among those that it has forgotten."""
REFUSALS_OF_EACH = 2
"""As many as make a node one to avoid."""
OUTDATED = "its spec has been changed since it was started: what its pod is made of counts at its next start"


def has_replica(workspace: Workspace) -> bool:
    """Whether its StatefulSet has its replica, and so its node."""
    return workspace.pod_set is not None and workspace.pod_set.replicas > 0


def held_gpus(workspace: Workspace) -> int:
    """How many GPUs its pod was given; `spec.gpus` may have been edited since, and counts from the next start on."""
    given = workspace.pod_set.gpus if workspace.pod_set is not None else None
    return workspace.spec.gpus if given is None else given


def is_outdated(workspace: Workspace) -> bool:
    """Whether its pod was made from another spec than there is now."""
    made = workspace.pod_set
    return made is not None and made.gpus is not None and made.template != workspace_digest(workspace.spec)


def caveat(workspace: Workspace) -> str:
    """What its owner should know of one that runs: what of it is another than the spec says, or will not last."""
    made = workspace.pod_set
    if workspace.volume is not None and workspace.volume.deleting:
        return "its volume claim is being deleted: its files go when it stops; copy what is needed first"
    if made is not None and made.template_writer:
        return f"its StatefulSet has been changed by {made.template_writer}: its spec counts again at its next start"
    return OUTDATED if is_outdated(workspace) else ""


def live_pods(workspace: Workspace) -> tuple[Pod, ...]:
    """The pods that hold something."""
    return tuple(pod for pod in workspace.pods if not pod.is_over)


def ready_pod(workspace: Workspace) -> Pod | None:
    """The pod in which its user can work."""
    fit = (p for p in workspace.pods if p.ready and p.bound and p.is_active)
    return next(fit, None)


def without_forgery(workspace: Workspace, now: datetime) -> Workspace:
    """The workspace without a record of a stop that is to come: no clock of ours is so far ahead, and anybody who may
    edit the workspace can write one."""
    record = workspace.stop_record
    return replace(workspace, stop_record=None) if record is not None and record.time - now > MOST_AHEAD else workspace


def last_end(workspace: Workspace) -> datetime | None:
    """When it was last stopped, as its status or, should that be behind, the record of the stop says."""
    ends = [workspace.status.stopped_at, workspace.stop_record.time if workspace.stop_record else None]
    return max((end for end in ends if end is not None), default=None)


def start_of(workspace: Workspace, now: datetime) -> datetime:
    """When it was started: as recorded, or now if what is recorded is an earlier start."""
    started, ended = workspace.status.start_time, last_end(workspace)
    if started is not None and (ended is None or started > ended):
        return started
    return whole(now) if ended is None else max(whole(now), whole(ended) + SECOND)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a workspace that should not run was stopped."""

    reason: str
    message: str


def ending_of(workspace: Workspace) -> Ending:
    """Ours, if there is a record that is younger than the start; else somebody set spec.running to false."""
    record, started = workspace.stop_record, workspace.status.start_time
    if record is not None and (started is None or record.time >= started):
        return Ending(record.reason, record.message)
    return Ending(Stop.USER_REQUEST, "spec.running is false")


def why_stuck(workspace: Workspace, snapshot: Snapshot, settings: CullingSettings) -> str | None:
    """Why its pod will not start where it was put: the node is no good, or the pod is not made or not bound."""
    if not has_replica(workspace) or workspace.pod_set is None or not workspace.spec.running:
        return None
    node = workspace.pod_set.node
    pods = live_pods(workspace)
    if (wrong := _wrong_node(workspace.pod_set, pods, snapshot)) is not None:
        return wrong
    for pod in pods:
        if pod.terminating_since is None and outgrew(pod, workspace.added, snapshot):
            return f"its pod does not fit on {node}: {told(workspace.added)}"
        waited = snapshot.time_given(pod.created_at) if pod.created_at is not None else timedelta()
        if not pod.bound and pod.terminating_since is None and waited >= settings.bind_timeout:
            return f"its pod could not be bound to {node}: {why_unbound(pod, workspace)}"
    since = None if pods else _without_pod_since(workspace)
    if since is not None and snapshot.taken_at - since >= settings.bind_timeout:
        name = workspace.pod_set.name
        return f"no pod was made for it on {node} (kubectl describe statefulset {name} says why)"
    return None


def _wrong_node(made: PodSet, pods: Collection[Pod], snapshot: Snapshot) -> str | None:
    """That the node does not take its pod, or has gone."""
    node, refusal = made.node, made.refusal
    if refusal is not None and refusal.node == node:
        return f"node {node} refused its pod ({refusal.why})"
    if node and node not in snapshot.nodes and not any(pod.bound for pod in pods):
        return f"its node {node} has gone"
    return None


def refusals_of(workspace: Workspace) -> tuple[Refusal, ...]:
    """The last of its pod by each kubelet, latest node last; empty when its pod was not refused where it is now."""
    known = workspace.pod_set
    if known is None or known.refusal is None or known.refusal.node != known.node:
        return ()
    by_node: dict[str, list[Refusal]] = {}
    for one in (*known.refusals, known.refusal):
        by_node[one.node] = [*by_node.pop(one.node, ()), one][-REFUSALS_OF_EACH:]
    return tuple(one for node in list(by_node)[-REMEMBERED_NODES:] for one in by_node[node])


def _without_pod_since(workspace: Workspace) -> datetime | None:
    """Since when it has had a node and been told not to be ready; None while that is not on record."""
    found = [find_condition(workspace.status.conditions, kind) for kind in (conditions.ADMITTED, conditions.READY)]
    told = [(one.status, one.last_transition_time) for one in found if one is not None]
    if [status for status, _ in told] != [conditions.TRUE, conditions.FALSE]:
        return None
    return max((time for _, time in told if time is not None), default=None)

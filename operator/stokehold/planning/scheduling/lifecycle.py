"""When an attempt is at its end, and what that means: an ordered list of small checks, the first that applies wins.

workers succeeded     -> the job has succeeded
the cluster's fault   -> the whole gang is requeued, restarts unchanged
the user's failure    -> the whole gang restarts, or the job has failed
limits and wishes     -> maxRuntime ends it, suspend takes it back
the gang is not whole -> taken back and planned anew
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stokehold.model.kubelets import is_refusal
from stokehold.model.pods import DELETED, Pod
from stokehold.model.reasons import Eviction, Finish
from stokehold.model.snapshot import Job, Snapshot
from stokehold.planning.placement.additions import outgrew, told
from stokehold.planning.placement.unbound import why_unbound
from stokehold.planning.scheduling.attempts import Attempt, current_attempt, is_over
from stokehold.planning.scheduling.queueing import Queues
from stokehold.planning.scheduling.settings import SchedulingSettings

LOST_WITH_NODE = (
    "NodeLost",
    "Shutdown",
    "NodeShutdown",
    "Terminated",
    "Preempting",
    "ContainerStatusUnknown",  # the kubelet came back and its containers were gone
)


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended: a `Finish` closes the job, an `Eviction` only the attempt."""

    reason: Finish | Eviction
    message: str
    node: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """What the checks look at."""

    job: Job
    attempt: Attempt
    snapshot: Snapshot
    queues: Queues
    settings: SchedulingSettings


def workers_succeeded(case: Case) -> End | None:
    """All workers of the gang exited with 0."""
    pods = case.attempt.pods
    if not pods or len(pods) < case.attempt.size or not all(pod.phase == "Succeeded" for pod in pods):
        return None
    return End(Finish.SUCCEEDED, "all workers succeeded")


def kubelet_refused(case: Case) -> End | None:
    """A kubelet did not admit a worker: its device plugin was not ready, or it saw other resources than we did."""
    for pod in case.attempt.pods:
        if was_refused(pod):
            said = f"{pod.reason}: {pod.message}" if pod.message else pod.reason
            return _fault(Eviction.REJECTED_BY_NODE, pod, f"node {pod.node} refused {pod.name} ({said})")
    return None


def was_refused(pod: Pod) -> bool:
    """Whether the kubelet did not take the pod that was bound to its node."""
    return is_refusal(pod.phase, pod.reason)


def node_was_lost(case: Case) -> End | None:
    """A worker's node is gone, or Kubernetes has given the worker up together with its node."""
    for pod in case.attempt.pods:
        if pod.phase == "Succeeded":
            continue
        if pod.disrupted or (pod.phase == "Failed" and pod.reason in LOST_WITH_NODE):
            said = f" ({pod.reason})" if pod.reason else ""
            return _fault(Eviction.NODE_FAILURE, pod, f"node {pod.node} lost or drained {pod.name}{said}")
        if pod.bound and pod.node not in case.snapshot.nodes and _is_older(pod, case):
            return _fault(Eviction.NODE_FAILURE, pod, f"node {pod.node} of {pod.name} no longer exists")
    if failed := next((pod for pod in case.attempt.pods if pod.phase == "Failed"), None):
        return _failed_beside_a_dead_node(case, failed)
    return None


def _failed_beside_a_dead_node(case: Case, failed: Pod) -> End | None:
    """Workers crash because a peer's node died, often before the node is noticed: that is no failure of theirs."""
    for pod in case.attempt.pods:
        node = case.snapshot.nodes.get(pod.node)
        if pod.bound and node is not None and not node.ready:
            return _fault(
                Eviction.NODE_FAILURE, pod, f"{failed.name} failed while node {pod.node} of {pod.name} is not ready"
            )
    return None


def pod_was_lost(case: Case) -> End | None:
    """Somebody deleted a worker, or it vanished after the gang had started."""
    for pod in case.attempt.pods:
        if pod.terminating_since is not None and (not pod.is_over or pod.reason == DELETED):
            return _fault(Eviction.POD_LOST, pod, f"pod {pod.name} was deleted while it was needed")
    lost = case.attempt.missing if _had_started(case.job) else ()
    if lost or (_had_started(case.job) and not case.attempt.pods):
        indices = ", ".join(map(str, lost)) or "all"
        return End(Eviction.POD_LOST, f"workers {indices} of attempt {case.attempt.number} vanished")
    return None


def worker_failed(case: Case) -> End | None:
    """A worker exited with an error: the gang restarts as a whole, as often as the job allows."""
    failed = [pod for pod in case.attempt.pods if pod.phase == "Failed"]
    if not failed:
        return None
    first = min(failed, key=lambda pod: (pod.finished_at is None, pod.finished_at, pod.name))
    code = f"exit code {first.exit_code}" if first.exit_code is not None else first.reason or "no exit code"
    message = f"worker {first.name} failed on {first.node} with {code}"
    allowed = case.job.spec.failure_policy.max_restarts
    if case.attempt.restarts < allowed:
        return End(Eviction.WORKER_FAILED, message, first.node, first.exit_code)
    limit = f"; all {allowed} restarts are used" if allowed else "; spec.failurePolicy.maxRestarts is 0"
    return End(Finish.RESTARTS_EXHAUSTED, message + limit, first.node, first.exit_code)


def ran_too_long(case: Case) -> End | None:
    """All attempts together ran for longer than `spec.maxRuntime`, or than its queue allows by default."""
    limit, source = case.job.spec.max_runtime, "spec.maxRuntime"
    if limit is None:
        queue = case.snapshot.queues.get(case.queues.of(case.job))
        limit, source = (queue.spec.default_max_runtime if queue else None), "defaultMaxRuntime of its queue"
    if limit is None:
        return None
    usage = case.job.status.usage
    before = (usage.run_seconds or 0) if usage else 0
    ran = before + case.attempt.run_seconds(case.snapshot.taken_at)
    if ran < limit.seconds:
        return None
    return End(Finish.MAX_RUNTIME, f"ran for {ran:.0f} s; {source} allows {limit}")


def was_suspended(case: Case) -> End | None:
    """The user asks for the GPUs back."""
    if not case.job.spec.suspend or not case.attempt.pods:
        return None
    return End(Eviction.SUSPENDED, "spec.suspend is true")


def outgrew_its_node(case: Case) -> End | None:
    """A worker asks for more than was planned, and its node has not that much."""
    added = case.job.added
    for pod in case.attempt.pods:
        if outgrew(pod, added, case.snapshot):
            message = f"{pod.name} does not fit on {pod.node}: {told(added)}; {pod.unschedulable}"
            return _fault(Eviction.BIND_TIMEOUT, pod, message)
    return None


def could_not_bind(case: Case) -> End | None:
    """kube-scheduler could not bind every worker in time: what we saw as free was not."""
    for pod in case.attempt.pods:
        if pod.bound or pod.is_over or pod.created_at is None:
            continue
        waited = case.snapshot.time_given(pod.created_at)
        if waited >= case.settings.bind_timeout:
            said = why_unbound(pod, case.job)
            return _fault(
                Eviction.BIND_TIMEOUT,
                pod,
                f"{pod.name} was not bound to {pod.node} in {waited.total_seconds():.0f} s: {said}",
            )
    return None


def gang_is_mixed(case: Case) -> End | None:
    """A worker was made by another plan than its lead: the spec was edited, or a write of an old leader came late.

    Names cannot tell them apart, so the gang would run with two sizes or two specs, or outside its topology domain.
    """
    lead = case.attempt.lead
    if lead is None or lead.worker is None or len(lead.worker.placement) != lead.worker.gang_size:
        return None
    ours = (lead.worker.gang_size, lead.worker.generation)
    for pod in case.attempt.pods:
        worker = pod.worker
        if worker is None:
            continue
        if (worker.gang_size, worker.generation) != ours or pod.node != lead.worker.placement[worker.index]:
            return End(Eviction.INCOMPLETE_GANG, f"{pod.name} was created by another plan than {lead.name}")
    return None


def gang_is_incomplete(case: Case) -> End | None:
    """Some workers were refused by the API server, or nobody knows where the rest should go."""
    if not case.attempt.missing:
        return None
    if case.job.create_error:
        return End(Eviction.INCOMPLETE_GANG, f"not all workers could be created: {case.job.create_error}")
    lead = case.attempt.lead
    if lead is None or lead.worker is None or len(lead.worker.placement) != case.attempt.size:
        return End(Eviction.INCOMPLETE_GANG, "the lead worker is missing")
    if lead.worker.generation not in (0, case.job.generation):
        return End(Eviction.INCOMPLETE_GANG, "spec was edited before all workers were created")
    return None


CHECKS: tuple[Callable[[Case], End | None], ...] = (
    workers_succeeded,  # before all others: work that is done is done, whatever happened to its pods since
    kubelet_refused,  # faults of the cluster come before failures: peers crash when a node dies
    node_was_lost,
    pod_was_lost,
    worker_failed,
    ran_too_long,
    was_suspended,
    outgrew_its_node,
    could_not_bind,
    gang_is_mixed,
    gang_is_incomplete,
)


def end_of_attempt(case: Case) -> End | None:
    """How the attempt has ended; None while it goes on or has not begun."""
    if not case.attempt.pods and not _had_started(case.job):
        return None
    return next((end for check in CHECKS if (end := check(case)) is not None), None)


@dataclass(frozen=True, slots=True)
class Standing:
    """One job that can still go on, with its attempt and how that has ended, if it has."""

    job: Job
    attempt: Attempt
    end: End | None


def standings_of(queues: Queues, settings: SchedulingSettings) -> Iterator[Standing]:
    """All jobs that can still go on."""
    snapshot = queues.snapshot
    corpses: dict[tuple[str, str], list[Pod]] = {}
    for pod in snapshot.orphans:
        if pod.worker:
            corpses.setdefault((pod.namespace, pod.worker.job), []).append(pod)
    for job in snapshot.jobs.values():
        if is_over(job) or snapshot.is_going(job):
            continue
        attempt = current_attempt(job, corpses.get(job.key, ()))
        yield Standing(job, attempt, end_of_attempt(Case(job, attempt, snapshot, queues, settings)))


def _had_started(job: Job) -> bool:
    return job.status.phase == "Running"


def _fault(reason: Eviction, pod: Pod, message: str) -> End:
    return End(reason, message, pod.node, pod.exit_code)


def _is_older(pod: Pod, case: Case) -> bool:
    born = pod.created_at
    return born is not None and case.snapshot.taken_at - born >= case.settings.lost_node_grace

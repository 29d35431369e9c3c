"""Who is in the queue, in which order, and who is not and why: everything that can be said before looking for GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from stokehold.model.demand import Match
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Job, Namespace, Pod, PriorityClass, Queue, Snapshot
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.scheduling.attempts import Attempt

CORPSE_AFTER = timedelta(seconds=10)
"""Past the end of its grace period a pod that is still there is not coming down by itself."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A job that waits for its attempt to start."""

    job: Job
    attempt: Attempt
    priority: int
    queue: str


def order(entry: Entry) -> tuple[int, object, str]:
    """Priority first, then age; times are whole seconds, so the name decides between neighbours."""
    return (-entry.priority, entry.job.created_at, "/".join(entry.job.key))


def why_not_queued(job: Job, attempt: Attempt, snapshot: Snapshot) -> Explanation | None:
    """The reason that keeps a waiting job out of the queue; None when it may be placed."""
    if problem := _misconfigured(job, snapshot):
        return problem
    if job.spec.suspend:
        return Explanation(Waiting.SUSPENDED, "spec.suspend is true", "Set spec.suspend to false to queue the job.")
    if holders := [pod for pod in attempt.history if _still_runs(pod, snapshot)]:
        first = min(holders, key=lambda pod: pod.name)
        since = f" since {first.terminating_since:%H:%M:%S} UTC" if first.terminating_since else ""
        return Explanation(
            Waiting.TERMINATING_PODS,
            f"{len(holders)} pods of the attempt before have not gone yet; {first.name} on {first.node}{since}",
            "Nothing to do; should it last, ask the platform team to look at that node.",
        )
    until = job.status.requeue_at
    if until is not None and until > snapshot.taken_at:
        failure = job.status.last_failure
        told = f"{failure.message}; " if failure and failure.message else ""
        return Explanation(
            Waiting.BACKING_OFF,
            f"{told}next attempt at {until:%H:%M:%S} UTC",
            "Nothing to do: it starts again by itself.",
        )
    return None


def queue_of(job: Job, snapshot: Snapshot) -> str:
    """The job's queue: the one it names, else the first that selects its namespace, else the implicit one ("")."""
    if job.spec.queue_name:
        return job.spec.queue_name
    namespace = snapshot.namespaces.get(job.namespace)
    return next((name for name, q in sorted(snapshot.queues.items()) if serves_namespace(q, namespace)), "")


def _still_runs(pod: Pod, snapshot: Snapshot) -> bool:
    """Whether a pod of an earlier attempt may still be at work; a dead node's corpse must not hold its job for ever.

    Like the Job controller we go on once its grace period is over; what it holds stays counted on its node.
    """
    if pod.is_over or (pod.bound and pod.node not in snapshot.nodes):
        return False
    deadline = pod.terminating_since
    return deadline is None or snapshot.taken_at < deadline + CORPSE_AFTER


def serves_namespace(queue: Queue, namespace: Namespace | None) -> bool:
    """Whether the queue's selector takes the namespace; a queue without one takes none."""
    selector = queue.spec.namespaces
    if selector is None or namespace is None:
        return False
    labels = namespace.labels
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        Match(one.key, one.operator, one.values).holds(labels) for one in selector.match_expressions
    )


def priority_of(job: Job, classes: Mapping[str, PriorityClass]) -> int:
    """The job's priority: of its class, else of the cluster's default class, else 0."""
    if job.spec.priority_class_name:
        known = classes.get(job.spec.priority_class_name)
        return known.value if known else 0
    return next((c.value for c in classes.values() if c.is_default), 0)


def _misconfigured(job: Job, snapshot: Snapshot) -> Explanation | None:
    name = job.spec.priority_class_name
    if name and name not in snapshot.priority_classes:
        return _wrong(
            f"PriorityClass {name} does not exist",
            "Name an existing one in spec.priorityClassName (kubectl get priorityclasses), or leave it out.",
        )
    wanted = job.spec.queue_name
    namespace = snapshot.namespaces.get(job.namespace)
    if wanted:
        queue = snapshot.queues.get(wanted)
        if queue is None:
            return _wrong(
                f"GPUQueue {wanted} does not exist",
                "Name an existing one in spec.queueName (kubectl get gq), or leave it out.",
            )
        if not serves_namespace(queue, namespace):
            return _wrong(
                f"GPUQueue {wanted} does not serve namespace {job.namespace}",
                f"Use {_own_queues(namespace, snapshot.queues)}, or ask the platform team to open the queue.",
            )
    elif snapshot.queues and not any(serves_namespace(q, namespace) for q in snapshot.queues.values()):
        return _wrong(
            f"no GPUQueue serves namespace {job.namespace}",
            "Ask the platform team to add the namespace to a queue.",
        )
    return None


def _own_queues(namespace: Namespace | None, queues: Mapping[str, Queue]) -> str:
    own = [name for name, queue in sorted(queues.items()) if serves_namespace(queue, namespace)]
    return f"queue {' or '.join(own)}" if own else "a queue that serves it (there is none)"


def _wrong(message: str, next_step: str) -> Explanation:
    return Explanation(Waiting.MISCONFIGURED, message, next_step)

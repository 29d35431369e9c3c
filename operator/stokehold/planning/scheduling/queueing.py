"""Who is in the queue, in which order, and who is not and why: everything that can be said before looking for GPUs."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from stokehold.model.demand import Demand, Match
from stokehold.model.pods import Pod
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Job, Namespace, Queue, ServingPool, Snapshot, Workspace
from stokehold.model.statuses import Owner
from stokehold.planning.placement.explain import Explanation
from stokehold.planning.placement.refusals import refusal
from stokehold.planning.scheduling import volumes
from stokehold.planning.scheduling.attempts import Attempt
from stokehold.planning.scheduling.settings import SchedulingSettings

CORPSE_AFTER = timedelta(seconds=10)
"""Past the end of its grace period a pod that is still there is not coming down by itself."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod of a serving pool that waits behind our gate for its node."""

    pool: ServingPool
    pod: Pod


@dataclass(frozen=True, slots=True)
class Promised:
    """A replica that its Deployment is about to create: in a rollout, or after a pod was lost.

    Its room is kept, or work of lower priority would take the GPU in the moment between the old pod and the new.
    """

    pool: ServingPool


@dataclass(frozen=True, slots=True)
class Gang:
    """A TrainingJob that waits for its attempt to start."""

    job: Job
    attempt: Attempt


Work = Gang | Workspace | Replica | Promised
"""What may stand in the queue: all are placed by the same ledger."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of work in the queue, and what decides its turn."""

    work: Work
    owner: Owner
    demand: Demand
    since: datetime
    priority: int
    queue: str


def order(entry: Entry) -> tuple[int, object, str]:
    """Priority first, then age; times are whole seconds, so the name decides between neighbours."""
    work = entry.work
    name = work.pod.key if isinstance(work, Replica) else entry.owner.key
    return (-entry.priority, entry.since, "/".join(name))


class Queues:
    """Which queues serve which namespace; each namespace is looked at once, however many jobs it has."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._serving: dict[str, tuple[str, ...]] = {}

    def of(self, owner: Owner) -> str:
        """The queue that it names, else the first that serves its namespace, else the implicit one ("")."""
        if isinstance(owner, Job) and owner.spec.queue_name:
            return owner.spec.queue_name
        return next(iter(self.serving(owner.namespace)), "")

    def serving(self, name: str) -> tuple[str, ...]:
        """The queues that serve the namespace of this name, by name."""
        known = self._serving.get(name)
        if known is None:
            namespace = self.snapshot.namespaces.get(name)
            queues = sorted(self.snapshot.queues.items())
            known = tuple(queue for queue, value in queues if serves_namespace(value, namespace))
            self._serving[name] = known
        return known


def queue_of(owner: Owner, snapshot: Snapshot) -> str:
    """The queue of one object; for many of one snapshot ask one `Queues`."""
    return Queues(snapshot).of(owner)


def why_not_queued(job: Job, attempt: Attempt, queues: Queues, settings: SchedulingSettings) -> Explanation | None:
    """What keeps a waiting job out of the queue, in the order of `reasons.Waiting`; None when it may be placed."""
    return (
        _misconfigured(job, queues)
        or _suspended(job)
        or _backing_off(job, queues.snapshot)
        or creation_refused(job, queues.snapshot, settings)
        or volumes.unusable(job)
        or volumes.apart(job, queues.snapshot)
        or _terminating_pods(job, attempt, queues.snapshot)
    )


def _suspended(job: Job) -> Explanation | None:
    if not job.spec.suspend:
        return None
    return Explanation(Waiting.SUSPENDED, "spec.suspend is true", "Set spec.suspend to false to queue the job.")


def _backing_off(job: Job, snapshot: Snapshot) -> Explanation | None:
    until = job.status.requeue_at
    if until is None or until <= snapshot.taken_at:
        return None
    failure = job.status.last_failure
    told = f"{failure.message}; " if failure and failure.message else ""
    return Explanation(
        Waiting.BACKING_OFF,
        f"{told}next attempt at {until:%H:%M:%S} UTC",
        "Nothing to do: it starts again by itself.",
    )


def creation_refused(owner: Owner, snapshot: Snapshot, settings: SchedulingSettings) -> Explanation | None:
    """The API server did not take what it needs; asking it again in every cycle would change nothing."""
    at = owner.create_failed_at
    if at is None or snapshot.taken_at - at >= settings.refusal_pause(owner.create_failures):
        return None
    return refusal(owner)


def _terminating_pods(job: Job, attempt: Attempt, snapshot: Snapshot) -> Explanation | None:
    held = volumes.on_one_node(job)
    holders = [pod for pod in attempt.history if _is_there(pod, snapshot)]
    if not held:
        holders = [pod for pod in holders if not is_corpse(pod, snapshot.taken_at)]
    if not holders:
        return None
    first = min(holders, key=lambda pod: pod.name)
    due = f", which should be gone by {first.terminating_since:%H:%M:%S} UTC" if first.terminating_since else ""
    keeps = f"; the volume of claim {held} is there until it has gone" if held else ""
    return Explanation(
        Waiting.TERMINATING_PODS,
        f"{len(holders)} pods of the attempt before have not gone yet; {first.name} on {first.node}{due}{keeps}",
        "Nothing to do; should it last, ask the platform team to look at that node.",
    )


def _is_there(pod: Pod, snapshot: Snapshot) -> bool:
    """Whether a pod of an earlier attempt may still be at work, or its volume still where it was.

    A dead node's corpse must not hold its job for ever: like the Job controller we go on once its grace period is over,
    unless a volume that one node alone can have is still with it. What it holds stays counted on its node.
    """
    return not pod.is_over and (not pod.bound or pod.node in snapshot.nodes)


def is_corpse(pod: Pod, now: datetime) -> bool:
    """Whether it should be gone for a while: its kubelet is dead, or somebody holds it by a finalizer."""
    return pod.terminating_since is not None and now >= pod.terminating_since + CORPSE_AFTER


def serves_namespace(queue: Queue, namespace: Namespace | None) -> bool:
    """Whether the queue's selector takes the namespace; a queue without one takes none."""
    selector = queue.spec.namespaces
    if selector is None or namespace is None:
        return False
    labels = namespace.labels
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        Match(one.key, one.operator, one.values).holds(labels) for one in selector.match_expressions
    )


def _misconfigured(job: Job, queues: Queues) -> Explanation | None:
    snapshot, serving = queues.snapshot, queues.serving(job.namespace)
    name = job.spec.priority_class_name
    if name and name not in snapshot.priority_classes:
        return _wrong(
            f"PriorityClass {name} does not exist",
            "Name an existing one in spec.priorityClassName (kubectl get priorityclasses), or leave it out.",
        )
    wanted = job.spec.queue_name
    if not wanted:
        return unserved(job, queues) or _wrong_data(job, queues)
    if wanted not in snapshot.queues:
        return _wrong(
            f"GPUQueue {wanted} does not exist",
            "Name an existing one in spec.queueName (kubectl get gq), or leave it out.",
        )
    if wanted not in serving:
        own = f"queue {' or '.join(serving)}" if serving else "a queue that serves it (there is none)"
        return _wrong(
            f"GPUQueue {wanted} does not serve namespace {job.namespace}",
            f"Use {own}, or ask the platform team to open the queue.",
        )
    return _wrong_data(job, queues)


def _wrong_data(job: Job, queues: Queues) -> Explanation | None:
    """The queue takes only data of certain classes, and the job is not known to have one of them."""
    queue = queues.snapshot.queues.get(queues.of(job))
    given = job.spec.data_class
    if queue is None or not queue.spec.data_classes or given in queue.spec.data_classes:
        return None
    has = f"data class {given}" if given else "jobs without a dataClass"
    return _wrong(
        f"GPUQueue {queue.name} does not take {has}; it takes {', '.join(queue.spec.data_classes)}",
        "Use another queue, or ask the platform team to open this one; dataClass cannot be changed once set."
        if given
        else "Set spec.dataClass to what the data is.",
    )


def unserved(owner: Owner, queues: Queues) -> Explanation | None:
    """There are queues, and none takes work of this namespace."""
    if not queues.snapshot.queues or queues.serving(owner.namespace):
        return None
    return _wrong(
        f"no GPUQueue serves namespace {owner.namespace}",
        "Ask the platform team to add the namespace to a queue.",
    )


def _wrong(message: str, next_step: str) -> Explanation:
    return Explanation(Waiting.MISCONFIGURED, message, next_step)

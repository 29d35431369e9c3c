"""Every reason that Stokehold gives, once: the word for machines, and what it means for people.

Kueue's words where Kueue has one. The reference page in docs/ is generated from this file.
"""

from enum import StrEnum


class Waiting(StrEnum):
    """Why a job has no GPUs yet; `status.queue.reason`. The first that applies, in this order, is given."""

    MISCONFIGURED = "Misconfigured"
    """Something that the job names does not exist or may not be used: queue, priority class."""
    NO_MATCHING_FLAVOR = "NoMatchingFlavor"
    """No node pool can ever host one worker: GPU type, capacity class, data class or node size."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true."""
    BACKING_OFF = "BackingOff"
    """An attempt has ended; the next may start at `status.requeueAt`."""
    CREATION_REFUSED = "CreationRefused"
    """The API server refused the job's pods or Service (a ResourceQuota, a policy): its words are in the message."""
    TERMINATING_PODS = "WaitingForTerminatingPods"
    """Pods of the attempt before have not gone yet; their GPUs are still used."""
    TOPOLOGY_PLACEMENT_FAILED = "TopologyPlacementFailed"
    """Enough is free, but not inside one domain of the required topology level."""
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    """The right nodes exist or could exist, but too little is free on them now."""


class Eviction(StrEnum):
    """Why an attempt ended before its work was done; conditions `Evicted` and `Requeued`, `status.lastFailure`."""

    WORKER_FAILED = "WorkerFailed"
    """A worker exited with an error: the only reason that counts against `failurePolicy.maxRestarts`."""
    NODE_FAILURE = "NodeFailures"
    """A node was lost, not ready for long, or drained."""
    REJECTED_BY_NODE = "RejectedByNode"
    """The kubelet refused a pod (UnexpectedAdmissionError, OutOf...): the device plugin was not ready."""
    POD_LOST = "PodLost"
    """Somebody deleted or evicted a worker's pod."""
    BIND_TIMEOUT = "BindTimeout"
    """kube-scheduler could not bind all workers within the deadline."""
    SUSPENDED = "Suspended"
    """`spec.suspend` was set while the job ran."""
    INCOMPLETE_GANG = "IncompleteGang"
    """Some workers could not be created."""


class Finish(StrEnum):
    """Why a job is over; reason of the condition `Finished`."""

    SUCCEEDED = "Succeeded"
    """All workers of one attempt exited with 0."""
    RESTARTS_EXHAUSTED = "RequeuingLimitExceeded"
    """It failed once more than `failurePolicy.maxRestarts` allows."""
    MAX_RUNTIME = "MaximumExecutionTimeExceeded"
    """It ran longer than `spec.maxRuntime`."""


class Progress(StrEnum):
    """Reasons of conditions that say all is well."""

    ADMITTED = "Admitted"
    """GPUs were chosen and the pods created."""
    STARTED = "Started"
    """All workers run."""
    BACKOFF_FINISHED = "BackoffFinished"
    """The job is in the queue again."""


class Stop(StrEnum):
    """Why a workspace was stopped; `status.stopReason` of a DevWorkspace."""

    IDLE = "Idle"
    """It was idle for `spec.idle.after`, and its owner had been warned."""
    SCHEDULE = "Schedule"
    """`spec.schedule.stop` says so."""
    MAX_LIFETIME = "MaxLifetime"
    """It ran for `spec.maxLifetime`."""
    USER_REQUEST = "UserRequest"
    """Somebody set `spec.running` to false."""


class Idleness(StrEnum):
    """What is known of a workspace's use, and what keeps it from being stopped; reason of its condition `Idle`."""

    IN_USE = "InUse"
    """A signal is active; the message names it."""
    SIGNAL_UNKNOWN = "SignalUnknown"
    """A required signal cannot be told: nothing is stopped, and the idle clock stands still."""
    IDLE_TOO_SHORT = "IdleTooShort"
    """Quiet, but not yet for `spec.idle.after`."""
    COVERAGE_TOO_LOW = "CoverageTooLow"
    """Quiet for long enough, but measured for less than 90 % of that time."""
    MIN_RUNNING = "MinRunning"
    """It has not run for `spec.idle.minRunning` yet."""
    EXEMPT = "Exempt"
    """`spec.idle.exempt` holds."""
    SNOOZED = "Snoozed"
    """Its owner has put the stop off."""
    DRY_RUN = "DryRun"
    """It would be stopped if `spec.idle.mode` were Enforce."""
    MASS_IDLE = "MassIdle"
    """Too many workspaces turned quiet at once: their signals are not trusted."""
    NO_PRESSURE = "NoPressure"
    """Idle, but no waiting work could start on its GPUs (`spec.idle.policy: OnPressure`)."""
    WARNED = "Warned"
    """It will be stopped at `status.stopAt`."""
    NOT_RUNNING = "NotRunning"
    """It has no pod that runs."""

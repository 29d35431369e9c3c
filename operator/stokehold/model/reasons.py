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
    """An attempt has ended, or a workspace's pod did not come up; it may start again at `status.requeueAt`."""
    CREATION_REFUSED = "CreationRefused"
    """The API server refused its pods or Service (a ResourceQuota, a policy): its words are in the message."""
    NAME_TAKEN = "NameTaken"
    """A Service or pod of a name that it needs is somebody else's; what is not ours is never overwritten."""
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    """A volume claim that it names, or the one with a workspace's files, is gone, lost or being deleted (nothing starts
    on an empty one unasked), or no node reaches all of its volumes."""
    TERMINATING_PODS = "WaitingForTerminatingPods"
    """Pods of the attempt before have not gone yet; their GPUs are still used, and volumes that one node alone can have
    are still theirs."""
    TOPOLOGY_PLACEMENT_FAILED = "TopologyPlacementFailed"
    """Enough is free, but not inside one domain of the required topology level."""
    PROVISIONING = "ProvisioningCapacity"
    """Nodes are being bought for the job; it starts when all of them are ready."""
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
    """kube-scheduler could not bind all workers within the deadline, or a worker has outgrown its node."""
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


class Scaling(StrEnum):
    """Why a serving pool has got another number of replicas; `status.decisions[].reason`."""

    CREATED = "Created"
    """The pool is new: it begins with its fewest replicas."""
    LOAD_ROSE = "LoadRose"
    """The load asks for more."""
    LOAD_FELL = "LoadFell"
    """Fewer were enough for the whole of `scaling.scaleDownDelay`."""
    NO_LOAD = "NoLoad"
    """There was certainly no load for the whole of `scaling.scaleDownDelay`: the pool sleeps."""
    CAPPED_BY_MAX = "CappedByMax"
    """The load, or an external autoscaler, asks for more than `replicas.max`."""
    RAISED_TO_MIN = "RaisedToMin"
    """`replicas.min` has been raised."""
    SCHEDULED_FLOOR = "ScheduledFloor"
    """A time in `scaling.schedule` has begun."""
    EXTERNAL_SCALE = "ExternalScale"
    """An external autoscaler has asked for it through the scale subresource."""
    METRICS_MISSING = "MetricsMissing"
    """The load has been unknown for long: as many as were needed lately."""


class Metrics(StrEnum):
    """What is known of a serving pool's load; reason of the condition `MetricsFresh`."""

    FRESH = "Fresh"
    """All that the pool is scaled by was read lately."""
    PARTLY_MISSING = "PartlyMissing"
    """Some replicas gave no metrics; they count as busy."""
    MISSING = "Missing"
    """What the pool is scaled by cannot be read: the number of replicas is held, and may rise."""
    NO_REPLICA_READY = "NoReplicaReady"
    """There is no replica that could be asked."""
    EXTERNAL = "External"
    """An external autoscaler decides; nothing is measured."""


class Serving(StrEnum):
    """Where a serving pool stands; reasons of its other conditions."""

    ENOUGH_READY = "EnoughReplicasReady"
    """At least `replicas.min` replicas are ready."""
    NOT_ENOUGH_READY = "NotEnoughReplicasReady"
    """Fewer than `replicas.min` replicas are ready, or none."""
    ASLEEP = "ScaledToZero"
    """No replica is wanted."""
    PLACED = "Placed"
    """Each replica has its node."""
    GATE_REMOVED = "GateRemoved"
    """Somebody took a replica's scheduling gate off: it runs where the queue has not put it, and is counted there."""
    UNSCHEDULABLE = "Unschedulable"
    """kube-scheduler finds no node for a replica without GPUs."""
    SOLE_WRITER = "SoleWriter"
    """Nobody else writes the Deployment."""
    OTHER_WRITER = "OtherWriter"
    """Somebody else keeps writing the Deployment: it is left as it is for half an hour."""


class Support(StrEnum):
    """Whether all that an object asks for can be done; reason of the condition `Valid`."""

    SUPPORTED = "Supported"
    """All that the spec asks for is built."""
    NOT_SUPPORTED = "NotSupportedYet"
    """The spec asks for something that is not built yet; the message says what happens instead."""
    TIMES_KEPT = "Valid"
    """The schedule and the exemption of a workspace can be kept."""
    INVALID_SCHEDULE = "InvalidSchedule"
    """`spec.schedule` cannot be kept: a time, a zone or the ConfigMap of its holidays is none."""
    EXEMPTION_TOO_LONG = "ExemptionTooLong"
    """`spec.idle.exempt.until` is further ahead than an exemption may last, and does not count."""


class Progress(StrEnum):
    """How far work has come; reasons of `QuotaReserved`, `Admitted`, `PodsReady` and a workspace's `Ready`."""

    NOT_LOOKED_AT = "PendingEvaluation"
    """The operator has not looked at it yet; only the command line and the metrics say so."""
    ADMITTED = "Admitted"
    """GPUs were chosen and the pods created."""
    STARTING = "Starting"
    """It has its GPUs; not all of its pods run yet."""
    STARTED = "Started"
    """All workers run, or a workspace's pod does."""
    RUNNING = "Running"
    """The workspace can be used."""
    STOPS_SOON = "StopsSoon"
    """The workspace can be used; `spec.schedule` or `spec.maxLifetime` stops it soon."""
    TAKEN_BACK = "TakenBack"
    """The workspace's pod did not come up where it was put: its GPUs are for others until it is tried again."""
    WAITING = "Waiting"
    """The job has no GPUs any more and waits for others; `status.queue` says why."""
    ENDED = "Finished"
    """The job has ended and holds nothing any more."""


class Burst(StrEnum):
    """Whether nodes are bought for a waiting job, and why not; reason of the condition `CapacityProvisioned`."""

    PROVISIONED = "Provisioned"
    """All nodes that were bought for the job are ready."""
    REQUESTED = "Requested"
    """Nodes are being bought for the job."""
    NO_MATCHING_POOL = "NoMatchingPool"
    """No pool with a provider has the GPU type and a capacity class that the job allows."""
    DATA_CLASS = "DataClassNotAllowed"
    """The pools of the right type may not hold data of the job's class."""
    TOO_LARGE = "TooLarge"
    """The job does not fit on the nodes that can be bought, or not inside the topology that it requires."""
    CURRENCY = "CurrencyMismatch"
    """The pool's price is in another currency than those of its rivals, and such prices are not compared."""
    LIMIT_REACHED = "LimitReached"
    """Fewer nodes may still be bought than the job needs: `limits.maxNodes`."""
    PROVIDER_FAILING = "ProviderFailing"
    """The provider failed of late; it is asked again later."""
    COVERED = "Covered"
    """The job will fit on what is free or coming, beside others: nothing is bought for it."""
    BELOW_TRIGGER = "BelowTrigger"
    """Too few GPUs are waited for, and not for long enough yet."""


class ClaimFailure(StrEnum):
    """Why a node could not be had; `status.lastFailure` of a GPUNodeClaim and `status.offerings` of its pool."""

    CAPACITY = "Capacity"
    """The provider has no such machine now."""
    QUOTA = "Quota"
    """The account may not have more."""
    CONFIG = "Config"
    """The provider did not understand what it was asked for."""
    AUTH = "Auth"
    """The provider does not accept our credentials."""
    TIMEOUT = "Timeout"
    """The node was not ready within `readyWithin`."""
    GPU_MISSING = "GpuMissing"
    """The node joined, but without its GPUs."""
    UNFIT = "Unfit"
    """All nodes came, and the job did not fit on them: `nodeShape` promises more than they have."""
    GONE = "Gone"
    """The machine vanished at the provider."""


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
    """Too many workspaces turned quiet, or came back into sight, at once: their signals are not trusted."""
    NO_PRESSURE = "NoPressure"
    """Idle, but no waiting work could start on its GPUs (`spec.idle.policy: OnPressure`)."""
    WARNED = "Warned"
    """It will be stopped at `status.stopAt`."""
    NOT_RUNNING = "NotRunning"
    """It has no pod that runs."""


class Nodes(StrEnum):
    """What is known of a pool's nodes; reasons of the conditions `Ready` and `DevicesReady` of a GPUNodePool."""

    READY = "NodesReady"
    """At least one node can take new work."""
    NONE = "NoNodes"
    """No node can take new work."""
    DEVICES_LOST = "DevicesLost"
    """Nodes offer fewer GPUs than they did; `status.gpusMissingOn` names them."""
    DEVICES_THERE = "AllThere"
    """No node has lost GPUs."""


class Claim(StrEnum):
    """How a bought node stands; reasons of the conditions of a GPUNodeClaim, beside those of `ClaimFailure`."""

    LAUNCHED = "Launched"
    """The provider has a machine for it."""
    REGISTERED = "Registered"
    """Its node has joined the cluster."""
    GPUS_READY = "GpusReady"
    """Its node is Ready and offers all its GPUs."""
    IN_USE = "InUse"
    """The pod that the message names is on it."""
    EMPTY = "Empty"
    """Nobody is on it."""
    DRAINING = "Draining"
    """It is closed for new work, and given back if nobody is found on it."""
    RELEASED = "Released"
    """The machine was given back."""
    POOL_MISSING = "PoolMissing"
    """Its GPUNodePool does not exist any more, so nobody knows whom to give the machine back to."""
    POOL_FOUND = "PoolFound"
    """Its GPUNodePool is there again."""


class Sight(StrEnum):
    """What the node agent sees; reasons of a GPUNode's conditions and of `status.gpus[].health`, where the recovery
    action that a driver asks for (`GpuReset`, `NodeReboot` ...) stands too."""

    NVML_ANSWERS = "NVMLAnswers"
    """The driver answers."""
    NVML_SILENT = "NVMLDoesNotAnswer"
    """The driver does not answer, or is not loaded: all GPUs of the node are unknown."""
    KUBELET_ANSWERS = "KubeletAnswers"
    """The kubelet says to whom each GPU belongs."""
    KUBELET_SILENT = "KubeletDoesNotAnswer"
    """The kubelet does not say to whom the GPUs belong: none of them is ever quiet meanwhile."""
    UNKNOWN_DEVICES = "UnknownDevices"
    """The kubelet names devices that fit no GPU that the driver lists."""
    NO_FAULT = "NoFault"
    """The driver reports no fault."""
    NOT_SEEN = "NotSeen"
    """The GPU was not seen in the last look, or the driver lists none."""
    NO_ANSWER = "NoAnswer"
    """The GPU answers with errors: nobody can tell whether it is fit."""
    LOST = "GpuIsLost"
    """The GPU has fallen off the bus."""
    ROWS_FAILED = "RowRemapFailed"
    """Memory rows could not be remapped: have the GPU replaced."""
    ROWS_PENDING = "RowRemapPending"
    """A remapped memory row waits for a reset of the GPU."""


class Event(StrEnum):
    """What only an Event tells; every other Event bears the reason of the status or condition that it tells of."""

    CAPACITY_REQUESTED = "CapacityRequested"
    """Nodes are being bought for the job."""
    PROVIDER_FAILED = "ProviderFailed"
    """A pool's provider failed; the message says when it is asked again."""
    IDLE_WARNING = "IdleWarning"
    """The workspace is idle and will be stopped; use it or snooze it."""
    NOT_STOPPED = "NotStopped"
    """The workspace is idle, or seems so, and the message says why it is not stopped."""
    STOPPED = "Stopped"
    """The operator has stopped the workspace; the message says why."""
    SNOOZE_REFUSED = "SnoozeRefused"
    """The annotation `stokehold.dev/snooze` was not granted; the message says why."""
    VOLUME_NOT_GROWN = "VolumeNotGrown"
    """The storage refuses the larger `spec.storage.size`."""
    FOREIGN_GPU_USER = "ForeignGpuUser"
    """On a GPUNode: somebody uses a GPU without having been given it."""
    STILL_TERMINATING = "StillTerminating"
    """On a pod: it should be gone for a while, and still holds what it requests."""
    NOT_OF_THE_QUEUE = "NotOfTheQueue"
    """On a pod: it has the labels of a worker, and no TrainingJob has made it."""
    UNREADABLE = "Unreadable"
    """This version of the operator cannot read the object and leaves it and its pods as they are."""
    SERVICE_TAKEN_AWAY = "ServiceTakenAway"
    """Somebody deletes the Service of work that runs, or its label, again and again: it comes back later each time."""
    WRITE_REFUSED = "WriteRefused"
    """The API server refuses what the operator writes for the object."""

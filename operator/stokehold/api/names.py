"""The names that we put on objects in the cluster: group, labels, annotations, finalizer. No logic."""

GROUP = "stokehold.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "stokehold"

# Keys with this prefix are ours alone: no user's pod template may set them.
KEY_PREFIX = f"{GROUP}/"

# On each pod until its outcome has been recorded, so that no result is lost to garbage collection.
TRACKING_FINALIZER = f"{KEY_PREFIX}tracking"

# On a TrainingJob that has ended: the proof that it never runs again, whatever happens to its status.
FINISHED_ANNOTATION = f"{KEY_PREFIX}finished"

# On a DevWorkspace: until when its user wants it left alone; and the record of the operator's last stop.
SNOOZE_ANNOTATION = f"{KEY_PREFIX}snooze"
STOPPED_ANNOTATION = f"{KEY_PREFIX}stopped"
# On a DevWorkspace whose volume claim is gone: the claim's name says that an empty one will do.
FRESH_VOLUME_ANNOTATION = f"{KEY_PREFIX}fresh-volume"

# On ConfigMaps whose keys are days off; no others are read.
HOLIDAYS_LABEL = f"{KEY_PREFIX}holidays"

JOB_LABEL = f"{KEY_PREFIX}job"
ATTEMPT_LABEL = f"{KEY_PREFIX}attempt"
INDEX_LABEL = f"{KEY_PREFIX}index"
WORKSPACE_LABEL = f"{KEY_PREFIX}workspace"
SERVING_LABEL = f"{KEY_PREFIX}inference-pool"
MANAGED_BY = {"app.kubernetes.io/managed-by": "stokehold"}

# On nodes that were bought, for as long as they live; only the operator may tolerate it.
BURST_TAINT = f"{KEY_PREFIX}burst"
# On the same nodes: the GPUNodeClaim that they belong to.
CLAIM_LABEL = f"{KEY_PREFIX}claim"
# On each GPUNodeClaim until its machine is known to be gone.
RELEASE_FINALIZER = f"{KEY_PREFIX}release"

# In the pod templates of Deployments; lifted when the ledger has chosen a node.
PLACEMENT_GATE = f"{KEY_PREFIX}placement"

# The container of a pod that runs the user's image.
MAIN_CONTAINER = "main"

# Longer names are refused. Names of child objects are shortened and hashed, so this limit is ours to choose.
NAME_MAX_LENGTH = 200

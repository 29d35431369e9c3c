"""Annotations that only this operator writes and reads on its pods; the labels are part of the API (api/names)."""

import msgspec

from stokehold.api.names import KEY_PREFIX

GANG = f"{KEY_PREFIX}gang"
"""The gang that a worker belongs to, as JSON. One annotation, not six: each one makes each write of the pod dearer."""
JOB_NAME = f"{KEY_PREFIX}job-name"
"""The job's whole name, where it is too long for the label."""
TERM = f"{KEY_PREFIX}term"
"""On all that we create, and where we change a spec: how often the leadership had changed hands when it was written."""
TEMPLATE = f"{KEY_PREFIX}template"
"""On a StatefulSet or Deployment: the digest of the spec that its pods were made from."""
GPU_RESOURCE = f"{KEY_PREFIX}gpu-resource"
"""On a Deployment: the name under which its pods ask for GPUs."""
WANTED_BY = f"{KEY_PREFIX}wanted-by"
"""On a workspace's StatefulSet: the generation of the workspace that wanted it to run when we looked last."""
GPU_COUNT = f"{KEY_PREFIX}gpus"
"""On a StatefulSet: how many GPUs its pod has been given."""
WRITTEN_REPLICAS = f"{KEY_PREFIX}replicas"
"""On a Deployment: the number of replicas that we wrote, which tells ours from somebody else's."""
UNDONE_AT = f"{KEY_PREFIX}undone-at"
"""On a Deployment: when we last undid what others wrote there, latest last, with spaces between."""
REFUSED_BY = f"{KEY_PREFIX}refused-by"
"""On a workspace's StatefulSet: the kubelets that did not take its pod of late, as NODE=TIME, latest last, with spaces
between."""
CLOSED = f"{KEY_PREFIX}closed"
"""On a node that was bought: that it is closed because we closed it."""
PROVIDER = f"{KEY_PREFIX}provider"
"""On a claim: spec.provider of its pool when the claim was made, as JSON; the pool may be gone before the node is."""
PLACED_AT = f"{KEY_PREFIX}placed-at"
"""On the pod of a replica: when it got its node."""


class Gang(msgspec.Struct, rename="camel", omit_defaults=True):
    """The value of the annotation GANG."""

    size: int
    restarts: int = 0
    pool: str = ""
    gpu_type: str = ""
    capacity: str = ""
    nodes: tuple[str, ...] = ()
    """The node of each index, on the lead worker alone."""
    generation: int = 0
    """The generation of the job's spec that the worker was made from."""

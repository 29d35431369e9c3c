"""What of a workspace's spec its pod is made of: a change to anything else counts at once. Pure."""

import json
from hashlib import sha256

from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceSpec

WORKSPACE_FIELDS = (
    "image",
    "command",
    "args",
    "env",
    "env_from",
    "volumes",
    "volume_mounts",
    "port",
    "gpus",
    "gpu_types",
    "resources",
    "pod_template",
)


def workspace_digest(spec: DevWorkspaceSpec) -> str:
    """The same for two specs whose pods are the same; a volume that grows makes no other pod."""
    mount = spec.storage.mount_path if spec.storage is not None else ""
    parts = [spec.model_dump(mode="json", include=set(WORKSPACE_FIELDS), exclude_defaults=True), mount]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

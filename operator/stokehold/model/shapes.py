"""What of a spec the pods are made of, and a digest that tells when that has changed. Pure."""

import json
from hashlib import sha256

from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceSpec

POD_FIELDS = (
    "image",
    "command",
    "args",
    "env",
    "env_from",
    "volumes",
    "volume_mounts",
    "port",
    "resources",
    "pod_template",
)
"""What workspaces and serving pools have in common; the rest of their specs counts at once, or not at all."""
WORKSPACE_FIELDS = (*POD_FIELDS, "gpus", "gpu_types")


def digest(parts: object) -> str:
    """Sixteen hexadecimal digits, the same for equal plain values."""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def workspace_digest(spec: DevWorkspaceSpec) -> str:
    """The same for two specs whose pods are the same; a volume that grows makes no other pod."""
    mount = spec.storage.mount_path if spec.storage is not None else ""
    return digest([spec.model_dump(mode="json", include=set(WORKSPACE_FIELDS), exclude_defaults=True), mount])

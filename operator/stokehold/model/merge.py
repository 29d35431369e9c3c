"""The strategic merge of a pod template over the pod that the operator would make.

Follows kubectl's rules for the lists of a pod: entries with the same key are merged, others are added; lists
without a merge key are replaced; null removes.
"""

from collections.abc import Mapping
from typing import Any

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}

APPENDED = frozenset({"tolerations"})
"""No merge key upstream, so kubectl would replace the list; ours would lose the GPU tolerations then."""


def strategic_merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A new dict: `patch` laid over `base`; neither is changed."""
    merged = dict(base)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = strategic_merge(merged[name], value)
        elif isinstance(value, list) and isinstance(merged.get(name), list):
            merged[name] = _merge_lists(name, merged[name], value)
        else:
            merged[name] = value
    return merged


def _merge_lists(name: str, base: list[Any], patch: list[Any]) -> list[Any]:
    if name in APPENDED:
        return [*base, *(item for item in patch if item not in base)]
    key = MERGE_KEYS.get(name)
    if key is None or not all(isinstance(item, Mapping) and key in item for item in (*base, *patch)):
        return patch
    merged = {item[key]: item for item in base}
    for item in patch:
        merged[item[key]] = strategic_merge(merged.get(item[key], {}), item)
    return list(merged.values())

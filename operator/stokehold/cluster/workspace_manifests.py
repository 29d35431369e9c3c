"""Pure builders of what a DevWorkspace owns: the volume with its files, its Service, its StatefulSet."""

from typing import Any

from stokehold.api.names import MANAGED_BY, WORKSPACE_LABEL
from stokehold.cluster.annotations import GPU_COUNT, TEMPLATE, WANTED_BY
from stokehold.cluster.manifests import (
    Manifest,
    add_shared_memory,
    give_gpus,
    main_container,
    owner_reference,
    pin,
)
from stokehold.model import names
from stokehold.model.actions import Placement
from stokehold.model.demand import shaped_pod
from stokehold.model.merge import strategic_merge
from stokehold.model.shapes import workspace_digest
from stokehold.model.snapshot import Workspace

HOME = "stokehold-home"


def volume_claim(workspace: Workspace) -> Manifest | None:
    """The claim for its files; None when it keeps none. It goes only with the workspace itself."""
    storage = workspace.spec.storage
    if storage is None:
        return None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name:
        spec["storageClassName"] = storage.storage_class_name
    metadata = _metadata(workspace, names.volume_claim_name(workspace.name))
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def service(workspace: Workspace) -> Manifest:
    """The address of the workspace; it stays the same over stops."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(workspace, names.workspace_name(workspace.name)),
        "spec": {
            "selector": {WORKSPACE_LABEL: names.label_value(workspace.name)},
            "ports": [{"name": "http", "port": workspace.spec.port}],
        },
    }


def stateful_set(workspace: Workspace, placement: Placement) -> Manifest:
    """One replica, on the node chosen for it. A stop sets the replicas to 0 and leaves all else."""
    template = _template(workspace, placement)
    metadata = _metadata(workspace, names.workspace_name(workspace.name))
    metadata["annotations"] = {
        TEMPLATE: workspace_digest(workspace.spec),
        GPU_COUNT: str(workspace.spec.gpus),
        WANTED_BY: str(workspace.generation),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "serviceName": names.workspace_name(workspace.name),
            "selector": {"matchLabels": {WORKSPACE_LABEL: names.label_value(workspace.name)}},
            "podManagementPolicy": "Parallel",
            "template": template,
        },
    }


def pod(workspace: Workspace, placement: Placement) -> Manifest:
    """The pod that its StatefulSet's controller will create there, as far as a quota or a policy looks at it."""
    template = _template(workspace, placement)
    metadata = {"generateName": f"{names.workspace_name(workspace.name)}-", "namespace": workspace.namespace}
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], **metadata}}


def _template(workspace: Workspace, placement: Placement) -> Manifest:
    shaped = shaped_pod(workspace.spec, workspace.spec.gpus, "Always")
    spec = shaped["spec"]
    give_gpus(spec, workspace.spec.gpus, placement.gpu_resource)
    add_shared_memory(spec)
    if (storage := workspace.spec.storage) is not None:
        main_container(spec).setdefault("volumeMounts", []).append({"name": HOME, "mountPath": storage.mount_path})
        claim = {"claimName": names.volume_claim_name(workspace.name)}
        spec.setdefault("volumes", []).append({"name": HOME, "persistentVolumeClaim": claim})
    pin(spec, placement.nodes[0])
    spec.setdefault("enableServiceLinks", False)
    return {"metadata": strategic_merge(shaped["metadata"], {"labels": _labels(workspace)}), "spec": spec}


def _metadata(workspace: Workspace, name: str) -> Manifest:
    return {
        "name": name,
        "namespace": workspace.namespace,
        "labels": _labels(workspace),
        "ownerReferences": [owner_reference(workspace)],
    }


def _labels(workspace: Workspace) -> dict[str, str]:
    return {WORKSPACE_LABEL: names.label_value(workspace.name), **MANAGED_BY}

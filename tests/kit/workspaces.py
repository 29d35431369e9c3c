"""DevWorkspaces and what agents see of them, as values; and what the API server would make of a plan."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from builders import GPU, NOW, a_node, a_snapshot
from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceSpec, DevWorkspaceStatus
from stokehold.api.v1alpha1.gpu_node import GPUNodeStatus
from stokehold.model.actions import Action, EndWorkspace, ResumeWorkspace, StopWorkspace, WriteStatus
from stokehold.model.demand import workspace_demand
from stokehold.model.pods import Pod, PodSet
from stokehold.model.snapshot import Sighting, Snapshot, Workspace

ENFORCED = {"mode": "Enforce", "policy": "Always", "after": "1h", "warnBefore": "10m", "minRunning": "0s"}
FIELDS = ("annotations", "stop_record", "generation", "deleting", "pod_set", "pods", "created_at", "namespace")


def a_workspace(
    name: str = "ada", *, node: str = "n1", status: Mapping[str, Any] | None = None, **rest: Any
) -> Workspace:
    """One that runs with one GPU on n1, ready; idle stops are enforced after 1h. camelCase keywords go to the spec."""
    fields = {field: rest.pop(field) for field in FIELDS if field in rest}
    idle = {**ENFORCED, **rest.pop("idle", {})}
    spec = DevWorkspaceSpec.model_validate({"image": "x", "idle": idle, **rest})
    made = Workspace(
        **{
            "namespace": "team-a",
            "name": name,
            "uid": f"uid-{name}",
            "resource_version": "1",
            "generation": 1,
            "created_at": NOW - timedelta(days=1),
            "spec": spec,
            "status": DevWorkspaceStatus.model_validate(status or {}),
            "demand": workspace_demand(spec),
            **{k: v for k, v in fields.items() if k not in ("pod_set", "pods")},
        }
    )
    pod_set = fields.get(
        "pod_set", PodSet("team-a", name, f"set-{name}", "1", made.uid, 1, 1, node=node, wanted_by=made.generation)
    )
    return replace(made, pod_set=pod_set, pods=fields.get("pods", (its_pod(made, node),)))


def its_pod(workspace: Workspace, node: str = "n1", **fields: Any) -> Pod:
    """The pod of its StatefulSet, bound and ready."""
    return Pod(
        **{
            "namespace": workspace.namespace,
            "name": f"{workspace.name}-0",
            "uid": f"pod-{workspace.name}",
            "phase": "Running",
            "requests": {GPU: workspace.spec.gpus, "pods": 1},
            "node": node,
            "bound": True,
            "ready": True,
            "created_at": workspace.created_at,
            **fields,
        }
    )


def a_gpu(
    owner: str = "ada", state: str = "Quiet", *, since: datetime, last_active: datetime | None = None, **fields: Any
) -> dict[str, Any]:
    """A GPU as an agent writes it, given to a workspace's pod."""
    activity = {"state": state, "since": since, "evidence": "0% utilisation", "lastActiveTime": last_active}
    return {
        "uuid": f"GPU-{owner}-{fields.pop('number', 0)}",
        "activity": {key: value for key, value in activity.items() if value is not None},
        "health": {"state": "Healthy"},
        "owners": [{"namespace": "team-a", "pod": f"{owner}-0", "podUID": f"pod-{owner}", "container": "main"}],
        **fields,
    }


def a_sighting(*gpus: dict[str, Any], heard: datetime, node: str = "n1", owners_known: bool = True) -> Sighting:
    """A GPUNode with these GPUs."""
    known = "True" if owners_known else "False"
    status = {"heartbeatTime": heard, "conditions": [{"type": "OwnersKnown", "status": known}], "gpus": list(gpus)}
    return Sighting(
        name=node,
        uid=f"uid-{node}",
        resource_version="1",
        generation=1,
        created_at=NOW,
        status=GPUNodeStatus.model_validate(status),
    )


def workspaces_at(now: datetime, workspaces: Iterable[Workspace], *sightings: Sighting, **fields: Any) -> Snapshot:
    """The cluster at `now`."""
    workspaces = list(workspaces)
    used: dict[str, dict[str, int]] = fields.pop("used", {})
    for workspace in workspaces:
        for pod in workspace.pods:
            mine = used.setdefault(pod.node, {})
            for name, amount in pod.requests.items():
                mine[name] = mine.get(name, 0) + amount
    nodes = fields.pop("nodes", [a_node("n1")])
    return a_snapshot(
        nodes,
        fields.pop("jobs", ()),
        used,
        taken_at=now,
        workspaces={w.key: w for w in workspaces},
        sightings={s.name: s for s in sightings},
        **fields,
    )


def carried_out(workspaces: Iterable[Workspace], actions: Iterable[Action]) -> list[Workspace]:
    """The workspaces after a plan: statuses written, switches thrown, pods gone."""
    found = {w.key: w for w in workspaces}
    for action in actions:
        match action:
            case WriteStatus(subject=Workspace() as subject):
                status = DevWorkspaceStatus.model_validate(action.status)
                found[subject.key] = replace(found[subject.key], status=status)
            case EndWorkspace():
                found[action.workspace.key] = _switched(found[action.workspace.key], False, stop_record=action.record)
            case ResumeWorkspace():
                found[action.workspace.key] = _switched(found[action.workspace.key], True)
            case StopWorkspace():
                old = found[action.workspace.key]
                assert old.pod_set is not None
                status = DevWorkspaceStatus.model_validate(action.status) if action.status is not None else old.status
                stopped = replace(old.pod_set, replicas=action.left, node="")
                found[old.key] = replace(old, status=status, pod_set=stopped, pods=())
            case _:
                raise AssertionError(f"no such action is expected here: {action}")
    return list(found.values())


def resumed(workspace: Workspace) -> Workspace:
    """Its owner has set spec.running to true, and it has been placed on n1 again."""
    on = _switched(workspace, True)
    assert on.pod_set is not None
    return replace(on, pod_set=replace(on.pod_set, replicas=1, node="n1", wanted_by=on.generation), pods=(its_pod(on),))


def _switched(workspace: Workspace, running: bool, **fields: Any) -> Workspace:
    spec = workspace.spec.model_copy(update={"running": running})
    return replace(workspace, spec=spec, generation=workspace.generation + 1, **fields)

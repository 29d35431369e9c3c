"""A notebook falls idle: it is warned, stopped with its files kept, and resumed; what is unknown stops nothing."""

from typing import Any

from hack.demo.stage import NAMESPACE, Stage, expect

NAME = "ada"
SILENCE_SECONDS = 15
"""Longer than spec.idle.after: one that counted silence as idleness would have stopped it."""


def workspace_is_in_use(stage: Stage) -> str:
    """A data scientist opens a workspace; the agent on its node sees the GPU at work."""
    stage.open_namespace()
    stage.cluster.kubectl("-n", NAMESPACE, "delete", "tj", "--all")
    stage.apply("ada.yaml")
    stage.wait("ada's pod runs", lambda: _condition(stage, "Ready").get("status") == "True", 40)
    _start_agent(stage)
    stage.wait("the GPU seen at work", lambda: _condition(stage).get("reason") == "InUse", 30)
    return str(_condition(stage)["message"])


def quiet_workspace_is_warned(stage: Stage) -> str:
    """Its GPU falls quiet, and a gang waits for it: the owner is warned, with the time of the stop."""
    stage.agent.set_utilization(0)
    stage.apply("night-run.yaml")
    stage.wait("a reason to wait", lambda: stage.status("night-run").get("queue"))
    waits = stage.status("night-run")["queue"]["message"]
    stage.wait("a warning", lambda: _status(stage).get("phase") == "Warned", 40)
    return f"night-run waits: {waits}; ada stops at {_status(stage)['stopAt']}"


def stopped_workspace_gives_its_gpu_and_keeps_its_files(stage: Stage) -> str:
    """It is stopped, its volume stays, and the gang that waited takes the GPU."""
    before = _volume(stage)
    stage.wait("ada stopped", lambda: _status(stage).get("phase") == "Stopped", 40)
    stage.wait_phase("night-run", "Running", 30)
    expect(_status(stage)["stopReason"] == "Idle", f"the reason is {_status(stage)['stopReason']}")
    expect(_volume(stage) == before, "the volume is another one")
    return f"the volume {before} is kept"


def resumed_workspace_finds_its_files(stage: Stage) -> str:
    """Its owner resumes it; once the gang has ended it runs again, on the same volume."""
    before = _volume(stage)
    stage.stokehold("resume", NAME)
    stage.agent.set_utilization(80)
    stage.wait_phase("night-run", "Succeeded", 60)
    stage.wait("ada runs again", lambda: _condition(stage, "Ready").get("status") == "True", 40)
    expect(_volume(stage) == before, "the volume is another one")
    return f"on {_status(stage)['placement']['node']}, {_status(stage)['usage']['reclaimedGpuSeconds']} GPU-seconds won"


def silent_agent_stops_nothing(stage: Stage) -> str:
    """The GPU falls quiet, and then the agent falls silent: nothing is stopped, and the status says why."""
    _start_agent(stage)
    stage.agent.set_utilization(0)
    stage.wait("ada seen quiet", lambda: _status(stage).get("phase") == "Quiet", 30)
    stage.agent.fall_silent()
    stage.wait("the silence noticed", lambda: _condition(stage).get("reason") == "SignalUnknown", 30)
    stage.hold("ada runs", lambda: _status(stage).get("phase") == "Active", SILENCE_SECONDS)
    return str(_condition(stage)["message"])


def _start_agent(stage: Stage) -> None:
    (pod,) = (pod for pod in stage.pods() if pod["metadata"]["labels"].get("stokehold.dev/workspace") == NAME)
    meta = pod["metadata"]
    stage.agent.fall_silent()
    stage.agent.start(stage.cluster, pod["spec"]["nodeName"], NAMESPACE, meta["name"], meta["uid"])


def _status(stage: Stage) -> dict[str, Any]:
    return next((w.get("status", {}) for w in stage.workspaces() if w["metadata"]["name"] == NAME), {})


def _condition(stage: Stage, kind: str = "Idle") -> dict[str, Any]:
    return next((c for c in _status(stage).get("conditions", ()) if c["type"] == kind), {})


def _volume(stage: Stage) -> str:
    return stage.cluster.kubectl("-n", NAMESPACE, "get", "pvc", f"{NAME}-home", "-o", "jsonpath={.spec.volumeName}")


SCENARIO = (
    workspace_is_in_use,
    quiet_workspace_is_warned,
    stopped_workspace_gives_its_gpu_and_keeps_its_files,
    resumed_workspace_finds_its_files,
    silent_agent_stops_nothing,
)

"""What the simulated kubelet does with pods and nodes, as kwok Stages.

One jq expression names the next step of a pod, so that exactly one stage matches: with two, kwok
would throw a die. Delays count from moments written in the pod, so that an unrelated update of
the pod does not start them again. README.md beside this file lists the annotations.
"""

from typing import Any

import yaml

PREFIX = "sim.stokehold.dev"
# The condition whose message keeps the start in milliseconds: Kubernetes' own times are whole seconds.
STARTED = f"{PREFIX}/Started"

_DEFINITIONS = f"""
def note($name): (.metadata.annotations // {{}})["{PREFIX}/" + $name];
def condition($type): [(.status.conditions // [])[] | select(.type == $type)][0];
def seconds: if endswith("ms") then (rtrimstr("ms") | tonumber) / 1000
  elif endswith("s") then rtrimstr("s") | tonumber
  elif endswith("m") then (rtrimstr("m") | tonumber) * 60
  elif endswith("h") then (rtrimstr("h") | tonumber) * 3600
  else tonumber end;
def duration($name; $default): (note($name) // $default) | seconds;
def started: (condition("{STARTED}").message | tonumber) / 1000;
def until($moment): (($moment - now) * 1000 | ceil | if . < 0 then 0 else . end | tostring) + "ms";
def is_finished: .status.phase == "Succeeded" or .status.phase == "Failed";
def exit_code: note("exit-code") // "0";
def restarts: note("fail-reason") == null and (.spec.restartPolicy == "Always"
  or (.spec.restartPolicy == "OnFailure" and exit_code != "0"));
"""

_NEXT_STEP = (
    _DEFINITIONS
    + """
if .metadata.deletionTimestamp != null then
  if .metadata.deletionGracePeriodSeconds == 0 and is_finished then "" else "stop" end
elif is_finished then ""
elif condition("sim.stokehold.dev/Started") == null then
  if note("fail-reason") != null and note("run-for") == null then "reject" else "start" end
elif condition("Ready").status != "True" and note("ready-after") != null then "become-ready"
elif note("run-for") == null then ""
elif restarts then "restart"
elif exit_code != "0" or note("fail-reason") != null then "fail"
else "succeed" end
"""
)

_AFTER_BIND = 'until((condition("PodScheduled").lastTransitionTime | fromdate) + duration("start-after"; "0s"))'
_AFTER_START = 'until(started + duration("ready-after"; "0s"))'
_AFTER_RUN = 'until(started + duration("run-for"; "0s"))'
# Never faster than once a second, or a `run-for: 0s` would spin.
_BEFORE_RESTART = 'until(started + ([duration("run-for"; "0s"), 1] | max))'
# deletionTimestamp is the end of the grace period, cut to a whole second: one more is never early.
_AFTER_DELETION = """
if is_finished or condition("sim.stokehold.dev/Started") == null then "0ms"
elif note("ignores-sigterm") == "true" then until((.metadata.deletionTimestamp | fromdate) + 1)
else [duration("stops-after"; "0s"), .metadata.deletionGracePeriodSeconds // 0] | min
  | . * 1000 | floor | tostring + "ms" end
"""

_PREAMBLE = """
{{- $now := Now -}}
{{- $pod := . -}}
{{- $notes := or .metadata.annotations dict -}}
"""

_CONDITIONS = """
conditions:
{{- range $type := list "Initialized" "PodReadyToStartContainers" }}
- {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{- end }}
{{- range $type := list "Ready" "ContainersReady" }}
- {type: {{ $type }}, status: "READY", reason: "REASON", lastTransitionTime: {{ $now | Quote }}}
{{- end }}
"""

_STARTED_CONDITION = f"""
- type: {STARTED}
  status: "True"
  lastTransitionTime: {{{{ $now | Quote }}}}
  message: {{{{ now.UnixMilli | toString | Quote }}}}
"""

_ADDRESSES = """
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
{{- $meta := .metadata }}
{{- $ip := PodIPWith .spec.nodeName (or .spec.hostNetwork false) $meta.uid $meta.name $meta.namespace }}
podIP: {{ $ip | Quote }}
podIPs: [{ip: {{ $ip | Quote }}}]
startTime: {{ $now | Quote }}
"""

_INIT_CONTAINERS = """
{{- if .spec.initContainers }}
initContainerStatuses:
{{- range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
  ready: true
  {{- if eq (or .restartPolicy "") "Always" }}
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
  {{- else }}
  started: false
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
  {{- end }}
{{- end }}
{{- end }}
"""

_RUNNING = """
containerStatuses:
{{- range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
  ready: IS_READY
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
{{- end }}
"""

_BECOME_READY = """
containerStatuses:
{{- range (or .status.containerStatuses list) }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: {{ .restartCount }}
  ready: true
  started: true
  state: {running: {startedAt: {{ .state.running.startedAt | Quote }}}}
{{- end }}
"""

_EXIT = """
{{- $code := index $notes "sim.stokehold.dev/exit-code" | default "DEFAULT_CODE" -}}
{{- $normal := ternary "Completed" "Error" (eq $code "0") -}}
{{- $reason := index $notes "sim.stokehold.dev/exit-reason" | default $normal -}}
"""

_TERMINATED = """
containerStatuses:
{{- range (or .status.containerStatuses list) }}
{{- $started := $now }}
{{- with .state.running }}{{ $started = .startedAt }}{{ end }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: {{ .restartCount }}
  ready: false
  started: false
  state:
    terminated:
      exitCode: {{ $code }}
      reason: {{ $reason | Quote }}
      startedAt: {{ $started | Quote }}
      finishedAt: {{ $now | Quote }}
{{- end }}
"""

_RESTARTED = """
containerStatuses:
{{- range (or .status.containerStatuses list) }}
{{- $started := $now }}
{{- with .state.running }}{{ $started = .startedAt }}{{ end }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: {{ add .restartCount 1 }}
  ready: true
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
  lastState:
    terminated:
      exitCode: {{ $code }}
      reason: {{ $reason | Quote }}
      startedAt: {{ $started | Quote }}
      finishedAt: {{ $now | Quote }}
{{- end }}
"""

_POD_REASON = """
{{- with index $notes "sim.stokehold.dev/fail-reason" }}
reason: {{ . | Quote }}
message: "simulated: {{ . }}"
{{- end }}
"""

_STOP_CODE = """
{{- $default := ternary "137" "143" (eq (index $notes "sim.stokehold.dev/ignores-sigterm" | default "") "true") -}}
{{- $code := index $notes "sim.stokehold.dev/sigterm-exit-code" | default $default -}}
{{- $reason := ternary "Completed" "Error" (eq $code "0") -}}
"""


def _conditions(*, is_ready: bool, reason: str = "") -> str:
    status = "True" if is_ready else "False"
    return _CONDITIONS.replace("READY", status).replace("REASON", reason)


def _start_template() -> str:
    head = _PREAMBLE + "phase: Running\n"
    late = '{{- if index $notes "sim.stokehold.dev/ready-after" }}'
    ready = _conditions(is_ready=True) + _STARTED_CONDITION
    ready += _RUNNING.replace("IS_READY", "true")
    unready = _conditions(is_ready=False, reason="ContainersNotReady") + _STARTED_CONDITION
    unready += _RUNNING.replace("IS_READY", "false")
    body = f"{late}\n{unready}\n{{{{- else }}}}\n{ready}\n{{{{- end }}}}\n"
    return head + body + _INIT_CONTAINERS + _ADDRESSES


def _end_template(phase: str, exit_code: str, *, default_code: str, reason: str) -> str:
    exit_ = exit_code.replace("DEFAULT_CODE", default_code)
    ready = _conditions(is_ready=False, reason=reason)
    return _PREAMBLE + exit_ + f"phase: {phase}\n" + ready + _TERMINATED + _POD_REASON


def _stop_template() -> str:
    """A pod that has ended keeps its end; another gets the phase that its exit code means."""
    phase = '{{ ternary "Succeeded" "Failed" (eq $code "0") }}'
    return (
        _PREAMBLE
        + _STOP_CODE
        + '{{- if or (eq .status.phase "Succeeded") (eq .status.phase "Failed") }}\n'
        + "phase: {{ .status.phase }}\n{{- else }}\n"
        + f"phase: {phase}\n"
        + _conditions(is_ready=False, reason="PodFailed")
        + _TERMINATED
        + "{{- end }}\n"
    )


def _restart_template() -> str:
    exit_ = _EXIT.replace("DEFAULT_CODE", "0")
    ready = _conditions(is_ready=True) + _STARTED_CONDITION
    return _PREAMBLE + exit_ + "phase: Running\n" + ready + _RESTARTED


def _pod_stage(step: str, delay: str, template: str, *, deletes: bool = False) -> dict[str, Any]:
    match = {"key": _NEXT_STEP, "operator": "In", "values": [step]}
    following: dict[str, Any] = {"statusTemplate": template}
    if deletes:
        following["delete"] = True
    return _stage(
        f"pod-{step}",
        "Pod",
        {
            "selector": {"matchExpressions": [match]},
            "delay": {
                "durationMilliseconds": 0,
                "durationFrom": {"expressionFrom": _DEFINITIONS + delay},
            },
            "next": following,
        },
    )


def _stage(name: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {"resourceRef": {"apiGroup": "v1", "kind": kind}} | spec,
    }


def stages() -> list[dict[str, Any]]:
    """Every stage, pods first."""
    rejected = _PREAMBLE + "phase: Failed\nstartTime: {{ $now | Quote }}\n" + _POD_REASON
    succeeded = _end_template("Succeeded", _EXIT, default_code="0", reason="PodCompleted")
    failed = _end_template("Failed", _EXIT, default_code="1", reason="PodFailed")
    ready = _PREAMBLE + _conditions(is_ready=True) + _BECOME_READY
    return [
        _pod_stage("start", _AFTER_BIND, _start_template()),
        _pod_stage("reject", _AFTER_BIND, rejected),
        _pod_stage("become-ready", _AFTER_START, ready),
        _pod_stage("succeed", _AFTER_RUN, succeeded),
        _pod_stage("fail", _AFTER_RUN, failed),
        _pod_stage("restart", _BEFORE_RESTART, _restart_template()),
        _pod_stage("stop", _AFTER_DELETION, _stop_template(), deletes=True),
        _untouched_nodes(),
    ]


def _untouched_nodes() -> dict[str, Any]:
    """Matches no node: kwok renews leases only where it knows a node stage.

    Nodes come with their whole status, and nothing writes it again, so a node that a test broke
    stays as the test left it.
    """
    match = {"key": ".metadata.name", "operator": "DoesNotExist"}
    following = {"statusTemplate": "{}"}
    spec = {"selector": {"matchExpressions": [match]}, "next": following}
    return _stage("node-untouched", "Node", spec)


def render() -> str:
    """The stages as kwok's --config reads them."""
    return yaml.safe_dump_all(stages(), sort_keys=False)

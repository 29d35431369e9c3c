"""Each pod behaviour of hack/cluster/README.md, on a real API server and scheduler."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hack.cluster import LocalCluster

pytestmark = pytest.mark.cluster

PREFIX = "sim.stokehold.dev/"
WAIT_SECONDS = 30.0


def manifest(name: str, notes: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    gpus = {"limits": {"nvidia.com/gpu": "1"}}
    containers = [{"name": "main", "image": "trainer", "resources": gpus}]
    annotations = {PREFIX + key: value for key, value in (notes or {}).items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": containers, "restartPolicy": "Never"} | spec,
    }


def create(cluster: LocalCluster, name: str, notes: Mapping[str, str] | None = None, **spec: Any) -> None:
    cluster.kubectl("create", "-f", "-", input=json.dumps(manifest(name, notes, **spec)))


def get(cluster: LocalCluster, name: str) -> dict[str, Any] | None:
    listed = cluster.read("pods", namespace="default")["items"]
    return next((pod for pod in listed if pod["metadata"]["name"] == name), None)


def wait(cluster: LocalCluster, name: str, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        pod = get(cluster, name)
        if pod is not None and is_there(pod):
            return pod
        time.sleep(0.1)
    raise AssertionError(f"{name}: {json.dumps(get(cluster, name), indent=1)}")


def wait_phase(cluster: LocalCluster, name: str, phase: str) -> dict[str, Any]:
    return wait(cluster, name, lambda pod: pod["status"]["phase"] == phase)


def wait_gone(cluster: LocalCluster, name: str) -> float:
    """Seconds until the pod was gone."""
    started = time.monotonic()
    while get(cluster, name) is not None:
        assert time.monotonic() - started < WAIT_SECONDS
        time.sleep(0.1)
    return time.monotonic() - started


def condition(pod: Mapping[str, Any], kind: str) -> str:
    found: str = next(c["status"] for c in pod["status"]["conditions"] if c["type"] == kind)
    return found


def container(pod: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["status"]["containerStatuses"][0]
    return found


def test_pod_without_annotations_runs_until_it_is_deleted(simulated: LocalCluster) -> None:
    init = [{"name": "fetch", "image": "fetcher"}]
    create(simulated, "runs", initContainers=init)

    pod = wait_phase(simulated, "runs", "Running")

    assert condition(pod, "Ready") == "True"
    assert "running" in container(pod)["state"]
    assert pod["status"]["podIP"].startswith("10.")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    simulated.kubectl("delete", "pod", "runs", "--wait=false")
    assert wait_gone(simulated, "runs") < 5


def test_pod_succeeds_after_its_time(simulated: LocalCluster) -> None:
    create(simulated, "succeeds", {"run-for": "2s"})

    wait_phase(simulated, "succeeds", "Running")
    started = time.monotonic()
    pod = wait_phase(simulated, "succeeds", "Succeeded")

    assert 1 < time.monotonic() - started < 6
    assert container(pod)["state"]["terminated"]["exitCode"] == 0
    assert container(pod)["state"]["terminated"]["reason"] == "Completed"


def test_update_of_a_pod_does_not_start_its_time_again(simulated: LocalCluster) -> None:
    create(simulated, "updated", {"run-for": "3s"})
    wait_phase(simulated, "updated", "Running")
    started = time.monotonic()

    while get(simulated, "updated")["status"]["phase"] == "Running":  # type: ignore[index]
        assert time.monotonic() - started < 8
        simulated.kubectl("label", "pod", "updated", f"at=t{time.monotonic_ns()}", "--overwrite")


def test_pod_fails_with_its_exit_code_and_reason(simulated: LocalCluster) -> None:
    create(simulated, "fails", {"run-for": "1s", "exit-code": "137", "exit-reason": "OOMKilled"})

    pod = wait_phase(simulated, "fails", "Failed")

    assert container(pod)["state"]["terminated"]["exitCode"] == 137
    assert container(pod)["state"]["terminated"]["reason"] == "OOMKilled"
    assert condition(pod, "Ready") == "False"


def test_running_pod_crashes_when_it_is_annotated(simulated: LocalCluster) -> None:
    create(simulated, "crashes")
    wait_phase(simulated, "crashes", "Running")

    simulated.kubectl("annotate", "pod", "crashes", PREFIX + "run-for=0s", PREFIX + "exit-code=2")

    pod = wait_phase(simulated, "crashes", "Failed")
    assert container(pod)["state"]["terminated"]["exitCode"] == 2


def test_crash_restarts_in_place_where_the_pod_asks_for_it(simulated: LocalCluster) -> None:
    create(simulated, "restarts", {"run-for": "1s", "exit-code": "1"}, restartPolicy="OnFailure")

    pod = wait(
        simulated,
        "restarts",
        lambda pod: any(c["restartCount"] >= 2 for c in pod["status"].get("containerStatuses", ())),
    )

    assert pod["status"]["phase"] == "Running"
    assert container(pod)["lastState"]["terminated"]["exitCode"] == 1


def test_pod_waits_before_it_starts(simulated: LocalCluster) -> None:
    create(simulated, "waits", {"start-after": "3s"})
    wait(simulated, "waits", lambda pod: "nodeName" in pod["spec"])
    bound = time.monotonic()

    wait_phase(simulated, "waits", "Running")

    assert time.monotonic() - bound > 1.5


def test_pod_becomes_ready_later_than_it_runs(simulated: LocalCluster) -> None:
    create(simulated, "loads", {"ready-after": "2s"})

    early = wait_phase(simulated, "loads", "Running")
    wait(simulated, "loads", lambda pod: condition(pod, "Ready") == "True")

    assert condition(early, "Ready") == "False"


def test_pod_is_refused_by_its_node(simulated: LocalCluster) -> None:
    create(simulated, "refused", {"fail-reason": "UnexpectedAdmissionError"})

    pod = wait_phase(simulated, "refused", "Failed")

    assert pod["status"]["reason"] == "UnexpectedAdmissionError"
    assert "containerStatuses" not in pod["status"]


def test_pod_that_ignores_sigterm_uses_its_whole_grace_period(simulated: LocalCluster) -> None:
    create(simulated, "stubborn", {"ignores-sigterm": "true"}, terminationGracePeriodSeconds=4)
    wait_phase(simulated, "stubborn", "Running")

    simulated.kubectl("delete", "pod", "stubborn", "--wait=false")

    assert 3.5 < wait_gone(simulated, "stubborn") < 9


def test_pod_takes_its_time_to_stop(simulated: LocalCluster) -> None:
    create(simulated, "saves", {"stops-after": "2s"}, terminationGracePeriodSeconds=30)
    wait_phase(simulated, "saves", "Running")

    simulated.kubectl("delete", "pod", "saves", "--wait=false")

    assert 1.5 < wait_gone(simulated, "saves") < 8


def test_deleted_pod_with_a_finalizer_shows_how_it_ended(simulated: LocalCluster) -> None:
    create(simulated, "held", {"sigterm-exit-code": "0"})
    patch = '{"metadata": {"finalizers": ["stokehold.dev/test"]}}'
    simulated.kubectl("patch", "pod", "held", "--type=merge", "-p", patch)
    wait_phase(simulated, "held", "Running")

    simulated.kubectl("delete", "pod", "held", "--wait=false")

    pod = wait_phase(simulated, "held", "Succeeded")
    assert container(pod)["state"]["terminated"]["exitCode"] == 0
    simulated.kubectl("patch", "pod", "held", "--type=merge", "-p", '{"metadata": {"finalizers": []}}')
    wait_gone(simulated, "held")


def test_finished_pod_goes_at_once(simulated: LocalCluster) -> None:
    create(simulated, "done", {"run-for": "1s", "ignores-sigterm": "true"})
    wait_phase(simulated, "done", "Succeeded")

    simulated.kubectl("delete", "pod", "done", "--wait=false")

    assert wait_gone(simulated, "done") < 3


def test_job_follows_the_same_annotations(simulated: LocalCluster) -> None:
    template = manifest("unused", {"run-for": "1s"})
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job"},
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "template": {"metadata": {"annotations": template["metadata"]["annotations"]}, "spec": template["spec"]},
        },
    }

    simulated.kubectl("create", "-f", "-", input=json.dumps(job))

    simulated.kubectl("wait", "--for=condition=Complete", "job/job", "--timeout=30s")

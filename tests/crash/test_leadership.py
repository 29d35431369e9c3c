"""Two operators: one acts, whatever the network and the clock do to the other."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hack.cluster import LocalCluster
from hack.fault_proxy import Call, FaultProxy, renewals
from hack.installation import OperatorProcess

from kit.desks import Desks
from kit.jobs import Team, training_job, wait_until
from kit.leadership import ENDS_WITHIN, RENEW_DEADLINE, last_renewal, leads, replace_leader, transitions
from kit.serving import inference_pool
from kit.witness import Witness, assert_in_order

pytestmark = [pytest.mark.cluster, pytest.mark.crash]

LEASE_SECONDS = 15
ACTS_WITHIN = RENEW_DEADLINE + 20
Start = Callable[..., OperatorProcess]
StartBehindProxy = Callable[..., tuple[OperatorProcess, FaultProxy]]


def test_one_of_two_acts_and_the_other_goes_on_when_it_is_killed(team: Team, witness: Witness, start_operator: Start):
    pair = [start_operator("one"), start_operator("two")]
    wait_until(lambda: sum(map(leads, pair)) == 1, 30)
    leader, standby = sorted(pair, key=leads, reverse=True)
    team.apply(*(training_job(f"quick-{i}", {"run-for": "1s"}) for i in range(6)))
    team.apply(training_job("gang", numNodes=2, gpusPerNode=4))
    team.apply(training_job("fails", {"run-for": "2s", "exit-code": "1"}, failurePolicy={"maxRestarts": 1}))
    team.wait_phase("gang", "Running")
    running, changes = uids(team, "gang"), transitions(team.cluster)
    assert standby.get("/readyz") == "ok\n"
    assert not leads(standby)
    assert standby.metric("stokehold_actions_total") == 0

    leader.kill()
    team.apply(*(training_job(f"late-{i}", {"run-for": "1s"}, numNodes=1 + i % 2) for i in range(6)))
    took = wait_until(lambda: leads(standby), 40)
    team.wait_phase("late-1", "Succeeded", within=40)

    assert took < LEASE_SECONDS + 5
    assert transitions(team.cluster) == changes + 1
    assert uids(team, "gang") == running
    assert terms(team, "gang") == {changes}
    assert terms(team, "late-1") == {changes + 1}
    end_pods(team, "gang")
    ended = {f"{name}-{i}": ("Succeeded", 1) for name in ("quick", "late") for i in range(6)}
    assert_in_order(team, witness, ended | {"gang": ("Succeeded", 1), "fails": ("Failed", 2)})
    assert standby.logged("error") == []


@pytest.mark.parametrize("fault", ["delayed", "refused"])
def test_leader_without_renewals_ends_before_the_other_acts(
    team: Team, witness: Witness, start_behind_proxy: StartBehindProxy, fault: str
):
    old, proxy = start_behind_proxy(f"old-{fault}")
    wait_until(lambda: leads(old), 30)
    new, other_proxy = start_behind_proxy(f"new-{fault}")
    team.submit("runs", numNodes=2)
    team.wait_phase("runs", "Running")
    running = uids(team, "runs")

    left_over = proxy.hold(changes_of_work)
    late = proxy.hold(renewals) if fault == "delayed" else proxy.refuse(renewals, 429)
    team.submit("meanwhile", {"run-for": "1s"})
    code = old.wait_end(40)
    ended_at = time.monotonic()
    wait_until(lambda: leads(new), 40)
    team.wait_phase("meanwhile", "Succeeded")
    proxy.end(late)
    proxy.end(left_over)

    assert code != 0
    assert "Traceback" not in old.log.read_text()
    assert "ExceptionGroup" not in old.log.read_text()
    assert ended_at - last_renewal(proxy) < ENDS_WITHIN
    acted_at = wait_for_write(other_proxy)
    assert ended_at < acted_at < last_renewal(proxy) + ACTS_WITHIN
    if fault == "delayed":
        wait_until(lambda: all(late.statuses()), 10)
        assert set(late.statuses()) <= {200, 409}  # reads, and a renewal of what is no longer its own
        assert 409 in late.statuses()
    assert leads(new)
    assert uids(team, "runs") == running
    end_pods(team, "runs")
    assert_in_order(team, witness, {"runs": ("Succeeded", 1), "meanwhile": ("Succeeded", 1)})


def test_writes_held_until_another_leads_are_refused_or_change_nothing(
    team: Team, witness: Witness, cluster: LocalCluster, start_behind_proxy: StartBehindProxy, start_operator: Start
):
    old, proxy = start_behind_proxy("old-writes")
    wait_until(lambda: leads(old), 30)
    new = start_operator("new-writes")
    for name in ("ends", "fails", "again"):
        team.submit(name, gpuTypes=["a100-80gb"])
        team.wait_phase(name, "Running")

    held = proxy.hold(changes_of_work)
    old.pause()  # what happens now becomes one plan
    team.submit("gang", numNodes=2, gpusPerNode=8, gpuTypes=["h100"])
    end_pods(team, "ends")
    end_pods(team, "fails", exit_code=1)
    team.kubectl("delete", "tj", "again", "--wait=false")
    wait_until(lambda: [pod["status"]["phase"] for pod in team.pods("fails")] == ["Failed"], 5)
    old.resume()
    wait_until(lambda: {"ends", "fails", "again-1-0", "gang-1-0"} <= names(held.caught), 10, lambda: held.caught)
    chosen = [node for call in held.caught if call.name == "gang-1-0" for node in placement(call)]
    try:
        for node in chosen:
            cluster.kubectl("cordon", node)
        replace_leader(old, new, proxy)
        team.wait_phase("gang", "Running")
        team.wait_phase("ends", "Succeeded")
        wait_until(lambda: not team.pods("again"), 20)
        team.submit("again", gpuTypes=["a100-80gb"])
        team.wait_phase("again", "Running")
    finally:
        for node in chosen:
            cluster.kubectl("uncordon", node)
    before = [uids(team, "gang"), uids(team, "again")]

    proxy.end(held)
    wait_until(lambda: all(held.statuses()), 10)

    assert set(held.statuses()) <= {404, 409, 422}
    planned_again(new)
    assert [uids(team, "gang"), uids(team, "again")] == before
    assert set(team.nodes_of("gang")).isdisjoint(chosen)
    team.wait_phase("fails", "Running", within=40)
    assert team.status("fails")["restarts"] == 1
    for name in ("gang", "again", "fails"):
        end_pods(team, name)
    ended = {"gang": ("Succeeded", 1), "ends": ("Succeeded", 1), "again": ("Succeeded", 1)}
    assert_in_order(team, witness, {**ended, "fails": ("Succeeded", 2)})


def test_worker_created_late_for_an_attempt_that_was_taken_back_is_deleted_and_a_late_stop_stops_nothing(
    team: Team, witness: Witness, start_behind_proxy: StartBehindProxy, start_operator: Start
):
    old, proxy = start_behind_proxy("old-create")
    wait_until(lambda: leads(old), 30)
    new = start_operator("new-create")
    desks = Desks(team)
    desks.open("desk", storage=None)
    desks.wait_phase("desk", "Active")
    (at_work,) = desks.pods("desk")
    team.apply(inference_pool("chat", replicas={"min": 1, "max": 1}))
    wait_until(lambda: len(replicas(team)) == 1, 20)
    late = {("pods", "pair-1-1"), ("statefulsets", "desk"), ("deployments", "chat")}
    held = proxy.hold(lambda call: call.is_write and (call.resource, call.name) in late)
    team.submit("pair", numNodes=2)
    desks.set_running("desk", False)
    set_replicas(team, "chat", 2)
    wait_until(lambda: names(held.caught) == {"pair-1-1", "desk", "chat"}, 10)
    team.patch("pair", {"suspend": True})
    desks.set_running("desk", True)  # so that its replica was wanted all the time, for those who come later
    set_replicas(team, "chat", 1)
    replace_leader(old, new, proxy)
    team.wait_phase("pair", "Suspended")
    wait_until(lambda: not team.pods("pair"), 20)
    wait_until(lambda: desks.status("desk")["observedGeneration"] == 3, 10)
    planned_again(new)

    proxy.end(held)  # no precondition can refuse the worker: the name is free again
    wait_until(lambda: all(held.statuses()), 10)

    assert {call.status for call in held.caught if call.name in ("desk", "chat")} == {409}
    assert [pod["metadata"]["uid"] for pod in desks.pods("desk")] == [at_work["metadata"]["uid"]]
    assert desks.phase("desk") == "Active"
    assert len(replicas(team)) == 1
    team.kubectl("delete", "gws,gpool", "--all")
    wait_until(lambda: not team.pods("pair"), 10, lambda: team.pods("pair"))
    assert team.phase("pair") == "Suspended"
    team.patch("pair", {"suspend": False})
    team.wait_phase("pair", "Running")
    end_pods(team, "pair")
    assert_in_order(team, witness, {"pair": ("Succeeded", 2)})


def test_leader_that_was_stopped_for_half_a_minute_ends_without_a_write(
    team: Team, witness: Witness, start_behind_proxy: StartBehindProxy, start_operator: Start
):
    slowly = ("--kube-api-qps", "4", "--kube-api-burst", "8")  # so that it stops with writes that wait for their turn
    old, proxy = start_behind_proxy("old-stopped", *slowly)
    wait_until(lambda: leads(old), 40)
    new = start_operator("new-stopped")
    team.apply(*(training_job(f"before-{i}", {"run-for": "5s"}, numNodes=1 + i % 2) for i in range(6)))
    wait_until(lambda: len(proxy.writes_since(0)) >= 3, 20)

    old.pause()
    stopped_at = time.monotonic()
    team.apply(*(training_job(f"after-{i}", {"run-for": "2s"}, numNodes=1 + i % 2) for i in range(6)))
    wait_until(lambda: leads(new), 40)
    time.sleep(max(0.0, stopped_at + 30 - time.monotonic()))
    resumed_at = time.monotonic()
    old.resume()

    assert old.wait_end(5) != 0
    assert proxy.writes_since(resumed_at) == []
    ended = {f"{name}-{i}": ("Succeeded", 1) for name in ("before", "after") for i in range(6)}
    assert_in_order(team, witness, ended)


def test_short_refusal_of_renewals_costs_no_leadership(
    team: Team, witness: Witness, start_behind_proxy: StartBehindProxy, start_operator: Start
):
    old, proxy = start_behind_proxy("old-throttled")
    wait_until(lambda: leads(old), 30)
    new = start_operator("new-throttled")
    changes = transitions(team.cluster)

    began = time.monotonic()
    refused = proxy.refuse(renewals, 429)
    team.submit("meanwhile", {"run-for": "1s"})
    team.wait_phase("meanwhile", "Succeeded", within=10)
    time.sleep(max(0.0, began + 0.6 * RENEW_DEADLINE - time.monotonic()))
    proxy.end(refused)
    wait_until(lambda: last_renewal(proxy) > began + 0.6 * RENEW_DEADLINE, 10)

    assert len(refused.caught) >= 3
    planned_again(old)
    assert leads(old)
    assert not leads(new)
    assert transitions(team.cluster) == changes
    assert_in_order(team, witness, {"meanwhile": ("Succeeded", 1)})


def planned_again(operator: OperatorProcess) -> None:
    """Wait until it has looked at the cluster twice more."""
    before = operator.metric("stokehold_cycle_duration_seconds_count", part="plan")
    wait_until(lambda: operator.metric("stokehold_cycle_duration_seconds_count", part="plan") >= before + 2, 20)


def terms(team: Team, name: str) -> set[int]:
    """In whose terms the workers of a job were created."""
    return {int(pod["metadata"]["annotations"]["stokehold.dev/term"]) for pod in team.pods(name)}


def wait_for_write(proxy: FaultProxy) -> float:
    """When the first write of an operator came that has only just begun to lead."""
    wait_until(lambda: proxy.writes_since(0), 30)
    return proxy.writes_since(0)[0].received_at


def changes_of_work(call: Call) -> bool:
    return call.is_write and call.resource.split("/")[0] in ("pods", "trainingjobs")


def replicas(team: Team) -> list[Any]:
    return team.items("pods", "stokehold.dev/inference-pool=chat")


def set_replicas(team: Team, pool: str, number: int) -> None:
    bounds = {"spec": {"replicas": {"min": number, "max": number}}}
    team.kubectl("patch", "gpool", pool, "--type=merge", "-p", json.dumps(bounds))


def names(calls: list[Call]) -> set[str]:
    return {call.name for call in calls}


def placement(call: Call) -> list[str]:
    """The node to which a worker's manifest pins it."""
    affinity: dict[str, Any] = json.loads(call.body)["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return [str(node) for term in terms for field in term["matchFields"] for node in field["values"]]


def uids(team: Team, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in team.live_pods(name)}


def end_pods(team: Team, name: str, exit_code: int = 0) -> None:
    """The simulated containers of a job that runs end now."""
    pods = [pod["metadata"]["name"] for pod in team.live_pods(name)]
    note = "sim.stokehold.dev"
    team.kubectl("annotate", "pod", *pods, f"{note}/run-for=0s", f"{note}/exit-code={exit_code}")

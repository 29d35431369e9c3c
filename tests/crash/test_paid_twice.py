"""Answers that come late, never, or from the wrong place. Never a fifth machine for a gang of four."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from hack.cluster import LocalCluster
from hack.fault_proxy import Fault, FaultProxy
from hack.installation import NAMESPACE, OperatorProcess

from kit.burst import Cloud, condition
from kit.desks import Desks
from kit.jobs import Team, wait_until
from kit.leadership import ENDS_WITHIN, leads, replace_leader, transitions
from kit.machines import SIGNING_KEY, TOKEN, Handler, Machine, MachineCloud

pytestmark = [pytest.mark.cluster, pytest.mark.crash]

Start = Callable[..., OperatorProcess]
StartBehindProxy = Callable[..., tuple[OperatorProcess, FaultProxy]]
GANG = {"numNodes": 4, "gpusPerNode": 8, "gpuTypes": ["h100"], "dataClass": "internal", "capacity": ["on-demand"]}
IMPATIENT = ("--node-ready-within", "15s", "--orphan-after", "5s", "--capacity-backoff", "2s", "--burst-age", "1s")


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, f"paid-{time.monotonic_ns() % 10**6}")
    yield made
    made.delete()


@pytest.fixture
def machines(cluster: LocalCluster) -> Iterator[MachineCloud]:
    with MachineCloud(cluster) as cloud:
        yield cloud


@pytest.fixture
def pool(team: Team, machines: MachineCloud, start_operator: Start) -> Iterator[Cloud]:
    """The pool of those machines; at the end nothing of it is left, which the operator must see to."""
    keys = {"token": TOKEN, "signingKey": SIGNING_KEY}
    literals = [f"--from-literal={key}={value}" for key, value in keys.items()]
    team.cluster.kubectl("-n", NAMESPACE, "delete", "secret", "machines", "--ignore-not-found")
    team.cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", "machines", *literals)
    made = Cloud(team.cluster)
    declare(made, machines, 8)
    yield made
    team.empty()
    made.delete()
    assert machines.machines == {}


@pytest.fixture
def desks(team: Team) -> Iterator[Desks]:
    made = Desks(team)
    yield made
    made.close()


def declare(pool: Cloud, machines: MachineCloud, most_nodes: int, zone: str = "z1") -> None:
    webhook = {"url": machines.url, "timeout": "40s", "secretRef": "machines"}
    pool.declare(most_nodes, provider={"webhook": webhook}, zones=[zone])


def answers_late(seconds: float) -> Callable[[MachineCloud, Machine, Handler], bool]:
    def answer(cloud: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        made = cloud.make(wanted)
        if cloud.posts[wanted["requestId"]] == 1:
            time.sleep(seconds)
        handler.answer(200, made)
        return True

    return answer


@pytest.mark.parametrize("killed_after", [1, 5])
def test_machines_made_at_once_and_answered_late_to_an_operator_that_died(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start, killed_after: float
):
    machines.misbehave = answers_late(30)
    operator = start_operator("operator", "--node-ready-within", "60s", "--burst-age", "1s")
    team.submit("gang", {"run-for": "3s"}, **GANG)
    wait_until(lambda: len(machines.machines) == 4, 30, pool.claims)
    time.sleep(killed_after)
    operator.kill()

    operator.restart()

    team.wait_phase("gang", "Succeeded", within=60)
    assert machines.most == 4
    assert set(machines.made.values()) == {1}
    wait_until(lambda: machines.machines == {}, 30)


def test_connection_reset_after_the_machine_was_made(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start
):
    def reset_once(cloud: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        cloud.make(wanted)
        if cloud.posts[wanted["requestId"]] > 1:
            return False
        handler.hang_up()
        return True

    machines.misbehave = reset_once
    start_operator("operator", *IMPATIENT)

    team.submit("gang", {"run-for": "3s"}, **GANG)

    team.wait_phase("gang", "Succeeded", within=60)
    assert machines.most == 4


def test_success_without_a_machine_ends_at_the_deadline_and_the_next_pool_is_asked(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start
):
    def only_two(_: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        if wanted["claim"].endswith(("-0", "-1")):
            return False
        handler.answer(200, {})
        return True

    machines.misbehave = only_two
    second = Cloud(team.cluster, "second-choice")
    second.declare(4, capacityClass="spot", simulated={"bootTime": "5s"})
    start_operator("operator", *IMPATIENT)

    team.submit("gang", {"run-for": "3s"}, **{**GANG, "capacity": ["on-demand", "spot"]})

    wait_until(lambda: len(second.claims()) == 4, 40, pool.claims)
    assert [(o["zone"], o["reason"]) for o in pool.status()["offerings"]] == [("z1", "Timeout")]
    wait_until(lambda: "4 nodes of pool second-choice" in _message(team), 20, lambda: team.status("gang"))
    assert "pool cloud in zone z1 failed before (Timeout" in _message(team)
    wait_until(lambda: machines.machines == {}, 30)
    assert machines.most <= 4
    status = team.wait_phase("gang", "Succeeded", within=40)
    assert (status["placement"]["pool"], status["attempt"]) == ("second-choice", 1)
    second.delete()


@pytest.mark.parametrize("zone", ["z1", "elsewhere"])
def test_conflict_about_a_machine_that_exists_adopts_it_or_gives_it_back(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start, zone: str
):
    """The provider made a machine for the key, in this zone, and refuses to speak of it again."""

    def conflict(cloud: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        cloud.make(wanted | {"zone": zone})
        handler.answer(409, {"error": {"message": "the key is in use for another request"}})
        return True

    machines.misbehave = conflict
    start_operator("operator", *IMPATIENT)

    team.submit("gang", {"run-for": "2s"}, **GANG)

    if zone == "z1":
        team.wait_phase("gang", "Succeeded", within=40)
    else:
        wait_until(lambda: pool.status().get("offerings"), 30, pool.claims)
        assert pool.status()["offerings"][0]["reason"] == "Config"
        assert team.pods("gang") == []
    wait_until(lambda: machines.machines == {}, 30)
    assert machines.most <= 4
    assert set(machines.made.values()) == {1}


def test_machines_that_expired_while_no_operator_was_there_are_neither_missed_nor_replaced(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start
):
    """The expiry that the provider was told of ends the bill when nobody else is there to do it."""
    operator = start_operator("operator", *IMPATIENT)
    team.submit("gang", **GANG)
    team.wait_phase("gang", "Running", within=40)
    for claim in pool.claims():
        ends = datetime.fromisoformat(machines.expiry[claim["metadata"]["uid"]])
        assert ends == datetime.fromisoformat(claim["metadata"]["creationTimestamp"]) + timedelta(hours=720)

    operator.kill()
    team.kubectl("delete", "tj", "gang", "--wait=false")
    for machine in list(machines.machines.values()):
        machines.destroy(machine["id"])
    operator.restart()

    pool.wait_gone()
    assert machines.most == len(machines.made) == 4
    team.bury()


def test_machine_in_another_zone_is_given_back_and_not_doubled(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start
):
    def elsewhere(cloud: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        handler.answer(200, cloud.make(wanted) | {"zone": "elsewhere"})
        return True

    machines.misbehave = elsewhere
    start_operator("operator", *IMPATIENT)

    team.submit("gang", **GANG)

    wait_until(lambda: pool.status().get("offerings"), 30, pool.claims)
    assert pool.status()["offerings"][0]["reason"] == "Config"
    wait_until(lambda: machines.machines == {}, 30)
    assert machines.most <= 4


def test_machines_that_appear_after_their_claims_are_gone_are_given_back(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start
):
    late: list[Machine] = []

    def gateway_timeout(_: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        late.append(wanted)
        handler.answer(504, {})
        return True

    machines.misbehave = gateway_timeout
    start_operator("operator", *IMPATIENT)
    team.submit("gang", **GANG)
    wait_until(lambda: len({wanted["requestId"] for wanted in late}) == 4, 20)
    team.kubectl("delete", "tj", "gang")
    pool.wait_gone()

    for wanted in late:
        machines.make(wanted)

    assert machines.most == 4
    wait_until(lambda: machines.machines == {}, 110, lambda: machines.machines)


@dataclass
class Underway:
    """What the first leader has asked and written, and nobody has heard of yet."""

    arrives: threading.Event
    """Lets its requests to the provider arrive."""
    held: Fault
    """Its writes: claims of two gangs and the stop of a workspace."""


def act_in_vain(team: Team, pool: Cloud, machines: MachineCloud, desks: Desks, proxy: FaultProxy) -> Underway:
    """Two machines are asked for, six more claimed, and a workspace that has run for too long is stopped."""
    asked: list[Machine] = []
    arrives = threading.Event()

    def on_the_way(cloud: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        asked.append(wanted)
        arrives.wait(90)
        handler.answer(200, cloud.make(wanted))
        return True

    desks.open("ada", storage=None, gpuTypes=["h100"], maxLifetime="10m")
    machines.misbehave = on_the_way
    declare(pool, machines, 2)
    team.submit("first", **{**GANG, "numNodes": 2})
    wait_until(lambda: len(asked) == 2, 20, pool.claims)
    machines.misbehave = lambda *_: False
    team.submit("second", **GANG)
    team.submit("gone", **{**GANG, "numNodes": 2})
    wait_until(lambda: _reasons(team, "second", "gone") == {"LimitReached"}, 20)
    desks.wait_phase("ada", "Active", "Quiet")

    held = proxy.hold(lambda call: call.is_write and call.resource in ("gpunodeclaims", "devworkspaces"))
    declare(pool, machines, 12)  # now, and in one plan, there is room for both
    born = datetime.fromisoformat(desks.get("ada")["metadata"]["creationTimestamp"])
    long_ago = json.dumps({"status": {"startTime": f"{born - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"}})
    team.kubectl("patch", "gws", "ada", "--subresource=status", "--type=merge", "-p", long_ago)
    wait_until(lambda: len({call.name for call in held.caught}) == 7, 20, lambda: held.caught)
    return Underway(arrives, held)


def test_what_a_leader_asked_and_wrote_arrives_late_buys_nothing_more_and_stops_nobody(
    team: Team,
    pool: Cloud,
    machines: MachineCloud,
    desks: Desks,
    start_operator: Start,
    start_behind_proxy: StartBehindProxy,
):
    """The second leader decides otherwise, and then the calls of the first arrive."""
    patient = (*IMPATIENT, "--node-ready-within", "90s")
    old, proxy = start_behind_proxy("old-money", *patient)
    wait_until(lambda: leads(old), 30)
    new = start_operator("new-money", *patient)
    late = act_in_vain(team, pool, machines, desks, proxy)
    term = transitions(team.cluster)
    team.kubectl("delete", "tj", "gone")
    declare(pool, machines, 12, zone="z2")
    desks.patch("ada", {"maxLifetime": "365d"})
    before = [pod["metadata"]["uid"] for pod in desks.pods("ada")]

    assert replace_leader(old, new, proxy) < ENDS_WITHIN, "a provider that hangs must not keep it"
    for name in ("first", "second"):
        team.wait_phase(name, "Running", within=40)
    runs_on = team.nodes_of("second")
    proxy.end(late.held)
    late.arrives.set()
    wait_until(lambda: all(late.held.statuses()), 10)
    wait_until(lambda: len(pool.claims()) == 6, 20, pool.claims)

    answers = {call.name: call.status for call in late.held.caught}
    assert answers["ada"] == 409
    assert sorted(answers.values()) == [201] * 2 + [409] * 5, "names that are free again are taken"
    assert machines.most == 6
    assert set(machines.made.values()) == {1}
    assert {machine["zone"] for machine in machines.machines.values()} == {"z1", "z2"}
    assert team.nodes_of("second") == runs_on
    assert desks.phase("ada") in ("Active", "Quiet")
    assert [pod["metadata"]["uid"] for pod in desks.pods("ada")] == before
    claims = pool.claims()
    assert {claim["metadata"]["annotations"]["stokehold.dev/term"] for claim in claims} == {str(term), str(term + 1)}
    told = [claim["status"] for claim in claims] + [team.status("second"), desks.status("ada")]
    assert {status["term"] for status in told} == {term + 1}


def _reasons(team: Team, *jobs: str) -> set[str]:
    return {condition(team.status(name)).get("reason", "") for name in jobs}


def _message(team: Team) -> str:
    return str(team.status("gang").get("queue", {}).get("message", ""))

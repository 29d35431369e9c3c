"""Field case F22: answers that come late, never, or from the wrong place. Never a fifth machine for a gang of four."""

import time
from collections.abc import Callable, Iterator

import pytest
from hack.cluster import LocalCluster
from hack.installation import NAMESPACE, OperatorProcess

from kit.burst import Cloud, condition
from kit.jobs import Team, wait_until
from kit.machines import SIGNING_KEY, TOKEN, Handler, Machine, MachineCloud

pytestmark = [pytest.mark.cluster, pytest.mark.crash]

Start = Callable[..., OperatorProcess]
GANG = {"numNodes": 4, "gpusPerNode": 8, "gpuTypes": ["h100"], "dataClass": "internal", "capacity": ["on-demand"]}
IMPATIENT = ("--node-ready-within", "15s", "--orphan-after", "5s", "--capacity-backoff", "2s", "--burst-age", "1s")


@pytest.fixture
def team(cluster: LocalCluster) -> Iterator[Team]:
    made = Team.create(cluster, f"f22-{time.monotonic_ns() % 10**6}")
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
    webhook = {"url": machines.url, "timeout": "40s", "secretRef": "machines"}
    made.declare(8, provider={"webhook": webhook})
    yield made
    team.empty()
    made.delete()
    assert machines.machines == {}


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


def test_success_without_a_machine_ends_at_the_deadline_and_all_are_given_back(
    team: Team, pool: Cloud, machines: MachineCloud, start_operator: Start
):
    def only_two(_: MachineCloud, wanted: Machine, handler: Handler) -> bool:
        if wanted["claim"].endswith(("-0", "-1")):
            return False
        handler.answer(200, {})
        return True

    machines.misbehave = only_two
    start_operator("operator", *IMPATIENT)

    team.submit("gang", **GANG)

    wait_until(lambda: pool.status().get("offerings"), 40, pool.claims)
    assert pool.status()["offerings"][0]["reason"] == "Timeout"
    wait_until(lambda: machines.machines == {}, 30)
    wait_until(lambda: condition(team.status("gang")).get("reason") == "ProviderFailing", 20)
    assert machines.most <= 4
    assert team.pods("gang") == []


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

"""One contract for all providers: idempotent by request id, lists what it charges for, and takes back without fuss."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hack.cluster import LocalCluster
from hack.installation import NAMESPACE, SERVICE_ACCOUNT

from providers.requests import POOL, a_request
from stokehold.api.v1alpha1.providers import SimulatedProvider, WebhookProvider
from stokehold.cluster.client import KubeApi
from stokehold.providers.base import AuthError, CapacityError, Provider
from stokehold.providers.simulated import Simulated
from stokehold.providers.webhook import Credentials, Keys, Webhook

SERVER = Path(__file__).parent.parent.parent / "docs" / "examples" / "webhook_server.py"
LIMIT = 3
KEYS = Keys("secret", "signing")


@pytest.fixture
def server_url() -> Iterator[str]:
    """The example server as a process of its own, on a port that the system chose."""
    environment = {**os.environ, "TOKEN": KEYS.token, "SIGNING_KEY": KEYS.signing_key, "CAPACITY": str(LIMIT)}
    with subprocess.Popen(
        [sys.executable, str(SERVER), "0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield f"http://127.0.0.1:{port}/v1"
        process.kill()


@pytest.fixture
async def webhook(server_url: str) -> AsyncIterator[Provider]:
    made = Webhook(WebhookProvider(url=server_url), Credentials(None, "", None, KEYS))
    yield made
    await made.close()


@pytest.fixture
async def simulated(cluster: LocalCluster) -> AsyncIterator[Provider]:
    """Under the operator's own account, so that a right that the chart forgot shows."""
    api = await KubeApi.connect(kubeconfig=str(cluster.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)))
    made = Simulated(api, SimulatedProvider.model_validate({"availableNodes": LIMIT, "bootTime": "0s"}))
    yield made
    for machine in await made.instances(POOL, "cluster-1"):
        await made.terminate(machine.provider_id)
    await api.close()


@pytest.fixture(params=["webhook", pytest.param("simulated", marks=pytest.mark.cluster)])
def provider(request: pytest.FixtureRequest) -> Provider:
    found: Provider = request.getfixturevalue(request.param)
    return found


async def test_same_request_twice_is_one_machine(provider: Provider):
    first = await provider.launch(a_request("a"))
    second = await provider.launch(a_request("a"))

    assert first == second
    assert first.request_id == "a"
    assert [machine.provider_id for machine in await provider.instances(POOL, "cluster-1")] == [first.provider_id]


async def test_same_request_many_times_at_once_is_one_machine(provider: Provider):
    answers = await asyncio.gather(*(provider.launch(a_request("a")) for _ in range(8)))

    assert len({machine.provider_id for machine in answers}) == 1
    assert len(await provider.instances(POOL, "cluster-1")) == 1


async def test_machine_is_in_the_zone_and_tells_since_when_it_costs(provider: Provider):
    machine = await provider.launch(a_request("a", zone="z2"))

    assert machine.zone == "z2"
    assert machine.launched_at is not None


async def test_lists_the_machines_of_this_cluster_and_pool_alone(provider: Provider):
    await provider.launch(a_request("a"))

    assert await provider.instances(POOL, "cluster-2") == ()
    assert await provider.instances("other", "cluster-1") == ()


async def test_terminated_machine_is_gone_and_may_be_terminated_again(provider: Provider):
    machine = await provider.launch(a_request("a"))

    await provider.terminate(machine.provider_id)
    await _until_empty(lambda: provider.instances(POOL, "cluster-1"))
    await provider.terminate(machine.provider_id)
    await provider.terminate("nobody-knows/this one")


async def test_more_than_there_is_are_refused_for_lack_of_capacity_and_known_ones_still_answered(provider: Provider):
    known = [await provider.launch(a_request(f"r{i}")) for i in range(LIMIT)]

    with pytest.raises(CapacityError):
        await provider.launch(a_request("one-too-many"))

    assert await provider.launch(a_request("r0")) == known[0]
    assert len(await provider.instances(POOL, "cluster-1")) == LIMIT


@pytest.mark.parametrize("keys", [Keys("wrong", "signing"), Keys("secret", "wrong"), Keys("secret", ""), Keys()])
async def test_wrong_token_or_signature_is_an_auth_error(server_url: str, keys: Keys):
    made = Webhook(WebhookProvider(url=server_url), Credentials(None, "", None, keys))
    try:
        with pytest.raises(AuthError):
            await made.launch(a_request("a"))
    finally:
        await made.close()


async def test_an_old_signature_is_an_auth_error(server_url: str):
    made = Webhook(WebhookProvider(url=server_url), Credentials(None, "", None, KEYS), clock=lambda: 0.0)
    try:
        with pytest.raises(AuthError):
            await made.launch(a_request("a"))
    finally:
        await made.close()


async def _until_empty(read: Callable[[], Awaitable[tuple[object, ...]]]) -> None:
    for _ in range(100):
        if not await read():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the machine is still listed")

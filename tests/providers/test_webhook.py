"""The webhook provider against a service that misbehaves: every answer ends in the right class of error."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from providers.requests import POOL, a_request
from stokehold.api.v1alpha1.providers import WebhookProvider
from stokehold.providers.base import (
    AuthError,
    CapacityError,
    ConfigError,
    ProviderError,
    QuotaError,
    RateLimitedError,
    UnavailableError,
)
from stokehold.providers.webhook import Credentials, Webhook

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[Webhook]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a service on a free port, and the provider that asks it."""
    ends: list[Callable[[], Awaitable[object]]] = []

    async def start(handler: Handler) -> Webhook:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        made = Webhook(WebhookProvider(url=f"http://127.0.0.1:{port}", timeout="1s"), Credentials(None, "", None))
        ends.extend((made.close, runner.cleanup))
        return made

    yield start
    for end in ends:
        await end()


def answering(status: int, body: object = None, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (409, "Capacity", CapacityError),
        (400, "Quota", QuotaError),
        (422, "", ConfigError),
        (401, "", AuthError),
        (403, "Quota", QuotaError),
        (402, "", QuotaError),
        (409, "", UnavailableError),
        (429, "Capacity", RateLimitedError),
        (500, "Capacity", UnavailableError),
        (504, "", UnavailableError),
        (302, "", UnavailableError),
    ],
)
async def test_refusals_by_class(serve: Serve, status: int, reason: str, error: type[ProviderError]):
    provider = await serve(answering(status, {"error": {"reason": reason, "message": "said so"}}))

    with pytest.raises(error, match="said so"):
        await provider.launch(a_request("a"))


@pytest.mark.parametrize(("told", "heard"), [("17", 17), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("²", 0), ("-1", 0)])
async def test_retry_after_is_heard(serve: Serve, told: str, heard: float):
    provider = await serve(answering(429, {}, Retry_After=told))

    with pytest.raises(RateLimitedError) as caught:
        await provider.launch(a_request("a"))
    assert caught.value.retry_after == heard


@pytest.mark.parametrize(
    "body", [None, [], {"id": 5}, {"id": "m", "requestId": "somebody-else"}, {"id": "", "requestId": "a"}]
)
async def test_answer_that_makes_no_sense_is_no_answer(serve: Serve, body: object):
    provider = await serve(answering(200, body))

    with pytest.raises(UnavailableError):
        await provider.launch(a_request("a"))


@pytest.mark.parametrize("status", [200, 400])
async def test_answer_nested_without_end_is_no_answer(serve: Serve, status: int):
    async def nest(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=b'{"error": ' + b"[" * 100_000)

    provider = await serve(nest)

    with pytest.raises(ProviderError):
        await provider.instances(POOL, "cluster-1")


@pytest.mark.parametrize("bundle", ["no certificate", "kein Schlüssel"])
async def test_bundle_without_a_certificate_is_the_mistake_of_whoever_wrote_the_pool(bundle: str):
    provider = Webhook(WebhookProvider(url="https://127.0.0.1:1", ca_bundle=bundle), Credentials(None, "", None))

    with pytest.raises(ConfigError, match="caBundle"):
        await provider.launch(a_request("a"))


async def test_service_that_hangs_or_hangs_up_is_unavailable(serve: Serve):
    async def hang(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            await asyncio.sleep(5)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    provider = await serve(hang)

    with pytest.raises(UnavailableError, match="Timeout"):
        await provider.launch(a_request("a"))
    with pytest.raises(UnavailableError):
        await provider.instances(POOL, "cluster-1")


async def test_machine_made_before_the_connection_broke_is_found_under_its_key(serve: Serve):
    made: dict[str, dict[str, str]] = {}

    async def answer_the_second_time(request: web.Request) -> web.StreamResponse:
        key = request.headers["Idempotency-Key"]
        is_new = key not in made
        made.setdefault(key, {"id": f"vm-{len(made)}", "requestId": key})
        if is_new and request.transport is not None:
            request.transport.close()
        return web.json_response(made[key])

    provider = await serve(answer_the_second_time)

    with pytest.raises(UnavailableError):
        await provider.launch(a_request("a"))
    machine = await provider.launch(a_request("a"))

    assert machine.provider_id == "vm-0"
    assert len(made) == 1


async def test_body_without_end_is_not_read_to_the_end(serve: Serve):
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" " * 2**17)
        return response

    provider = await serve(endless)

    with pytest.raises(UnavailableError, match="longer than"):
        await provider.instances(POOL, "cluster-1")


async def test_token_of_more_than_one_line_is_refused_as_such():
    """It cannot be sent, and nobody but its writer can mend it."""

    class Secrets:
        async def get(self, *_: object) -> dict[str, dict[str, str]]:
            return {"data": {"token": b64encode(b"a-token\nanother").decode()}}

    credentials = Credentials(Secrets(), "stokehold-system", "nodes-token")  # type: ignore[arg-type]

    with pytest.raises(AuthError, match="nodes-token"):
        await credentials.keys()

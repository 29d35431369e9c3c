"""The client's contract: typed errors, bounded retries of reads, writes sent once."""

import asyncio
import sys
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes.aio.config import incluster_config as aio_incluster
from kubernetes.config import incluster_config as blocking_incluster

from cluster.fake_api import (
    answer,
    client,
    drop,
    hang,
    html,
    line,
    send,
    serving,
    write_kubeconfig,
)
from stokehold.cluster import errors
from stokehold.cluster.client import KubeApi, PatchKind
from stokehold.cluster.connection import Connection, blocking_http
from stokehold.cluster.leases import NotLeaderError
from stokehold.cluster.limiter import TokenBucket
from stokehold.cluster.resources import CONFIG_MAPS, GPU_NODES, NODES, PODS, TRAINING_JOBS


@pytest.fixture
async def fake():
    async with serving() as server:
        yield server


@pytest.fixture
def kubeconfig(tmp_path):
    return tmp_path / "kubeconfig"


@pytest.fixture
async def api(fake, kubeconfig):
    async with client(fake, kubeconfig) as kube_api:
        yield kube_api


def pod(name: str, **metadata: object) -> dict:
    return {"metadata": {"name": name, "namespace": "team-a", **metadata}}


def test_paths_follow_group_scope_and_subresource():
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("team-a", "p", "binding") == "/api/v1/namespaces/team-a/pods/p/binding"
    assert NODES.path(None, "n1") == "/api/v1/nodes/n1"
    assert GPU_NODES.path(name="n1") == "/apis/stokehold.dev/v1alpha1/gpunodes/n1"
    assert TRAINING_JOBS.path("a", "j", "status").endswith("/namespaces/a/trainingjobs/j/status")


@pytest.mark.parametrize(("namespace", "resource"), [(None, PODS), ("team-a", NODES)])
def test_a_path_of_the_wrong_scope_is_refused(namespace, resource):
    with pytest.raises(ValueError, match="namespace"):
        resource.path(namespace, "x")


async def test_an_object_is_created_read_patched_and_deleted(fake, api):
    made = await api.create(PODS, pod("p"), "team-a", field_manager="stokehold")
    read = await api.get(PODS, "p", "team-a")
    await api.patch(PODS, "p", pod("p"), namespace="team-a", kind=PatchKind.MERGE)
    gone = await api.delete(PODS, "p", namespace="team-a", uid=made["metadata"]["uid"])

    assert read == made
    assert gone["status"] == "Success"
    assert fake.asked[0].query == {"fieldManager": "stokehold"}
    assert fake.asked[0].headers["Authorization"] == "Bearer secret"
    assert fake.asked[-1].body["preconditions"] == {"uid": made["metadata"]["uid"]}


@pytest.mark.parametrize("kind", PatchKind)
async def test_each_patch_kind_has_its_content_type(fake, api, kind):
    await fake.put("pods", pod("p"))

    await api.patch(PODS, "p", pod("p"), namespace="team-a", kind=kind, field_manager="m", force=True)

    asked = fake.asked[-1]
    assert asked.headers["Content-Type"] == kind.value
    assert asked.query == {"fieldManager": "m"} | ({"force": "true"} if kind is PatchKind.APPLY else {})


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (400, "BadRequest", errors.InvalidError),
        (401, "Unauthorized", errors.ForbiddenError),
        (403, "Forbidden", errors.ForbiddenError),
        (404, "NotFound", errors.NotFoundError),
        (409, "AlreadyExists", errors.AlreadyExistsError),
        (409, "Conflict", errors.ConflictError),
        (410, "Expired", errors.GoneError),
        (418, "Teapot", errors.ApiError),
        (422, "Invalid", errors.InvalidError),
        (500, "InternalError", errors.UnavailableError),
        (504, "Timeout", errors.UnavailableError),
    ],
)
async def test_each_refusal_of_a_write_has_its_type_and_is_told_once(fake, api, code, reason, error):
    fake.fail_next("create", *[answer(code, reason)] * 2)

    with pytest.raises(errors.ApiError) as raised:
        await api.create(PODS, pod("p"), "team-a")

    assert type(raised.value) is error
    assert (raised.value.status, raised.value.reason) == (code, reason)
    assert fake.count("create") == (2 if code == 401 else 1)


async def test_a_proxys_html_is_a_typed_error_too(fake, api):
    fake.fail_next("patch", html(502))

    with pytest.raises(errors.UnavailableError, match="<html>"):
        await api.patch(PODS, "p", {}, namespace="team-a", kind=PatchKind.MERGE)


async def test_a_success_that_is_no_json_is_no_verdict(fake, api):
    fake.fail_next("patch", html(200))

    with pytest.raises(errors.UnavailableError, match="Garbled"):
        await api.patch(PODS, "p", {}, namespace="team-a", kind=PatchKind.MERGE)


async def test_reads_outlive_a_burst_of_server_errors_and_lost_connections(fake, api):
    await fake.put("pods", pod("p"))
    fake.fail_next("get", answer(503), answer(500), drop)

    read = await api.get(PODS, "p", "team-a")

    assert read["metadata"]["name"] == "p"
    # aiohttp repeats a GET on a kept-alive connection that broke, so one more may have arrived
    assert fake.count("get") >= 4


async def test_reads_give_up_after_a_few_tries(fake, api):
    fake.fail_next("list", *[answer(503)] * 10)

    with pytest.raises(errors.UnavailableError):
        await api.list_page(PODS)

    assert fake.count("list") == 4


@pytest.mark.parametrize("fault", [answer(503), drop])
async def test_a_write_of_unknown_outcome_is_never_repeated(fake, api, fault):
    fake.fail_next("patch", fault)

    with pytest.raises(errors.UnavailableError):
        await api.patch(PODS, "p", pod("p"), namespace="team-a", kind=PatchKind.MERGE)

    assert fake.count("patch") == 1


async def test_retry_after_is_honoured_for_writes_as_they_were_refused(fake, kubeconfig):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    fake.fail_next("create", *[answer(429, "TooManyRequests", Retry_After="2")] * 2)
    async with client(fake, kubeconfig, sleep=sleep) as api:
        await api.create(PODS, pod("p"), "team-a")

    assert fake.count("create") == 3
    assert all(2 <= pause <= 3 for pause in pauses)


async def test_a_long_retry_after_is_left_to_the_caller(fake, api):
    fake.fail_next("create", answer(429, Retry_After="60"))

    with pytest.raises(errors.TooManyRequestsError) as raised:
        await api.create(PODS, pod("p"), "team-a")

    assert raised.value.retry_after == 60
    assert fake.count("create") == 1


async def test_an_eviction_hears_of_the_disruption_budget_at_once(fake, api):
    fake.fail_next("create", answer(429, "TooManyRequests"))

    with pytest.raises(errors.TooManyRequestsError):
        await api.create(PODS, pod("p"), "team-a", name="p", subresource="eviction")

    assert fake.asked[-1].path == "/api/v1/namespaces/team-a/pods/p/eviction"
    assert fake.count("create") == 1


async def test_a_server_that_never_answers_costs_a_bounded_time(fake, kubeconfig):
    seen = []
    fake.fail_next("patch", hang)
    async with client(fake, kubeconfig, request_timeout=0.1, observe=lambda *call: seen.append(call[:3])) as api:
        async with asyncio.timeout(2):
            with pytest.raises(errors.UnavailableError) as raised:
                await api.patch(PODS, "p", {}, namespace="team-a", kind=PatchKind.MERGE)

    assert raised.value.reason == "Timeout"
    assert seen == [("patch", "pods", 0)]


async def test_every_try_is_observed_with_its_code(fake, kubeconfig):
    seen = []
    fake.fail_next("list", answer(503))
    async with client(fake, kubeconfig, observe=lambda *call: seen.append(call[:3])) as api:
        await api.list_page(PODS)

    assert seen == [("list", "pods", 503), ("list", "pods", 200)]


async def test_a_watch_yields_lines_of_any_length_however_they_are_cut(fake, api):
    long = line("ADDED", pod("p", annotations={"a": "x" * 300_000}))
    short = line("ADDED", pod("q"))
    fake.fail_next("watch", send(long[:70_000], long[70_000:] + short[:10], short[10:], b"\n{cut"))

    lines = [text async for text in api.watch(PODS, resource_version="1")]

    assert lines == [long.strip(), short.strip()]
    assert fake.asked[-1].query["allowWatchBookmarks"] == "true"


async def test_a_silent_watch_is_given_up(fake, api):
    fake.fail_next("watch", send(line("ADDED", pod("p")), then="hang"))

    events = api.watch(PODS, resource_version="1", idle_seconds=0.1)
    first = await anext(events)
    with pytest.raises(errors.UnavailableError) as raised:
        await anext(events)

    assert first
    assert raised.value.reason == "Timeout"


async def test_a_broken_watch_is_told_from_one_that_ended(fake, api):
    fake.fail_next("watch", send(line("ADDED", pod("p")), then="drop"))

    with pytest.raises(errors.UnavailableError) as raised:
        _ = [text async for text in api.watch(PODS, resource_version="1")]

    assert raised.value.reason == "ConnectionLost"


async def test_a_refused_token_is_read_again_and_the_request_repeated(fake, kubeconfig, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    await fake.put("pods", pod("p"))
    async with client(fake, kubeconfig, user={"tokenFile": str(token)}) as api:
        await api.get(PODS, "p", "team-a")
        token.write_text("new")
        fake.fail_next("get", answer(401, "Unauthorized"))
        await api.get(PODS, "p", "team-a")

    assert [asked.headers["Authorization"] for asked in fake.asked] == [
        "Bearer old",
        "Bearer old",
        "Bearer new",
    ]


async def test_an_exec_plugin_gives_the_token(fake, kubeconfig):
    credential = (
        '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",'
        ' "status": {"token": "from-plugin"}}'
    )
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print('''{credential}''')"],
    }
    async with client(fake, kubeconfig, user={"exec": plugin}) as api:
        await api.list_page(PODS)

    assert fake.asked[-1].headers["Authorization"] == "Bearer from-plugin"


async def test_a_token_is_refreshed_once_a_minute(kubeconfig, tmp_path):
    now = [0.0]
    token = tmp_path / "token"
    token.write_text("old")
    path = write_kubeconfig(kubeconfig, "http://127.0.0.1:1", {"tokenFile": str(token)})
    connection = Connection(path, clock=lambda: now[0])
    await connection._load()
    token.write_text("new")

    before = await connection.authorization()
    now[0] = 61.0
    after = await connection.authorization()

    assert (before, after) == ("Bearer old", "Bearer new")


async def test_no_cluster_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(errors.ConnectError, match="KUBECONFIG"):
        await KubeApi.connect()


@pytest.mark.parametrize("content", ["", "{", "clusters: []", "current-context: x"])
async def test_a_malformed_kubeconfig_is_one_clear_error(tmp_path, content):
    path = tmp_path / "kubeconfig"
    path.write_text(content)

    with pytest.raises(errors.ConnectError):
        await Connection.load(str(path))
    with pytest.raises(errors.ConnectError):
        blocking_http(str(path))


async def test_a_guard_has_the_last_word_before_each_try_to_write(fake, api):
    fake.fail_next("create", answer(429, "TooManyRequests"))
    leads = iter([True, False])

    def check():
        if not next(leads):
            raise NotLeaderError

    api.guard_writes(check)
    with pytest.raises(NotLeaderError):
        await api.create(PODS, pod("p"), "team-a")

    assert [request.verb for request in fake.asked] == ["create"]
    await api.list_page(PODS)  # whoever does not lead may read


async def test_the_limiter_lets_a_burst_pass_and_then_keeps_the_rate():
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    bucket = TokenBucket(10, 2, clock=lambda: 0.0, sleep=sleep)
    for _ in range(4):
        await bucket.wait_token()

    assert pauses == pytest.approx([0.1, 0.2])


async def test_a_cancelled_wait_gives_its_token_back():
    bucket = TokenBucket(0.001, 1, clock=lambda: 0.0)
    await bucket.wait_token()
    waiting = asyncio.create_task(bucket.wait_token())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert bucket._tokens == 0


@pytest.mark.cluster
async def test_a_real_server_takes_each_verb_and_refuses_with_the_type_that_we_expect(cluster):
    where = {"namespace": "default"}
    name = "client-test"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    api = await KubeApi.connect(kubeconfig=str(cluster.kubeconfig))
    try:
        made = await api.create(CONFIG_MAPS, body, "default")
        with pytest.raises(errors.AlreadyExistsError):
            await api.create(CONFIG_MAPS, body, "default")
        applied = await api.patch(
            CONFIG_MAPS,
            name,
            body | {"data": {"a": "1"}},
            kind=PatchKind.APPLY,
            field_manager="test",
            **where,
        )
        swap = {"op": "replace", "path": "/data/a", "value": "2"}
        guard = {"op": "test", "path": "/data/a", "value": "other"}
        with pytest.raises(errors.InvalidError):  # a JSON patch's failed test is a 422
            await api.patch(CONFIG_MAPS, name, [guard, swap], kind=PatchKind.JSON, **where)
        swapped = await api.patch(CONFIG_MAPS, name, [swap], kind=PatchKind.JSON, **where)
        with pytest.raises(errors.ConflictError):
            await api.replace(CONFIG_MAPS, name, applied, **where)
        with pytest.raises(errors.ConflictError):
            await api.delete(CONFIG_MAPS, name, uid="another", **where)
        await api.delete(CONFIG_MAPS, name, uid=made["metadata"]["uid"], **where)
        with pytest.raises(errors.NotFoundError):
            await api.get(CONFIG_MAPS, name, "default")
    finally:
        await api.close()

    assert applied["data"] == {"a": "1"}
    assert swapped["data"] == {"a": "2"}


@pytest.mark.cluster
async def test_in_a_pod_the_service_account_is_used(cluster, monkeypatch, tmp_path):
    account = yaml.safe_load(cluster.kubeconfig_for_service_account("default", "default").read_text())
    (tmp_path / "token").write_text(account["users"][0]["user"]["token"])
    server = urlsplit(cluster.url)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", server.hostname)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    for module in (aio_incluster, blocking_incluster):
        monkeypatch.setattr(module, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
        monkeypatch.setattr(module, "SERVICE_CERT_FILENAME", str(cluster.ca_file))

    api = await KubeApi.connect()
    try:
        with pytest.raises(errors.ForbiddenError) as raised:
            await api.list_page(NODES)
    finally:
        await api.close()
    status, body = await asyncio.to_thread(blocking_http(), "GET", NODES.path(), None, 5)

    assert raised.value.status == status == 403  # known to the server, and not 401
    assert "system:serviceaccount:default:default" in raised.value.message
    assert b"system:serviceaccount:default:default" in body

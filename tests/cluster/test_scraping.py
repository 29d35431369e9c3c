"""Asking replicas and Prometheus over real HTTP: names in both spellings, rates, and answers that mean harm."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
from aiohttp import web
from hack.engines import Engines

from builders import NOW, a_replica, a_serving_pool
from stokehold.cluster.scraping.exposition import UnreadableError, read_metrics
from stokehold.cluster.scraping.rates import History
from stokehold.cluster.scraping.scraper import AnswerError, Scraper, ScrapeSettings, read_answer
from stokehold.cluster.snapshots import Cluster
from stokehold.model.engines import ENGINES, Raw
from stokehold.model.load import PoolLoad, Signal

VLLM = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:num_requests_running_not_ours 99
"""


def test_names_with_a_colon_and_with_an_underscore_are_the_same():
    expected = {Raw.RUNNING: 5.0, Raw.WAITING: 7.0, Raw.KV_CACHE: 0.75}

    assert read_metrics(VLLM, "vllm") == expected
    assert read_metrics(VLLM.replace("vllm:", "vllm_"), "vllm") == expected


def test_both_spellings_at_once_are_counted_once():
    assert read_metrics(VLLM + VLLM.replace("vllm:", "vllm_"), "vllm")[Raw.RUNNING] == 5.0


def test_old_name_of_a_series_is_understood():
    assert read_metrics("vllm:gpu_cache_usage_perc 0.5\n", "vllm") == {Raw.KV_CACHE: 0.5}


def test_triton_is_read_by_its_labels():
    text = """\
nv_trt_llm_request_metrics{model="m",request_type="waiting"} 4
nv_trt_llm_request_metrics{model="m",request_type="scheduled"} 6
nv_trt_llm_request_metrics{model="m",request_type="max"} 64
nv_inference_request_duration_us{model="m"} 2500000
"""
    assert read_metrics(text, "triton") == {Raw.WAITING: 4, Raw.RUNNING: 6, Raw.LATENCY_SUM: 2.5}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e300"])
def test_number_that_cannot_be_is_missing_and_not_zero(value: str):
    assert read_metrics(f"vllm:num_requests_running {value}\n", "vllm") == {}


def test_text_that_is_not_metrics_is_refused():
    with pytest.raises(UnreadableError):
        read_metrics("vllm:num_requests_running{ 3\n", "vllm")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("vllm:num_requests_running{" + "".join(f'a{i}="",' for i in range(10**5)) + "} 1\n", "a line"),
        ("vllm:num_requests_running 1\n" * 10**5, "its lines"),
    ],
    ids=["labels", "samples"],
)
def test_metrics_that_would_take_the_parser_long_are_refused(text: str, complaint: str):
    with pytest.raises(UnreadableError, match=complaint):
        read_metrics(text, "vllm")


def test_what_nobody_can_read_is_told_in_the_same_words_whatever_it_says():
    told = set()
    for value in ("abc", "xyz"):
        with pytest.raises(UnreadableError) as raised:
            read_metrics(f"vllm:num_requests_running {value}\n", "vllm")
        told.add(str(raised.value))

    assert len(told) == 1


def test_line_ends_of_other_systems_and_in_labels_do_not_matter():
    text = 'vllm:num_requests_running{model="a\u2028b"} 1\r\nvllm:num_requests_waiting 2\r\n'

    assert read_metrics(text, "vllm") == {Raw.RUNNING: 1, Raw.WAITING: 2}


def test_every_engine_but_custom_tells_its_queue():
    assert all(Raw.WAITING in names for engine, names in ENGINES.items() if engine != "custom")


def test_arrivals_count_what_piles_up_behind_a_full_engine():
    history = History()
    first = {Raw.RUNNING: 8.0, Raw.WAITING: 0.0, Raw.FINISHED: 100.0}
    history.take(NOW, first)

    reading = history.take(NOW + timedelta(seconds=30), {**first, Raw.WAITING: 60.0, Raw.FINISHED: 220.0})

    assert reading.values[Signal.ARRIVALS] == 6.0


def test_a_few_seconds_make_no_rate():
    history = History()
    history.take(NOW, {Raw.RUNNING: 0.0, Raw.WAITING: 0.0, Raw.FINISHED: 0.0})

    reading = history.take(NOW + timedelta(seconds=2), {Raw.RUNNING: 8.0, Raw.WAITING: 24.0, Raw.FINISHED: 0.0})

    assert Signal.ARRIVALS not in reading.values


def test_service_time_leaves_out_the_time_in_the_queue():
    history = History()
    history.take(NOW, {Raw.LATENCY_SUM: 100.0, Raw.LATENCY_COUNT: 10.0, Raw.QUEUED_SUM: 50.0})

    reading = history.take(
        NOW + timedelta(seconds=30), {Raw.LATENCY_SUM: 160.0, Raw.LATENCY_COUNT: 20.0, Raw.QUEUED_SUM: 70.0}
    )

    assert reading.values[Signal.SERVICE_SECONDS] == 4.0


def test_counter_that_starts_again_gives_no_rate():
    history = History()
    history.take(NOW, {Raw.FINISHED: 100.0})

    reading = history.take(NOW + timedelta(seconds=30), {Raw.FINISHED: 5.0})

    assert Signal.ARRIVALS not in reading.values


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"status": "success", "data": {"resultType": "scalar", "result": [1, "4.5"]}}', 4.5),
        ('{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "7"]}]}}', 7),
    ],
)
def test_answer_of_prometheus_is_one_number(answer: str, expected: float):
    assert read_answer(answer) == expected


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ('{"status": "success", "data": {"resultType": "vector", "result": []}}', "is empty"),
        ('{"status": "success", "data": {"resultType": "vector", "result": [1, 2]}}', "2 series: wrap the query"),
        ('{"status": "success", "data": {"resultType": "matrix", "result": []}}', "not one number"),
        ('{"status": "success", "data": {"resultType": "scalar", "result": [1, "NaN"]}}', "NaN"),
        ('{"status": "error", "error": "parse error at char 3"}', "parse error at char 3"),
        ('{"status": "success", "data": {"resultType": "scalar", "result": [1, 1' + "0" * 400 + "]}}", "not that of"),
        ("[" * 10**5, "not that of Prometheus"),
        ("<html>", "not that of Prometheus"),
    ],
)
def test_answer_that_is_not_one_number_says_so(answer: str, complaint: str):
    with pytest.raises(AnswerError, match=complaint):
        read_answer(answer)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Replicas:
    """Real HTTP servers, one path for each behaviour; the pod's name is the path."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Handler] = {}
        self.hits: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.hits.append(request.path)
        return await self.behaviours[request.match_info["name"]](request)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    made = Replicas()
    app = web.Application()
    app.router.add_get("/{name:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}"
    yield made
    await runner.cleanup()


async def scraped(pods: list[str], settings: ScrapeSettings, **spec: object) -> PoolLoad:
    """The load of a pool once a source has answered, or failed."""
    cluster = Cluster(lambda: None, lambda: NOW)
    pool = a_serving_pool(**spec)
    cluster.serving_pools.values[pool.key] = pool
    for i, name in enumerate(pods):
        pod = a_replica(i, address="127.0.0.1")
        home = cluster.pods.by_member.setdefault((pod.namespace, pod.member), {})
        home[pod.namespace, name] = pod
    seen = asyncio.Event()
    results: list[tuple[str, str]] = []

    def observe(source: str, result: str) -> None:
        results.append((source, result))

    scraper = Scraper(cluster, settings, lambda: NOW, seen.set, observe)
    running = asyncio.create_task(scraper.run())
    try:
        async with asyncio.timeout(10):
            await seen.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert results
    return cluster.loads[pool.key]


async def test_hang_flood_garbage_and_redirect_cost_the_replica_its_metrics_and_nobody_else(replicas: Replicas):
    async def well(_: web.Request) -> web.StreamResponse:
        return web.Response(text=VLLM)

    async def hangs(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async def floods(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65536)

    async def redirects(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/secret")

    async def garbage(_: web.Request) -> web.StreamResponse:
        return web.Response(text="vllm:num_requests_running{ 3\n")

    async def zipped(_: web.Request) -> web.StreamResponse:
        answer = web.Response(text="0" * 10**7)
        answer.enable_compression(web.ContentCoding.gzip)
        return answer

    replicas.behaviours = {f"chat-{i}": b for i, b in enumerate([well, hangs, floods, redirects, garbage, zipped])}
    settings = ScrapeSettings(
        deadline_seconds=1, largest_answer_bytes=10**6, scrape_via=f"{replicas.url}/{{pod}}", interval_seconds=60
    )

    load = await scraped(list(replicas.behaviours), settings)

    told = [load.replicas[f"uid-chat-{i}"] for i in range(6)]
    assert told[0].reading is not None
    assert told[0].reading.values[Signal.RUNNING] == 5
    assert told[1].problem == "no answer within 1 s"
    assert told[2].problem == "answers with more than 1000000 bytes"
    assert told[3].problem == "answers with status 302"
    assert "/secret" not in replicas.hits
    assert "text format" in told[4].problem
    assert told[5].reading is None or told[5].reading.values == {}
    assert all(one.reading is None for one in told[1:5])


async def test_replica_that_nobody_serves_is_told_without_a_number_that_changes():
    load = await scraped(["chat-0"], ScrapeSettings(scrape_via="http://127.0.0.1:1/{pod}"))

    assert load.replicas["uid-chat-0"].problem.startswith("no connection")


async def test_query_is_asked_at_the_operators_own_address_alone(replicas: Replicas):
    async def prometheus(request: web.Request) -> web.StreamResponse:
        assert request.query["query"] == "sum(up)"
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [1, "12"]}})

    replicas.behaviours = {"api/v1/query": prometheus}
    scaling = {"engine": "custom", "metrics": [{"type": "Prometheus", "query": "sum(up)", "target": "1"}]}

    known = await scraped([], ScrapeSettings(prometheus_url=replicas.url), scaling=scaling)
    unknown = await scraped([], ScrapeSettings(), scaling=scaling)

    assert known.queries["sum(up)"].reading.values == {Signal.TOTAL: 12}
    assert "--prometheus-url" in unknown.queries["sum(up)"].problem


async def test_engines_of_the_tests_speak_what_we_read():
    engines = Engines.start(places=8)
    try:
        engines.clients = 20
        load = await scraped(["chat-0"], ScrapeSettings(scrape_via=engines.address))
        engines.silent = True
        silent = await scraped(["chat-0"], ScrapeSettings(scrape_via=engines.address))
    finally:
        engines.stop()

    assert load.replicas["uid-chat-0"].reading.values[Signal.RUNNING] == 8
    assert load.replicas["uid-chat-0"].reading.values[Signal.WAITING] == 12
    assert silent.replicas["uid-chat-0"].problem == "answers with status 500"

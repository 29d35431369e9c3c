"""Under which names each inference engine tells its load.

A name with a colon is also looked for with an underscore: prometheus_client rewrites it when it is scraped as
OpenMetrics without UTF-8 names. An engine that has renamed a series has both names here, the newest first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Raw(StrEnum):
    """What is read from an engine's metrics; counters are turned into rates afterwards."""

    WAITING = "waiting"
    RUNNING = "running"
    KV_CACHE = "kv cache"
    FINISHED = "finished requests"
    LATENCY_SUM = "latency"
    LATENCY_COUNT = "latency count"
    QUEUED_SUM = "time in queue"


@dataclass(frozen=True, slots=True)
class Series:
    """One series, or the sum of all with these labels; `scale` brings its value to base units."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    scale: float = 1.0

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names under which it may appear."""
        plain = self.name.replace(":", "_")
        return (self.name,) if plain == self.name else (self.name, plain)

    def __str__(self) -> str:
        inside = ",".join(f'{key}="{value}"' for key, value in self.labels)
        return f"{self.name}{{{inside}}}" if inside else self.name


def _trt_llm(request_type: str) -> Series:
    return Series("nv_trt_llm_request_metrics", (("request_type", request_type),))


MICRO = 1e-6

ENGINES: Mapping[str, Mapping[Raw, tuple[Series, ...]]] = {
    "vllm": {
        Raw.WAITING: (Series("vllm:num_requests_waiting"),),
        Raw.RUNNING: (Series("vllm:num_requests_running"),),
        Raw.KV_CACHE: (Series("vllm:kv_cache_usage_perc"), Series("vllm:gpu_cache_usage_perc")),
        Raw.FINISHED: (Series("vllm:request_success_total"),),
        Raw.LATENCY_SUM: (Series("vllm:e2e_request_latency_seconds_sum"),),
        Raw.LATENCY_COUNT: (Series("vllm:e2e_request_latency_seconds_count"),),
        Raw.QUEUED_SUM: (Series("vllm:request_queue_time_seconds_sum"),),
    },
    "sglang": {
        Raw.WAITING: (Series("sglang:num_queue_reqs"),),
        Raw.RUNNING: (Series("sglang:num_running_reqs"),),
        Raw.KV_CACHE: (Series("sglang:token_usage"),),
        Raw.FINISHED: (Series("sglang:num_requests_total"),),
        Raw.LATENCY_SUM: (Series("sglang:e2e_request_latency_seconds_sum"),),
        Raw.LATENCY_COUNT: (Series("sglang:e2e_request_latency_seconds_count"),),
        Raw.QUEUED_SUM: (Series("sglang:queue_time_seconds_sum"),),
    },
    # nv_inference_exec_count is a counter of executions, not a number of requests in work: without TensorRT-LLM
    # Triton does not tell its concurrency.
    "triton": {
        Raw.WAITING: (_trt_llm("waiting"), Series("nv_inference_pending_request_count")),
        Raw.RUNNING: (_trt_llm("scheduled"),),
        Raw.KV_CACHE: (Series("nv_trt_llm_kv_cache_block_metrics", (("kv_cache_block_type", "fraction"),)),),
        Raw.FINISHED: (Series("nv_inference_request_success"),),
        Raw.LATENCY_SUM: (Series("nv_inference_request_duration_us", scale=MICRO),),
        Raw.LATENCY_COUNT: (Series("nv_inference_request_success"),),
        Raw.QUEUED_SUM: (Series("nv_inference_queue_duration_us", scale=MICRO),),
    },
    "custom": {},
}


def names_of(engine: str, *wanted: Raw) -> str:
    """The names that were looked for, as text for people."""
    series = [one for raw in wanted for one in ENGINES[engine].get(raw, ())]
    return ", ".join(str(one) for one in series)

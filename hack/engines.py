"""Inference engines that are only their metrics: one HTTP server that speaks as every replica of a pool.

Simulated pods have no address, so the operator is told to ask here (`address`, for --scrape-via). Clients that always
have one request under way are spread evenly over the replicas that were asked lately, a new one among them after a
moment; a replica works on as many at once as it has places, the others wait. The text is vLLM's; it is written by
hand, for a library would rewrite names.
"""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

SERVICE_SECONDS = 2.0
FORGET_AFTER_SECONDS = 6.0
JOIN_AFTER_SECONDS = 0.5
"""Until then no client has found a new replica: in one round of questions no client is counted twice."""


class Engines:
    """The engines of all replicas that somebody asks; `clients` may be changed at any time."""

    def __init__(self, places: int = 8) -> None:
        self.clients = 0
        self.places = places
        self.silent = False
        """Whether every question is answered with an error."""
        self.separator = ":"
        """What stands in the names: a colon, or an underscore as newer clients write it."""
        self._asked: dict[str, float] = {}
        self._born: dict[str, float] = {}
        self._counters: dict[str, tuple[float, float, float]] = {}
        self._lock = threading.Lock()
        engines = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = "" if engines.silent else engines.metrics(self.path)
                self.send_response(500 if engines.silent else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self.port: int = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}/{{namespace}}/{{pod}}/metrics"

    @classmethod
    def start(cls, places: int = 8) -> Self:
        """Engines that listen; `stop` them."""
        engines = cls(places)
        engines._thread.start()
        return engines

    def stop(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def asked(self) -> list[str]:
        """The paths that were asked lately: one for each replica that is scraped."""
        with self._lock:
            return sorted(self._asked)

    def metrics(self, path: str) -> str:
        """What the replica of this path says now."""
        now = time.monotonic()
        with self._lock:
            since = now - self._asked.get(path, now)
            self._asked[path] = now
            self._asked = {p: at for p, at in self._asked.items() if now - at < FORGET_AFTER_SECONDS}
            self._born = {p: self._born.get(p, now) for p in self._asked}
            known = [p for p, born in self._born.items() if now - born >= JOIN_AFTER_SECONDS] or list(self._born)
            share = self.clients / len(known) if path in known else 0.0
            running = min(float(self.places), share)
            waits = share - running
            finished, worked, queued = self._counters.get(path, (0.0, 0.0, 0.0))
            finished += since * running / SERVICE_SECONDS
            worked += since * running
            queued += since * waits
            self._counters[path] = (finished, worked, queued)
        values = {
            "num_requests_running": running,
            "num_requests_waiting": waits,
            "kv_cache_usage_perc": running / self.places,
            "request_success_total": finished,
            "e2e_request_latency_seconds_sum": worked + queued,
            "e2e_request_latency_seconds_count": finished,
            "request_queue_time_seconds_sum": queued,
        }
        label = '{model_name="test",engine="0"}'
        lines = [f"vllm{self.separator}{name}{label} {value}" for name, value in values.items()]
        return "\n".join(["# HELP process_cpu_seconds_total CPU.", "process_cpu_seconds_total 1.5", *lines, ""])

"""A real Prometheus on loopback that scrapes what a test names, each second."""

import json
import math
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from hack.cluster.ports import choose

from hack import binaries

READY_WITHIN_SECONDS = 60.0
Sample = tuple[dict[str, str], float]


class Prometheus:
    """The server; targets can come and go while it runs."""

    def __init__(self, directory: Path, rules: Sequence[Path]) -> None:
        self._directory = directory
        self._log = directory / "prometheus.log"
        (port,) = choose(("prometheus",), ()).values()
        self.url = f"http://127.0.0.1:{port}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "file_sd_configs": [{"files": [str(directory / f"{job}.json")]}]}
                for job in ("operator", "agent")
            ],
        }
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own binary
                [
                    binaries.ensure(["prometheus"]).path("prometheus"),
                    f"--config.file={directory / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=output,
                stderr=output,
            )

    @classmethod
    def start(cls, directory: Path, rules: Sequence[Path] = ()) -> Self:
        """Start one and wait until it answers."""
        server = cls(directory, rules)
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while time.monotonic() < deadline:
            assert server._process.poll() is None, server._log.read_text()
            try:
                with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5):  # noqa: S310 - loopback
                    return server
            except OSError:
                time.sleep(0.1)
        server.stop()
        raise AssertionError(f"Prometheus is not ready: {server._log.read_text()}")

    def stop(self) -> None:
        """End it by pid."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def scrape(self, job: str, *ports: int) -> None:
        """From now on scrape these ports, and no others, as the job."""
        groups = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        unfinished = self._directory / f"{job}.unfinished"
        unfinished.write_text(json.dumps(groups))
        unfinished.rename(self._directory / f"{job}.json")

    def ask(self, expr: str) -> list[Sample]:
        """The labels and values that an expression has now; NaN is no value."""
        found = self._get("query", query=expr)["result"]
        samples = ((series["metric"], float(series["value"][1])) for series in found)
        return [(labels, value) for labels, value in samples if not math.isnan(value)]

    def value(self, expr: str) -> float | None:
        """The one value of an expression; None when it has none, or several."""
        found = self.ask(expr)
        return found[0][1] if len(found) == 1 else None

    def rules(self) -> list[dict[str, Any]]:
        """The rules as the server sees them, with health and the last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as reply:  # noqa: S310 - loopback
            return json.load(reply)["data"]

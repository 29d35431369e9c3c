"""Tells a person how a long step goes: one moving line on a terminal, a plain line now and then in a log."""

import sys
import threading
import time
from types import TracebackType

PLAIN_INTERVAL_SECONDS = 20.0
TERMINAL_INTERVAL_SECONDS = 0.5


class Progress:
    """One step with a name; it says how long it has run even while the step itself is silent."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._note = ""
        self._started = time.monotonic()
        self._is_terminal = sys.stdout.isatty()
        self._finished = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        self._write("started")
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        if error is not None:
            self._end("failed")

    def say(self, note: str) -> None:
        """What the next line shows."""
        self._note = note

    def done(self, note: str) -> None:
        """Ends the step with its result."""
        self._stop()
        self._end(note)

    def _stop(self) -> None:
        self._finished.set()
        self._ticker.join()

    def _tick(self) -> None:
        interval = TERMINAL_INTERVAL_SECONDS if self._is_terminal else PLAIN_INTERVAL_SECONDS
        while not self._finished.wait(interval):
            self._write(f"{time.monotonic() - self._started:.0f} s, {self._note}")

    def _write(self, text: str) -> None:
        if self._is_terminal:
            print(f"\r\033[K{self._name}: {text}", end="", flush=True)
        else:
            print(f"{self._name}: {text}", flush=True)

    def _end(self, text: str) -> None:
        self._write(text)
        if self._is_terminal:
            print(flush=True)

"""Watches NVML's own process: a deadline for each look, SIGKILL after it, a new process later.

A look always ends and never raises: what could not be read comes back as a reading with an error.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from stokehold.agent.nvml_process import NvmlProcess
from stokehold.agent.readings import NodeReading

# A process in D state survives SIGKILL; a third one would not help the driver.
MAX_UNREAPED = 2


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long to wait for what, in seconds."""

    look: float = 10.0
    # Without persistence mode the first open initialises each GPU, which takes seconds.
    opening: float = 60.0
    close: float = 5.0
    first_back_off: float = 2.0
    longest_back_off: float = 30.0


class Sampler:
    """NVML at arm's length."""

    def __init__(
        self,
        deadlines: Deadlines,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.restarts = 0
        self._deadlines = deadlines
        self._monotonic = monotonic
        self._child: NvmlProcess | None = None
        self._dying: list[NvmlProcess] = []
        self._failures = 0
        self._spawn_at = 0.0
        self._trouble = ""

    async def look(self) -> NodeReading:
        """One look at the GPUs, within the deadline."""
        self._dying = [child for child in self._dying if child.is_alive]
        if self._child is None:
            if self._monotonic() < self._spawn_at:
                return NodeReading(error=self._trouble)
            if len(self._dying) >= MAX_UNREAPED:
                return NodeReading(error=f"{self._trouble}; its process cannot be killed")
            try:
                self._child = await NvmlProcess.spawn("look")
            except OSError as error:
                return NodeReading(error=f"NVML's process could not be started: {error}")
        return await self._look_with(self._child)

    async def close(self) -> None:
        """Let the process shut NVML down and end; kill it if it does not."""
        if self._child is not None:
            await self._child.close(self._deadlines.close)
            self._child = None

    async def _look_with(self, child: NvmlProcess) -> NodeReading:
        end = self._monotonic() + self._deadlines.look
        if not child.is_open:
            opened = await self._answer(child, self._deadlines.look)
            age = self._monotonic() - child.started_at
            if opened is None and age < self._deadlines.opening:
                return NodeReading(error=f"NVML is opening: {child.progress} for {age:.0f} s")
            if opened is None or opened.error:
                return self._give_up(child, opened, age)
            child.is_open = True
        child.order("look")
        reading = await self._answer(child, max(end - self._monotonic(), 0.1))
        if reading is None or reading.error:
            return self._give_up(child, reading, self._deadlines.look)
        self._failures = 0
        return reading

    async def _answer(self, child: NvmlProcess, seconds: float) -> NodeReading | None:
        """The answer, None after the deadline; a process that ended answers with an error."""
        line = await child.wait_line(seconds)
        if line is None:
            return None
        if not line:
            return NodeReading(error=f"NVML's process ended during {child.progress or 'a pause'}")
        try:
            return msgspec.json.decode(line, type=NodeReading)
        except msgspec.DecodeError as error:
            return NodeReading(error=f"NVML's process answered nonsense: {error}")

    def _give_up(self, child: NvmlProcess, reading: NodeReading | None, waited: float) -> NodeReading:
        """Give the process up; the next one starts after a pause that grows."""
        self._trouble = (
            reading.error if reading is not None else f"nvml call {child.progress} did not return in {waited:.3g} s"
        )
        child.kill()
        self._dying.append(child)
        self._child = None
        self.restarts += 1
        pause = min(self._deadlines.first_back_off * 2**self._failures, self._deadlines.longest_back_off)
        self._failures = min(self._failures + 1, 16)
        self._spawn_at = self._monotonic() + pause
        return NodeReading(error=self._trouble)

"""One process that holds NVML: started, given orders, read line by line, ended. No NVML here."""

import asyncio
import mmap
import os
import signal
import sys
import time
from typing import Self

from stokehold.agent.progress import PROGRESS_BYTES, read_progress

MAX_LINE_BYTES = 4 << 20


class NvmlProcess:
    """A running `sampler_child`; an order may stay unanswered for ever."""

    def __init__(self, process: asyncio.subprocess.Process, shared: mmap.mmap) -> None:
        self.is_open = False
        self.started_at = time.monotonic()
        self._process = process
        self._shared = shared
        self._line: asyncio.Task[bytes] | None = None

    @classmethod
    async def spawn(cls, mode: str, *arguments: str) -> Self:
        """Start it. It has its own session, so that Ctrl-C reaches the agent alone."""
        descriptor = os.memfd_create("stokehold-nvml-progress")
        try:
            os.ftruncate(descriptor, PROGRESS_BYTES)
            shared = mmap.mmap(descriptor, PROGRESS_BYTES)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "stokehold.agent.sampler_child",
                str(descriptor),
                mode,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(descriptor,),
                start_new_session=True,
                limit=MAX_LINE_BYTES,
            )
        finally:
            os.close(descriptor)
        return cls(process, shared)

    @property
    def is_alive(self) -> bool:
        """Whether the kernel has not yet let it go."""
        return self._process.returncode is None

    @property
    def progress(self) -> str:
        """The NVML call under way, or its start when it has made none yet."""
        return read_progress(self._shared)

    def order(self, order: str) -> None:
        """Ask for one line; a process that has ended does not take it."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(f"{order}\n".encode())

    async def wait_line(self, seconds: float) -> bytes | None:
        """The next line, empty at its end, None when it took longer; a later call goes on."""
        if self._line is None:
            self._line = asyncio.ensure_future(self._read_line())
        await asyncio.wait({self._line}, timeout=seconds)
        if not self._line.done():
            return None
        line, self._line = self._line.result(), None
        return line

    def kill(self) -> None:
        """End it without waiting: in D state it ends when the driver lets it."""
        if self._line is not None:
            self._line.cancel()
            self._line = None
        if self.is_alive:
            self._process.send_signal(signal.SIGKILL)

    async def close(self, seconds: float) -> None:
        """Let it shut NVML down; kill it when that takes too long."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if not await self._has_ended_within(seconds):
            self.kill()
            await self._has_ended_within(1.0)
        if self._line is not None:
            self._line.cancel()

    async def _read_line(self) -> bytes:
        if self._process.stdout is None:
            return b""
        try:
            return await self._process.stdout.readline()
        except (ValueError, ConnectionError):
            return b""  # a line past all bounds is as good as none

    async def _has_ended_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

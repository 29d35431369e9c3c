"""The name of the NVML call under way, in memory that two processes share. Costs no system call."""

import mmap
from collections.abc import Callable

PROGRESS_BYTES = 256


def progress_writer(descriptor: int) -> Callable[[str], None]:
    """Returns what announces a call to the other process."""
    shared = mmap.mmap(descriptor, PROGRESS_BYTES)

    def announce(call: str) -> None:
        shared[:] = call.encode()[: PROGRESS_BYTES - 1].ljust(PROGRESS_BYTES, b"\0")

    return announce


def read_progress(shared: mmap.mmap) -> str:
    """The call that the other process announced last."""
    return shared[:].split(b"\0", 1)[0].decode(errors="replace")

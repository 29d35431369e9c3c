"""Builds the fake NVML and steers it: what a GPU shows, which call fails, which one hangs.

The structures mirror those of fake_nvml.c byte for byte; both sides name the same LAYOUT.
"""

import ctypes
import mmap
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

LAYOUT = 0x53544B31
MAX_GPUS, MAX_MIG, MAX_PROCESSES, MAX_RULES, MAX_SESSIONS = 8, 7, 16, 16, 8
ALWAYS, EVERY_GPU = -1, -1
FOREVER_SECONDS = 3600.0
MIB = 1 << 20

# The results that tests ask for, by the names of nvml.h.
NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, DRIVER_NOT_LOADED = 3, 4, 6, 9
GPU_IS_LOST, UNKNOWN_ERROR = 15, 999

SOURCE = Path(__file__).with_name("fake_nvml.c")


class Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("gi", ctypes.c_uint32),
        ("ci", ctypes.c_uint32),
        ("memory", ctypes.c_uint64),
    )


class MigDevice(ctypes.Structure):
    _fields_ = (
        ("present", ctypes.c_uint32),
        ("gi", ctypes.c_uint32),
        ("ci", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("uuid", ctypes.c_char * 64),
        ("name", ctypes.c_char * 64),
    )


class Gpu(ctypes.Structure):
    _fields_ = (
        ("uuid", ctypes.c_char * 64),
        ("name", ctypes.c_char * 64),
        ("bus_id", ctypes.c_char * 32),
        ("minor", ctypes.c_uint32),
        ("mig_supported", ctypes.c_uint32),
        ("mig_mode", ctypes.c_uint32),
        ("mig_pending", ctypes.c_uint32),
        ("utilization", ctypes.c_uint32),
        ("memory_utilization", ctypes.c_uint32),
        ("peak", ctypes.c_uint32),
        ("ring_is_empty", ctypes.c_uint32),
        ("power_mw", ctypes.c_uint32),
        ("power_limit_mw", ctypes.c_uint32),
        ("temperature", ctypes.c_uint32),
        ("recovery_action", ctypes.c_uint32),
        ("rows_pending", ctypes.c_uint32),
        ("rows_failed", ctypes.c_uint32),
        ("persistence", ctypes.c_uint32),
        ("n_processes", ctypes.c_uint32),
        ("memory_total", ctypes.c_uint64),
        ("memory_used", ctypes.c_uint64),
        ("memory_reserved", ctypes.c_uint64),
        ("energy_mj", ctypes.c_uint64),
        ("energy_at_us", ctypes.c_uint64),
        ("processes", Process * MAX_PROCESSES),
        ("mig", MigDevice * MAX_MIG),
    )

    def run(self, *processes: tuple[int, int]) -> None:
        """Makes these (pid, bytes) the compute processes on the GPU."""
        for slot, (pid, memory) in enumerate(processes):
            self.processes[slot] = Process(pid, 0, 0xFFFFFFFF, 0xFFFFFFFF, memory)
        self.n_processes = len(processes)

    def split(self, *gpu_instances: int) -> None:
        """Turns MIG on with one device for each GPU instance id, the way 1g.10gb slices look."""
        self.mig_supported = self.mig_mode = self.mig_pending = 1
        for slot in range(MAX_MIG):
            self.mig[slot].present = 0
        for slot, instance in enumerate(gpu_instances):
            self.mig[slot] = MigDevice(
                present=1,
                gi=instance,
                memory_total=9856 * MIB,
                memory_used=12 * MIB,
                uuid=f"MIG-{instance:08d}-{self.minor:04d}-0000-0000-000000000000".encode(),
                name=self.name + b" MIG 1g.10gb",
            )

    def merge(self) -> None:
        """Turns MIG off."""
        self.mig_mode = self.mig_pending = 0


class Rule(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_char * 64),
        ("gpu", ctypes.c_int32),
        ("result", ctypes.c_int32),
        ("remaining", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("delay_us", ctypes.c_uint64),
    )


class Control(ctypes.Structure):
    _fields_ = (
        ("layout", ctypes.c_uint32),
        ("n_gpus", ctypes.c_uint32),
        ("driver", ctypes.c_char * 32),
        ("calls", ctypes.c_uint64),
        ("inits", ctypes.c_uint64),
        ("sessions", ctypes.c_uint32 * MAX_SESSIONS),
        ("rules", Rule * MAX_RULES),
        ("gpus", Gpu * MAX_GPUS),
    )


def build(directory: Path, *, old_driver: bool = False, without: Sequence[str] = ()) -> Path:
    """Compiles the library, less some of its symbols, into the directory and returns its path."""
    library = directory / "libnvidia-ml.so.1"
    flags = [*(["-DOLD_DRIVER"] if old_driver else []), *(f"-D{symbol}=absent_{symbol}" for symbol in without)]
    subprocess.run(  # noqa: S603 - our own source
        [
            *("gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *flags),
            *("-Wl,-soname,libnvidia-ml.so.1", str(SOURCE), "-o", str(library)),
        ],
        check=True,
    )
    return library


class FakeNvml:
    """The steering wheel: every change is seen by a program's next call."""

    def __init__(self, library: Path, control_file: Path, gpus: int = 2) -> None:
        self.shared_object = library
        self.control_file = control_file
        control_file.write_bytes(bytes(ctypes.sizeof(Control)))
        self._file = control_file.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._control = Control.from_buffer(self._map)
        self._control.layout = LAYOUT
        self.driver_version = "580.65.06"
        self.count = gpus
        for index in range(MAX_GPUS):
            self._boot(index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # the map itself lives as long as a test holds one of its GPUs

    def __getitem__(self, index: int) -> Gpu:
        gpu: Gpu = self._control.gpus[index]
        return gpu

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to load this library."""
        return {
            "LD_LIBRARY_PATH": str(self.shared_object.parent),
            "FAKE_NVML_CTL": str(self.control_file),
        }

    @property
    def driver_version(self) -> str:
        version: bytes = self._control.driver
        return version.decode()

    @driver_version.setter
    def driver_version(self, version: str) -> None:
        self._control.driver = version.encode()

    @property
    def count(self) -> int:
        return int(self._control.n_gpus)

    @count.setter
    def count(self, gpus: int) -> None:
        self._control.n_gpus = gpus

    @property
    def calls(self) -> int:
        """How many calls the library has answered."""
        return int(self._control.calls)

    @property
    def inits(self) -> int:
        """How often a program has opened the library."""
        return int(self._control.inits)

    @property
    def sessions(self) -> tuple[int, ...]:
        """The processes that hold the library open; the kernel closes it for a dead one."""
        return tuple(pid for pid in self._control.sessions if pid and _is_alive(pid))

    def fail(self, call: str, result: int, *, gpu: int = EVERY_GPU, times: int = ALWAYS) -> None:
        """Lets the call ("*": each) return the result."""
        self._add(Rule(call.encode(), gpu, result, times, 0, 0))

    def hang(self, call: str, *, gpu: int = EVERY_GPU, seconds: float = FOREVER_SECONDS) -> None:
        """Lets the call wait; heal() ends the wait."""
        self._add(Rule(call.encode(), gpu, 0, ALWAYS, 0, int(seconds * 1e6)))

    def heal(self) -> None:
        """Drops each rule."""
        for slot in range(MAX_RULES):
            self._control.rules[slot] = Rule()

    def load_driver(self, version: str) -> None:
        """What a driver reload leaves behind: another version, counters that start at zero."""
        self.driver_version = version
        for index in range(MAX_GPUS):
            self[index].energy_mj = self[index].energy_at_us = 0
        self.heal()

    @contextmanager
    def unloaded(self, version: str) -> Iterator[None]:
        """No driver inside the block; a newer one after it."""
        self.fail("*", DRIVER_NOT_LOADED)
        yield
        self.load_driver(version)

    def _boot(self, index: int) -> None:
        gpu = self[index]
        gpu.uuid = uuid_of(index).encode()
        gpu.name = b"NVIDIA H100 80GB HBM3"
        gpu.bus_id = f"00000000:{0x10 + index:02X}:00.0".encode()
        gpu.minor = index
        gpu.mig_supported = 1
        gpu.power_mw, gpu.power_limit_mw = 70_000, 700_000
        gpu.temperature = 31
        gpu.persistence = 1
        gpu.memory_total, gpu.memory_reserved = 81_559 * MIB, 500 * MIB
        gpu.energy_mj = 1_000_000_000

    def _add(self, rule: Rule) -> None:
        for slot in range(MAX_RULES):
            if not self._control.rules[slot].call:
                self._control.rules[slot] = rule
                return
        raise ValueError(f"more than {MAX_RULES} rules")


def uuid_of(index: int) -> str:
    """The UUID that the fake GPU of this index has."""
    return f"GPU-{index:08d}-aaaa-bbbb-cccc-000000000000"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"

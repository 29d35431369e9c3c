"""Free loopback ports, each claimed by one cluster at a time."""

import secrets
import socket
from collections.abc import Iterable, Sequence

# Below the kernel's range for outgoing connections, or a client could take a port between
# its choice and its server's start.
FIRST, LAST = 20000, 29999
ATTEMPTS = 2000


class NoPortError(RuntimeError):
    """Too few free ports on loopback."""


def choose(names: Sequence[str], claimed: Iterable[int] = ()) -> dict[str, int]:
    """A free port for each name, none of them claimed by another cluster."""
    taken = set(claimed)
    chosen: dict[str, int] = {}
    for _ in range(ATTEMPTS):
        if len(chosen) == len(names):
            return chosen
        port = FIRST + secrets.randbelow(LAST - FIRST + 1)
        if port not in taken and is_free(port):
            taken.add(port)
            chosen[names[len(chosen)]] = port
    raise NoPortError(f"no {len(names)} free ports between {FIRST} and {LAST}")


def is_free(port: int) -> bool:
    """Whether a server could listen here now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Go's listeners do: a closed connection in TIME_WAIT does not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

import socket

import pytest
from hack.cluster import ports


def test_ports_are_different_and_free() -> None:
    chosen = ports.choose(("a", "b", "c"))

    assert len(set(chosen.values())) == 3
    assert all(ports.is_free(port) for port in chosen.values())


def test_port_of_a_listening_server_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not ports.is_free(listener.getsockname()[1])


def test_claimed_ports_are_left_alone() -> None:
    everything = range(ports.FIRST, ports.LAST + 1)

    with pytest.raises(ports.NoPortError):
        ports.choose(("a",), everything)

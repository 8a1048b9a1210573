"""Listening sockets: on the given address, and never on a port in use."""

import socket
from collections.abc import Callable

import pytest

from app.base.errors import StartError
from app.server.sockets import listen
from tests.serving.processes import Program


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_refused_in_one_line(start: Callable[..., Program], workers: int) -> None:
    """Also one that another server shares between its workers."""
    first = start(workers=2)
    first.workers(2)
    second = start(port=first.port, workers=workers)
    assert second.wait() == 1
    assert second.output() == [f"tiny: port {first.port} is in use: stop the other program or pass --port N"]
    assert first.process.poll() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_common_host_names_listen_on_127_0_0_1(host: str) -> None:
    [listener] = listen(host, 0)
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 5):
        pass


def test_listens_on_ipv6() -> None:
    try:
        [listener] = listen("::1", 0)
    except StartError:
        pytest.skip("this machine has no IPv6")
    with listener, socket.create_connection(("::1", listener.getsockname()[1]), 5):
        pass


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "."])
def test_an_address_of_another_machine_is_refused_with_a_hint(host: str) -> None:
    with pytest.raises(StartError, match="is not an address of this machine: pass --host"):
        listen(host, 0)


def test_nagle_is_off_for_accepted_connections() -> None:
    [listener] = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname(), 5):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

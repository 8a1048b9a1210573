"""The socket: on the address that was asked for, and nobody else's."""

import socket
from collections.abc import Callable

import pytest

from app.base.errors import StartError
from app.server.sockets import listen
from tests.serving.processes import Program


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_refused_in_one_line(start: Callable[..., Program], workers: int) -> None:
    """Even one that another server shares out among its own workers."""
    first = start(workers=2)
    first.workers(2)
    second = start(port=first.port, workers=workers)
    assert second.ended() == 1
    assert second.said() == [f"tiny: port {first.port} is in use: stop the other program or pass --port N"]
    assert first.process.poll() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_the_usual_addresses_answer_on_127_0_0_1(host: str) -> None:
    [listener] = listen(host, 0)
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 5):
        pass


def test_ipv6_is_listened_on_as_well() -> None:
    try:
        [listener] = listen("::1", 0)
    except StartError:
        pytest.skip("this machine has no IPv6")
    with listener, socket.create_connection(("::1", listener.getsockname()[1]), 5):
        pass


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "."])
def test_an_address_of_another_machine_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(StartError, match="is no address of this machine: pass --host"):
        listen(host, 0)


def test_answers_are_not_held_back_to_fill_packets() -> None:
    [listener] = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname(), 5):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

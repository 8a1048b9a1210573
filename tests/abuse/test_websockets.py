"""Frames of WebSockets are bounded like the bodies of requests."""

import contextlib
import functools
import threading

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from app.protocols.websockets import MAX_FRAME_BYTES, TOO_BIG
from tests.abuse.attacks import SHAPES, members, numbers
from tests.abuse.server import MB, AttackedServer
from tests.abuse.test_requests import BLOCKED, SLOW, cheapest
from tests.long_form import FULL

THREAD = "00000000-0000-4000-8000-0000000000aa"
PATHS = ["/v1/responses", f"/api/v1/threads/{THREAD}/stream/events"]
SIZE = MAX_FRAME_BYTES if FULL else MB

KNOWN = [
    b'{"type":"response.create","model":"echo","input":"%b"}' % (b"\\u00e9" * (SIZE // 8)),
    b'{"type":"response.create","model":"echo","input":%b}' % numbers(SIZE // 4),
    b'{"type":"response.create","model":"echo","input":"x","metadata":%b}' % members(SIZE // 16),
    b'{"type":"response.create","model":"echo","input":"x","previous_response_id":"resp_%b"}' % (b"a" * SIZE),
    b'{"id":1,"method":"run.start","params":{"assistant_id":"echo","input":%b}}' % members(SIZE // 16),
    b'{"id":1,"method":"subscription.subscribe","params":{"channels":%b}}' % numbers(SIZE // 4),
    b'{"id":1,"method":"input.respond","params":{"interrupt_id":"%b","response":1}}' % (b"a" * SIZE),
]


def opened(server: AttackedServer, path: str, key: str | None = None) -> ClientConnection:
    headers = {"x-api-key": key or server.attacker}
    return connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers, max_size=None)


def answered(server: AttackedServer, path: str, frame: bytes) -> None:
    """Send ``frame``, and read until an answer or the end of the connection."""
    with opened(server, path) as connection, contextlib.suppress(ConnectionClosed):
        connection.send(frame, text=True)
        connection.recv(60)


@SLOW
@pytest.mark.parametrize("path", PATHS, ids=["responses", "thread"])
def test_hostile_frames_cost_bounded_time_and_memory(attacked_server: AttackedServer, path: str) -> None:
    for name, frame in [*((name, make(SIZE)) for name, make in SHAPES.items()), *((one[:60], one) for one in KNOWN)]:
        cost = cheapest(attacked_server, functools.partial(answered, attacked_server, path, frame))
        assert cost.blocked <= BLOCKED, name
        assert cost.memory <= len(frame) + 64 * MB, name


@SLOW
@pytest.mark.parametrize("path", PATHS, ids=["responses", "thread"])
def test_a_frame_beyond_the_limit_ends_its_connection_alone(attacked_server: AttackedServer, path: str) -> None:
    with opened(attacked_server, path) as other:
        with opened(attacked_server, path) as connection:
            with contextlib.suppress(ConnectionClosed):
                connection.send(b"x" * (MAX_FRAME_BYTES + 1), text=True)
                connection.recv(60)
            assert connection.close_code == TOO_BIG
        other.send('{"id":1,"method":"agent.getTree","params":{}}')
        assert other.recv(60)


@SLOW
@pytest.mark.parametrize("path", PATHS, ids=["responses", "thread"])
def test_a_flood_of_frames_without_a_reader_waits_in_the_socket(attacked_server: AttackedServer, path: str) -> None:
    frame = b'{"id":1,"method":"unknown","params":{"x":"%b"}}' % (b"x" * 60_000)

    def flood() -> None:
        with opened(attacked_server, path) as connection:
            sending = threading.Thread(target=send_many, args=(connection,), daemon=True)
            sending.start()
            sending.join(3)
            connection.socket.close()

    def send_many(connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            for _ in range(5_000):
                connection.send(frame, text=True)

    cost = cheapest(attacked_server, flood)
    assert cost.blocked <= BLOCKED
    assert cost.memory <= 64 * MB

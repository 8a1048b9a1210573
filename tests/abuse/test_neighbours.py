"""A tenant's large requests barely affect another's: the latency of small requests meanwhile."""

import contextlib
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from app.infra.http import open_streams
from app.infra.http.request_bodies import MAX_ARRIVING_EACH, MAX_MESSAGES_BODY_BYTES
from tests.abuse.attacks import RUNS, numbers, run, run_with
from tests.abuse.server import MB, AttackedServer, latency
from tests.long_form import FULL

SECONDS = 20.0 if FULL else 1.5
FLOOR = 0.1
"""Seconds of latency that are always acceptable: one step of a large request may block the loop for that long."""
SLOWEST = 0.5
"""Maximum latency in seconds during an attack."""
ATTEMPTS = 3
SLOW = pytest.mark.timeout(240)


def percentile(took: list[float], share: float) -> float:
    return statistics.quantiles(took, n=100)[round(share * 100) - 1]


def measure_during(
    attack: Callable[[], object], measure: Callable[[], list[float]], *, again: bool = False
) -> list[float]:
    """Run ``measure`` during one ``attack``, or repeated ones with ``again``."""
    measured = threading.Event()

    def attacks() -> None:
        attack()
        while again and not measured.is_set():
            attack()

    attacker = threading.Thread(target=attacks)
    attacker.start()
    try:
        return measure()
    finally:
        measured.set()
        attacker.join()


def attacks_of(server: AttackedServer) -> Iterator[tuple[str, Callable[[], object]]]:
    large = run(b"x" * (MAX_MESSAGES_BODY_BYTES - MB))
    wide = run_with(b'{"a":%b}' % numbers(400_000))
    refused = next(attack for attack in RUNS if attack.name == "7 MB of escaped quotes")
    yield "large bodies", lambda: server.request("POST", "/runs/wait", large)
    yield "wide bodies", lambda: server.request("POST", "/runs/wait", wide)
    yield "refused bodies", lambda: server.request("POST", "/runs/wait", refused.body)


@contextlib.contextmanager
def dripping(server: AttackedServer, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that send the start of a body and never the rest."""
    head = (
        f"POST /api/v1/threads HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {server.attacker}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    ).encode()
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 30))
            connection.sendall(head)
            slow.append(connection)
        yield slow


@pytest.fixture
def measure(attacked_server: AttackedServer) -> Callable[[], list[float]]:
    """Measures the latency of another tenant's requests, in seconds."""
    thread = attacked_server.request("POST", "/threads", {}, attacked_server.other).json()["thread_id"]
    return lambda: latency(attacked_server, f"/threads/{thread}", attacked_server.other, SECONDS)


@SLOW
def test_large_or_slow_requests_of_a_tenant_barely_delay_another(
    attacked_server: AttackedServer, measure: Callable[[], list[float]]
) -> None:
    with dripping(attacked_server, 100 if FULL else 30) as slow:
        for name, attack in attacks_of(attacked_server):
            assert any(max(measure_during(attack, measure)) <= SLOWEST for _ in range(ATTEMPTS)), name
        deadline = time.monotonic() + 60
        for connection in slow:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            assert connection.recv(100).startswith(b"HTTP/1.1 408")


@SLOW
@pytest.mark.skipif(not FULL, reason="FULL=1 only: percentiles need many requests")
def test_repeated_large_requests_leave_most_of_the_worker_to_another_tenant(
    attacked_server: AttackedServer, measure: Callable[[], list[float]]
) -> None:
    for name, attack in attacks_of(attacked_server):
        found = []
        for _ in range(ATTEMPTS):
            alone = percentile(measure(), 0.99)
            found.append((percentile(measure_during(attack, measure, again=True), 0.99), alone))
            if found[-1][0] <= max(2 * alone, FLOOR):
                break
        assert any(one <= max(2 * alone, FLOOR) for one, alone in found), (name, found)


@SLOW
@pytest.mark.parametrize(
    "path, kind, body, count",
    [
        ("/threads/search", "application/json", b'{"x":"' + b"a" * (MB - 100), 150),
        ("/documents", "application/pdf", b"%PDF-1.7" + random.Random(1).randbytes(MB + MB // 4), 80),
    ],
)
def test_incomplete_bodies_of_one_key_use_bounded_memory(
    attacked_server: AttackedServer, path: str, kind: str, body: bytes, count: int
) -> None:
    open_ones: list[socket.socket] = []
    head = (
        f"POST /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {attacked_server.attacker}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body) + 9}\r\n\r\n"
    ).encode()
    try:
        with attacked_server.measured() as costs:
            for _ in range(count):
                connection = socket.create_connection(("127.0.0.1", attacked_server.port), 30)
                open_ones.append(connection)
                connection.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    connection.sendall(head + body)
            assert attacked_server.request("POST", "/threads/search", b"{}", attacked_server.other).status == 200
            latency(attacked_server, "/ok", attacked_server.other, 1.0)
        assert costs[0].memory <= MAX_ARRIVING_EACH + 64 * MB
    finally:
        for connection in open_ones:
            connection.close()


@SLOW
def test_clients_that_do_not_read_large_responses_use_bounded_memory(attacked_server: AttackedServer) -> None:
    thread = attacked_server.request("POST", "/threads", {}).json()["thread_id"]
    assert attacked_server.request("POST", f"/threads/{thread}/runs/wait", run(b"x" * (6 * MB))).status == 200
    head = f"GET /api/v1/threads/{thread}/state HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    request = f"{head}X-Api-Key: {attacked_server.attacker}\r\n\r\n"
    open_ones: list[socket.socket] = []
    try:
        with attacked_server.measured() as costs:
            for _ in range(80):
                connection = socket.socket()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                open_ones.append(connection)
                connection.connect(("127.0.0.1", attacked_server.port))
                connection.sendall(request.encode())
            answered = [connection.recv(12) for connection in open_ones]
        assert set(answered) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert costs[0].memory <= 6 * open_streams.MAX_BYTES_EACH  # of 1 GB; responses being built count, too
        deadline = time.monotonic() + 60
        while (
            attacked_server.request("GET", f"/threads/{thread}/state").status == 429
        ):  # until the idle clients are dropped
            assert time.monotonic() < deadline
    finally:
        for connection in open_ones:
            connection.close()


@SLOW
def test_readers_of_a_large_run_do_not_hold_its_request(attacked_server: AttackedServer) -> None:
    thread = attacked_server.request("POST", "/threads", {}).json()["thread_id"]
    body = run(b"x" * (6 * MB)).removesuffix(b"}") + b',"after_seconds":3600}'
    waiting = attacked_server.request("POST", f"/threads/{thread}/runs", body).json()["run_id"]
    path = f"/threads/{thread}/runs/{waiting}"
    request = (
        f"GET /api/v1{path}/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {attacked_server.attacker}\r\n\r\n"
    ).encode()
    open_ones: list[socket.socket] = []
    try:
        with attacked_server.measured() as costs:
            for _ in range(40):
                connection = socket.create_connection(("127.0.0.1", attacked_server.port), 60)
                open_ones.append(connection)
                connection.sendall(request)
            for connection in open_ones:
                answer = connection.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200")
                while b"\n: " not in answer:  # a heartbeat: the log was read before it
                    answer += connection.recv(4096)
                    assert len(answer) < 100_000
        assert costs[0].memory <= 64 * MB
    finally:
        for connection in open_ones:
            connection.close()
        assert attacked_server.request("POST", f"{path}/cancel", {}).status < 300

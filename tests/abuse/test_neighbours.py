"""What one tenant does costs another little: the latency of small requests while large ones are served."""

import contextlib
import random
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from app.infra.http import large_answers
from app.infra.http.request_bodies import MAX_ARRIVING_EACH, MAX_MESSAGES_BODY_BYTES
from tests.abuse.attacks import RUNS, numbers, run, run_with
from tests.abuse.conftest import FULL
from tests.abuse.server import MB, Attacked, latency

SECONDS = 20.0 if FULL else 1.5
FLOOR = 0.1
"""Seconds below which twice the latency is no matter: what one step of a large request may keep the loop for."""
SLOWEST = 0.5
"""Seconds that any request may take meanwhile."""
ATTEMPTS = 3
SLOW = pytest.mark.timeout(240)


def percentile(took: list[float], share: float) -> float:
    return statistics.quantiles(took, n=100)[round(share * 100) - 1]


def under(attack: Callable[[], object], measure: Callable[[], list[float]], *, again: bool = False) -> list[float]:
    """What ``measure`` gives while ``attack`` is made once, or ``again`` and again."""
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


def attacks_of(server: Attacked) -> Iterator[tuple[str, Callable[[], object]]]:
    large = run(b"x" * (MAX_MESSAGES_BODY_BYTES - MB))
    wide = run_with(b'{"a":%b}' % numbers(400_000))
    refused = next(attack for attack in RUNS if attack.name == "7 MB of escaped quotes")
    yield "large bodies", lambda: server.ask("POST", "/runs/wait", large)
    yield "wide bodies", lambda: server.ask("POST", "/runs/wait", wide)
    yield "refused bodies", lambda: server.ask("POST", "/runs/wait", refused.body)


@contextlib.contextmanager
def dripping(server: Attacked, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have begun a body and never send the rest."""
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


@SLOW
def test_one_large_request_or_many_slow_ones_of_another_tenant_are_hardly_noticed(attacked: Attacked) -> None:
    thread = attacked.ask("POST", "/threads", {}, attacked.other).json()["thread_id"]

    def measure() -> list[float]:
        return latency(attacked, f"/threads/{thread}", attacked.other, SECONDS)

    with dripping(attacked, 100 if FULL else 30) as slow:
        for name, attack in attacks_of(attacked):
            assert any(max(under(attack, measure)) <= SLOWEST for _ in range(ATTEMPTS)), name
        deadline = time.monotonic() + 60
        for connection in slow:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            assert connection.recv(100).startswith(b"HTTP/1.1 408")


@SLOW
@pytest.mark.skipif(not FULL, reason="FULL=1: it compares percentiles, which take a while")
def test_large_requests_one_after_the_other_leave_most_of_the_worker_to_another_tenant(attacked: Attacked) -> None:
    thread = attacked.ask("POST", "/threads", {}, attacked.other).json()["thread_id"]

    def measure() -> list[float]:
        return latency(attacked, f"/threads/{thread}", attacked.other, SECONDS)

    for name, attack in attacks_of(attacked):
        found = []
        for _ in range(ATTEMPTS):
            alone = percentile(measure(), 0.99)
            found.append((percentile(under(attack, measure, again=True), 0.99), alone))
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
def test_bodies_of_one_key_that_stop_half_way_take_a_bounded_part_of_the_memory(
    attacked: Attacked, path: str, kind: str, body: bytes, count: int
) -> None:
    open_ones: list[socket.socket] = []
    head = (
        f"POST /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {attacked.attacker}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body) + 9}\r\n\r\n"
    ).encode()
    try:
        with attacked.measured() as costs:
            for _ in range(count):
                connection = socket.create_connection(("127.0.0.1", attacked.port), 30)
                open_ones.append(connection)
                connection.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    connection.sendall(head + body)
            assert attacked.ask("POST", "/threads/search", b"{}", attacked.other).status == 200
            latency(attacked, "/ok", attacked.other, 1.0)
        assert costs[0].memory <= MAX_ARRIVING_EACH + 64 * MB
    finally:
        for connection in open_ones:
            connection.close()


@SLOW
def test_clients_that_do_not_read_their_large_answers_take_a_bounded_part_of_the_memory(attacked: Attacked) -> None:
    thread = attacked.ask("POST", "/threads", {}).json()["thread_id"]
    assert attacked.ask("POST", f"/threads/{thread}/runs/wait", run(b"x" * (6 * MB))).status == 200
    ask = f"GET /api/v1/threads/{thread}/state HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {attacked.attacker}\r\n\r\n"
    open_ones: list[socket.socket] = []
    try:
        with attacked.measured() as costs:
            for _ in range(80):
                connection = socket.socket()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                open_ones.append(connection)
                connection.connect(("127.0.0.1", attacked.port))
                connection.sendall(ask.encode())
            answered = [connection.recv(12) for connection in open_ones]
        assert set(answered) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert costs[0].memory <= 6 * large_answers.MAX_BYTES_EACH  # of 1 GB; those that are being made count too
        deadline = time.monotonic() + 60
        while attacked.ask("GET", f"/threads/{thread}/state").status == 429:  # those that do not read are given up
            assert time.monotonic() < deadline
    finally:
        for connection in open_ones:
            connection.close()

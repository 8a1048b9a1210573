"""A worker is replaced without losing a request: its successor serves before it stops."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.server import worker
from tests.serving.processes import Program, is_alive, is_stopped, read_all
from tests.waiting import until

Start = Callable[..., Program]

GET = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def clients(program: Program, count: int = 4) -> Iterator[list[str]]:
    """Send requests in a loop over keep-alive connections; yield the failures."""
    failures: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            with program.send(b"") as connection:
                keeps, text = True, b""
                while keeps and not ended.is_set():
                    connection.sendall(GET)
                    text = b""
                    while not text.endswith(b"}") and not text.endswith(b"0\r\n\r\n"):
                        chunk = connection.recv(4096)
                        if not chunk:
                            break
                        text += chunk
                    if not text.startswith(b"HTTP/1.1 200"):
                        failures.append(f"answered with {text!r}")
                    keeps = b"connection: close" not in text.lower() and text != b""

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def ready(program: Program) -> list[int]:
    return [int(line.split()[1]) for line in program.output() if line.startswith("ready ")]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_fails_while_workers_that_are_sent_sigterm_are_replaced(start: Start, workers: int) -> None:
    program = start(workers=workers)
    program.workers(workers)
    with clients(program) as failures:
        for round_ in range(3):
            old = ready(program)[-1]
            os.kill(old, signal.SIGTERM)
            program.workers(workers + round_ + 1)
            until(lambda old=old: not is_alive(old))  # type: ignore[misc]
    assert failures == []
    assert "worker_lost" not in "".join(program.output())


def test_the_old_worker_serves_until_its_successor_does(start: Start, tmp_path: Path) -> None:
    program = start(slow=str(tmp_path / "slow"))
    [first] = program.workers()
    (tmp_path / "slow").touch()  # the next worker does not get ready while this is there
    os.kill(first, signal.SIGTERM)
    until(lambda: "opening" in program.output())
    assert program.get("/pid")["pid"] == first
    (tmp_path / "slow").unlink()
    second = program.workers(2)[1]
    until(lambda: program.get("/pid")["pid"] == second)


def test_keep_alive_connections_are_closed_with_their_next_response(start: Start) -> None:
    program = start()
    [first] = program.workers()
    with program.send(GET) as kept_alive:
        assert b"close" not in kept_alive.recv(4096).lower()
        os.kill(first, signal.SIGTERM)
        program.workers(2)
        until(lambda: "retire" in program.output())
        assert is_alive(first)  # one of its clients might send another request
        kept_alive.sendall(GET)
        answer = read_all(kept_alive)
        assert b'"pid": %d' % first in answer
        assert b"connection: close" in answer.lower()
    until(lambda: not is_alive(first))


def test_a_stream_continues_until_its_client_leaves(start: Start) -> None:
    program = start()
    [first] = program.workers()
    with program.stream():
        os.kill(first, signal.SIGTERM)
        program.workers(2)
        until(lambda: "retire" in program.output())
        assert program.get("/pid")["pid"] != first
        assert is_alive(first)
        assert "drain" not in program.output()
    until(lambda: not is_alive(first))


def test_a_retiring_worker_stops_at_once_with_the_server(start: Start) -> None:
    program = start()
    [first] = program.workers()
    with program.stream() as stream:
        os.kill(first, signal.SIGTERM)
        program.workers(2)
        until(lambda: "retire" in program.output())
        program.signal(signal.SIGTERM)
        assert b"retry: 1000" in read_all(stream)
    assert program.wait() == 0


def test_retiring_workers_are_stopped_when_numbers_run_out(start: Start) -> None:
    program = start()
    with contextlib.ExitStack() as kept_alive:
        for count in range(1, 8):
            newest = program.workers(count)[-1]
            kept_alive.enter_context(program.stream())
            os.kill(newest, signal.SIGTERM)
        program.workers(8)
    assert "worker_killed" not in "".join(program.output())


def test_a_successor_that_does_not_start_leaves_the_old_worker_in_place(start: Start, tmp_path: Path) -> None:
    program = start(broken=str(tmp_path / "broken"))
    [first] = program.workers()
    (tmp_path / "broken").touch()
    os.kill(first, signal.SIGTERM)
    assert program.event("successor_failed")["reason"] == "the configuration is broken"
    assert program.get("/pid")["pid"] == first
    (tmp_path / "broken").unlink()
    second = program.workers(2)[1]
    until(lambda: program.get("/pid")["pid"] == second)


def test_a_killed_worker_costs_new_connections_nothing_while_another_serves(start: Start, tmp_path: Path) -> None:
    """Also those that the kernel hands to the dead one; its successor is delayed until all were answered."""
    program = start(workers=2, slow=str(tmp_path / "slow"))
    first, second = program.workers(2)
    (tmp_path / "slow").touch()
    os.kill(first, signal.SIGKILL)
    until(lambda: "opening" in program.output())
    asked = time.monotonic()
    assert {program.get("/pid")["pid"] for _ in range(40)} == {second}
    print(f"40 connections took {time.monotonic() - asked:.3f} s")  # noqa: T201
    (tmp_path / "slow").unlink()
    third = program.workers(3)[2]
    until(lambda: {program.get("/pid")["pid"] for _ in range(20)} == {second, third})


def test_connections_in_the_backlog_of_a_killed_worker_are_answered(start: Start) -> None:
    program = start(workers=2)
    both = program.workers(2)
    for pid in both:
        os.kill(pid, signal.SIGSTOP)
        until(lambda pid=pid: is_stopped(pid))  # type: ignore[misc]
    waiting = [program.send(GET) for _ in range(12)]  # in both backlogs: nothing accepts
    os.kill(both[0], signal.SIGKILL)
    os.kill(both[1], signal.SIGCONT)
    try:
        for connection in waiting:
            assert b"HTTP/1.1 200" in connection.recv(4096)
    finally:
        for connection in waiting:
            connection.close()


def test_a_stuck_worker_is_reported_once_with_its_current_request(start: Start) -> None:
    program = start(renewal={"stuck": 2.0})
    program.workers()
    with program.send(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"):
        program.workers(2)
    lines = program.output()
    assert sum('"worker_stuck"' in line for line in lines) == 1
    assert sum('"worker_stack"' in line for line in lines) <= 8
    assert program.event("worker_stuck")["work"] == "/stuck"


@pytest.mark.parametrize("output", ["nonsense", "lines", "flood", "deep", "types"])
def test_the_parent_survives_invalid_messages_of_a_worker(start: Start, output: str) -> None:
    program = start(workers=2, says=output)
    workers = program.workers(2)
    until(lambda: program.get("/say")["said"])
    os.kill(workers[0], signal.SIGTERM)
    os.kill(workers[1], signal.SIGTERM)
    program.workers(4)
    assert program.get("/pid")["parent"] == program.process.pid
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_a_task_that_ignores_cancellation_is_left_behind_and_named(start: Start) -> None:
    program = start()
    program.workers()
    assert program.get("/refuse")
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    left = [line for line in program.output() if "tasks_left_behind" in line]
    assert len(left) == 1
    assert "refuses" in left[0]


def test_the_output_of_agents_is_not_buffered(start: Start) -> None:
    program = start()
    program.workers()
    program.get("/print")
    until(lambda: "printed" in program.output())


async def test_a_worker_counts_its_clients_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of open streams counting takes long, and must not delay the streams."""
    threads: list[int] = []

    def count_clients(port: int) -> int:
        assert port == listener.getsockname()[1]
        threads.append(threading.get_ident())
        return 3 - len(threads)

    async def retire() -> None:
        pass

    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(worker, "client_connections", count_clients)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        application, context = SimpleNamespace(asgi=None, retire=retire), SimpleNamespace(listener=listener)
        await worker._Worker(application, context).retire()  # type: ignore[arg-type]
    assert len(threads) == 3
    assert threading.get_ident() not in threads

"""Shutdown: graceful on a signal, and never partial."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.processes import Program, is_alive, read_all
from tests.waiting import until

Start = Callable[..., Program]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_open_streams_gracefully_with_exit_code_0(start: Start, number: signal.Signals) -> None:
    program = start()
    program.workers()
    with program.stream() as stream:
        program.signal(number)
        assert b"retry: 1000" in read_all(stream)
    assert program.wait() == 0
    assert program.output()[-2:] == ["drain", "close"]


def test_every_worker_drains(start: Start) -> None:
    program = start(workers=3)
    program.workers(3)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output().count("drain") == program.output().count("close") == 3


def test_ctrl_c_in_a_terminal_reaches_all_processes_and_ends_them_gracefully(start: Start) -> None:
    program = start()
    program.workers()
    with program.stream() as stream:
        os.killpg(program.process.pid, signal.SIGINT)
        assert b"retry: 1000" in read_all(stream)
    assert program.wait() == 0


def test_requests_are_answered_while_the_application_drains(start: Start) -> None:
    program = start(drain=1)
    program.workers()
    program.signal(signal.SIGTERM)
    until(lambda: "drain" in program.output())
    assert program.get("/pid")["draining"] is True
    assert program.wait() == 0


def test_an_incomplete_request_does_not_delay_the_shutdown(start: Start) -> None:
    program = start(close=0.2)
    program.workers()
    with program.send(b"GET /pid HTTP/1.1\r\nHo"):
        program.get("/pid")  # so that the worker has the incomplete one, too
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert time.monotonic() - began < 5  # the timeout of a complete request


def test_a_worker_that_exceeds_its_grace_is_killed_and_the_exit_code_is_1(start: Start) -> None:
    program = start(hangs=True, grace=0.5)
    [worker] = program.workers()
    program.signal(signal.SIGTERM)
    assert program.wait() == 1
    assert program.event("worker_killed")["worker"] == 1
    assert not is_alive(worker)


def test_a_second_ctrl_c_kills_at_once(start: Start) -> None:
    program = start(hangs=True, grace=60)
    [worker] = program.workers()
    program.signal(signal.SIGINT)
    until(lambda: "drain" in program.output())
    program.signal(signal.SIGINT)
    assert program.wait() == 130
    assert not is_alive(worker)


def test_a_signal_during_the_start_of_the_workers_shuts_down(start: Start) -> None:
    program = start(workers=2)
    until(lambda: len(children(program.process.pid)) == 2)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_no_worker_outlives_a_killed_parent_and_its_streams_end_gracefully(start: Start) -> None:
    program = start(workers=2)
    workers = program.workers(2)
    with program.stream() as stream:
        program.signal(signal.SIGKILL)
        assert b"retry: 1000" in read_all(stream)
    until(lambda: not any(is_alive(worker) for worker in workers))


def test_a_stuck_worker_does_not_outlive_a_killed_parent(start: Start) -> None:
    program = start(grace=0.5)
    [worker] = program.workers()
    with program.send(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"):
        until(lambda: "stuck" in program.output())
        program.signal(signal.SIGKILL)
        until(lambda: not is_alive(worker))

"""How a server ends: in order when it is told to, and never half."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.processes import Program, is_alive, read_all, until

Start = Callable[..., Program]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_open_streams_in_order_and_the_exit_code_is_0(start: Start, number: signal.Signals) -> None:
    program = start()
    program.workers()
    with program.stream() as stream:
        program.signal(number)
        assert b"retry: 1000" in read_all(stream)
    assert program.ended() == 0
    assert program.said()[-2:] == ["drain", "close"]


def test_every_worker_drains(start: Start) -> None:
    program = start(workers=3)
    program.workers(3)
    program.signal(signal.SIGTERM)
    assert program.ended() == 0
    assert program.said().count("drain") == program.said().count("close") == 3


def test_ctrl_c_in_a_terminal_reaches_all_processes_and_ends_them_in_order(start: Start) -> None:
    program = start()
    program.workers()
    with program.stream() as stream:
        os.killpg(program.process.pid, signal.SIGINT)
        assert b"retry: 1000" in read_all(stream)
    assert program.ended() == 0


def test_requests_are_answered_while_the_application_drains(start: Start) -> None:
    program = start(drain=1)
    program.workers()
    program.signal(signal.SIGTERM)
    until(lambda: "drain" in program.said())
    assert program.get("/pid")["draining"] is True
    assert program.ended() == 0


def test_half_a_request_does_not_hold_up_the_end(start: Start) -> None:
    program = start(close=0.2)
    program.workers()
    with program.send(b"GET /pid HTTP/1.1\r\nHo"):
        program.get("/pid")  # so the worker has the half one too
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        assert program.ended() == 0
        assert time.monotonic() - began < 5  # the time that a whole request would be given


def test_a_worker_that_does_not_end_in_time_is_killed_and_the_exit_code_tells(start: Start) -> None:
    program = start(hangs=True, grace=0.5)
    [worker] = program.workers()
    program.signal(signal.SIGTERM)
    assert program.ended() == 1
    assert program.event("worker_killed")["worker"] == 1
    assert not is_alive(worker)


def test_a_second_ctrl_c_ends_it_at_once(start: Start) -> None:
    program = start(hangs=True, grace=60)
    [worker] = program.workers()
    program.signal(signal.SIGINT)
    until(lambda: "drain" in program.said())
    program.signal(signal.SIGINT)
    assert program.ended() == 130
    assert not is_alive(worker)


def test_a_signal_while_the_workers_start_ends_it_too(start: Start) -> None:
    program = start(workers=2)
    until(lambda: len(children(program.process.pid)) == 2)
    program.signal(signal.SIGTERM)
    assert program.ended() == 0


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_no_worker_outlives_a_killed_parent_and_its_streams_end_in_order(start: Start) -> None:
    program = start(workers=2)
    workers = program.workers(2)
    with program.stream() as stream:
        program.signal(signal.SIGKILL)
        assert b"retry: 1000" in read_all(stream)
    until(lambda: not any(is_alive(worker) for worker in workers))


def test_not_even_one_whose_event_loop_is_stuck(start: Start) -> None:
    program = start(grace=0.5)
    [worker] = program.workers()
    with program.send(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"):
        until(lambda: "stuck" in program.said())
        program.signal(signal.SIGKILL)
        until(lambda: not is_alive(worker))

"""Stuck, old and large workers are replaced."""

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from app.server.worker_handle import DUMP_STACKS, WorkerHandle
from app.server.worker_renewal import ReplacementPolicy
from tests.serving.processes import Program, is_alive
from tests.waiting import until

Start = Callable[..., Program]


def test_a_worker_whose_event_loop_is_stuck_is_killed_and_replaced(start: Start) -> None:
    program = start(renewal={"stuck": 2.0})
    [first] = program.workers()
    with program.send(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"):
        until(lambda: "stuck" in program.output())
        assert program.event("worker_stuck")["worker"] == 1
    assert program.workers(2)[1] != first
    assert not is_alive(first)
    assert program.get("/pid")["pid"] != first


@pytest.mark.parametrize("path, place", [("stuck", "in asgi"), ("held", "in hold")])
def test_the_stacks_of_a_stuck_worker_are_logged_before_it_is_killed(start: Start, path: str, place: str) -> None:
    """A busy loop, and a blocking system call."""
    program = start(renewal={"stuck": 2.0})
    [first] = program.workers()
    with program.send(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()):
        program.workers(2)
    stacks = [json.loads(line) for line in program.output() if '"event": "worker_stack"' in line]
    hung = [one["stack"] for one in stacks if place in one["stack"]]
    assert hung
    assert "program.py" in hung[0]
    assert {one["worker"] for one in stacks} == {1}
    assert not is_alive(first)


def test_a_stack_dump_does_not_disturb_a_worker(start: Start) -> None:
    program = start(renewal={"stuck": 2.0})
    [first] = program.workers()
    for _ in range(2):
        os.kill(first, DUMP_STACKS)
        assert program.get("/pid")["pid"] == first


def test_a_parent_that_was_paused_with_its_workers_kills_none(start: Start) -> None:
    program = start(renewal={"stuck": 2.0})
    [first] = program.workers()
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in (program.process.pid, first):
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            until(lambda: stopped(program.process.pid) and stopped(first))
            signal.sigtimedwait([], 6.0)
    assert program.get("/pid")["pid"] == first
    assert not [line for line in program.output() if "worker_stuck" in line]


def test_lifetimes_differ_at_random_by_a_fifth_at_most() -> None:
    policy, ages = ReplacementPolicy(lifetime=1000.0), (999.0, 1201.0)
    due = []
    for _ in range(64):
        worker = WorkerHandle(1, 1, 1, (0, 0, 0))
        reasons = []
        for age in (*ages, 1100.0):
            worker.started_at = time.monotonic() - age
            reasons.append(policy.reason(worker))
        assert reasons[:2] == ["", "lifetime"]
        due.append(reasons[2])
    assert set(due) == {"", "lifetime"}


def stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("rule, reason", [({"lifetime": 1.0}, "lifetime"), ({"max_rss": 1.0}, "memory")])
def test_workers_are_replaced_gracefully_one_at_a_time(start: Start, rule: dict[str, float], reason: str) -> None:
    program = start(workers=2, renewal=rule)
    first = program.workers(2)
    after = program.workers(4)
    assert len(set(after)) == 4
    assert set(after[:2]) == set(first)
    renewed = [json.loads(line) for line in program.output() if "worker_renewed" in line]
    assert {one["reason"] for one in renewed} == {reason}
    until(lambda: program.output().count("drain") >= 2)
    assert not [line for line in program.output() if "worker_lost" in line]

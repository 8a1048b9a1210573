"""A blocked sink costs lines, and never blocks the caller."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from subprocess import PIPE, Popen

import pytest

from app.infra.telemetry.line_writer import LineWriter, write_now
from tests.cli.commands import ROOT, environment
from tests.waiting import until

PROGRAM = """
import asyncio, json, sys, time
import structlog
from app.infra.telemetry.logs import set_up

async def work(lines):
    log, longest = structlog.get_logger("test"), 0.0
    for number in range(12_000):
        began = time.perf_counter()
        log.info("line", number=number, filling="x" * 100)
        longest = max(longest, time.perf_counter() - began)
        if number % 100 == 0:
            await asyncio.sleep(0)
    print(json.dumps({"dropped": lines.dropped, "longest": longest}), file=sys.stderr, flush=True)
    while not await asyncio.to_thread(sys.stdin.readline):
        pass
    await asyncio.to_thread(lines.flush, 20)
    log.info("afterwards")
    lines.flush(20)

lines = set_up("info", "json")
asyncio.run(work(lines))
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read_some(end: int) -> list[str]:
    return os.read(end, 1 << 20).decode().splitlines()


def test_lines_come_out_in_order(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    for number in range(200):
        lines.write(f"{number}\n")
    lines.flush(10)
    assert read_some(pipe[0]) == [str(number) for number in range(200)]
    assert lines.dropped == 0


def test_lines_beyond_the_queue_are_dropped_and_reported_once_read_again(pipe: tuple[int, int]) -> None:
    reports: list[int] = []
    lines = LineWriter(pipe[1], reports.append, max_pending=10)
    long = "x" * 65_536 + "\n"
    began = time.monotonic()
    for _ in range(50):
        lines.write(long)
    assert time.monotonic() - began < 10, "no line waits for the reader"
    assert 38 <= lines.dropped <= 40
    before = lines.dropped
    read = 0
    while read < (50 - before) * len(long):
        read += len(os.read(pipe[0], 1 << 20))
    until(lambda: reports)
    assert reports == [before]
    lines.write("again\n")
    lines.flush(10)
    assert read_some(pipe[0]) == ["again"]
    assert reports == [before]


def test_flush_has_a_timeout_for_a_blocked_sink(pipe: tuple[int, int]) -> None:
    lines = LineWriter(pipe[1])
    lines.write("x" * 200_000 + "\n")
    began = time.monotonic()
    lines.flush(0.2)
    assert 0.2 <= time.monotonic() - began < 10
    while len(os.read(pipe[0], 1 << 20)) == 65_536:  # lets the thread go
        pass


def test_a_closed_reader_costs_only_lines() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LineWriter(writer)
    lines.write("a\n")
    lines.flush(10)
    assert lines.dropped == 1
    os.close(writer)


def test_a_line_that_would_wait_is_not_written_at_once(pipe: tuple[int, int]) -> None:
    assert write_now(pipe[1], b"a\n")
    os.set_blocking(pipe[1], False)
    with contextlib.suppress(BlockingIOError):
        while os.write(pipe[1], b"x" * 4096):
            pass
    os.set_blocking(pipe[1], True)
    assert not write_now(pipe[1], b"b\n")


def test_a_program_with_unread_output_continues_and_reports_dropped_lines() -> None:
    with Popen(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment(), stdin=PIPE, stdout=PIPE, stderr=PIPE
    ) as it:
        assert it.stderr is not None
        assert it.stdin is not None
        assert it.stdout is not None
        report = json.loads(it.stderr.readline())
        assert report["dropped"] > 1000
        assert report["longest"] < 1
        it.stdin.write(b"go on\n")
        it.stdin.close()
        events = [json.loads(line) for line in it.stdout.read().splitlines()]
        assert it.wait(30) == 0
    dropped = [event["lines"] for event in events if event["event"] == "log_lines_dropped"]
    assert sum(dropped) == report["dropped"]
    assert "afterwards" in [event["event"] for event in events]
    numbers = [event["number"] for event in events if event["event"] == "line"]
    assert numbers == sorted(numbers)
    assert len(numbers) == 12_000 - report["dropped"]

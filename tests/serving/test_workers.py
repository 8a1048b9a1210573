"""Workers start, crash and are restarted."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.processes import Program, read_all
from tests.waiting import until

Start = Callable[..., Program]


def test_the_kernel_spreads_connections_over_the_workers(start: Start) -> None:
    program = start(workers=2)
    workers = set(program.workers(2))
    until(lambda: {program.get("/pid")["pid"] for _ in range(20)} == workers)


def test_a_worker_that_crashes_is_replaced(start: Start) -> None:
    program = start(workers=2)
    before = program.workers(2)
    crash(program)
    after = program.workers(3)
    assert after[2] not in before
    assert program.event("worker_lost")["reason"] == "exit code 7"
    assert {program.get("/pid")["pid"] for _ in range(40)} <= set(after)


def test_connections_wait_for_the_successor_of_a_crashed_worker(start: Start) -> None:
    program = start()
    [first] = program.workers()
    crash(program)
    assert program.get("/pid")["pid"] not in {first, program.process.pid}


def test_repeated_crashes_back_off_and_keep_connections_waiting_for_a_second_at_most(start: Start) -> None:
    program = start()
    for count in (1, 2, 3):
        program.workers(count)
        crash(program)
    lost = until(lambda: [line for line in program.output() if "worker_lost" in line][2:] and program.output())
    assert [json.loads(line)["again_in"] for line in lost if "worker_lost" in line] == [0.5, 1.0, 1.0]


def test_a_worker_that_gets_sigterm_drains_and_is_replaced(start: Start) -> None:
    program = start()
    [first] = program.workers()
    os.kill(first, signal.SIGTERM)
    assert program.workers(2)[1] != first
    until(lambda: program.output().count("close") == 1)


def test_a_start_error_is_one_line(start: Start) -> None:
    program = start(fails="the moon is down: lift it", workers=2)
    assert program.wait() == 1
    assert program.output() == ["tiny: the moon is down: lift it"]


def test_an_unexpected_start_error_is_one_line(start: Start) -> None:
    program = start(raises=True)
    assert program.wait() == 1
    assert program.output() == ["tiny: ZeroDivisionError: of this kind; set LOG_LEVEL=debug for the traceback"]


@pytest.mark.parametrize("sent", [b"", b"GET /pid HTTP/1.1\r\nHo"])
def test_an_idle_connection_is_closed(start: Start, sent: bytes) -> None:
    program = start(idle=1)
    program.workers()
    with program.send(sent) as connection:
        assert read_all(connection) == b""


def test_a_changed_source_replaces_the_worker_and_a_broken_one_is_waited_for(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "source.toml"
    source.write_text("fine")
    program = start(source=str(source))
    [first] = program.workers()
    source.write_text("broken")
    assert program.event("waiting_for_a_change")["reason"] == "the source is broken"
    assert program.process.poll() is None
    source.write_text("fixed")
    second = program.workers(2)[1]
    assert second != first
    until(lambda: program.get("/pid")["pid"] == second)  # both accept until the first one drains
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_a_broken_source_at_the_start_is_waited_for_as_well(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("broken")
    program = start(source=str(source))
    program.event("waiting_for_a_change")
    source.write_text("fixed")
    program.workers()


def test_the_parent_imports_little() -> None:
    """It lives as long as the server: its imports would be wasted memory."""
    heavy = ("asyncio", "granian", "litestar", "logging", "msgspec", "sqlalchemy", "structlog", "uvloop")
    script = (
        "import sys, app.server.parent, app.server.sockets, app.server.parent_log, app.cli.serve; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def crash(program: Program) -> None:
    with contextlib.suppress(ValueError, ConnectionError):
        program.get("/exit")

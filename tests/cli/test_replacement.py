"""Workers of ``serve`` are replaced under load: no request fails, no run is lost."""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.cli.health import probe
from bench.client import Answer, Connection, Failed, connect, request
from tests.cli.commands import PEPPER, Running
from tests.long_form import FULL
from tests.waiting import until

REPLACEMENTS = int(os.environ.get("REPLACEMENTS", "20" if FULL else "3"))
"""How many workers are replaced. For a long run: ``REPLACEMENTS=100 pytest -n 0 -s tests/cli/test_replacement.py``."""

pytestmark = pytest.mark.timeout(540 + 12 * REPLACEMENTS)

CLIENTS = 6
INPUT = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "hello"}]}}
REQUESTS = (
    (request("GET", "/api/v1/ok"), b"true"),
    (request("POST", "/api/v1/runs/wait", INPUT), b"echo: hello"),
    (request("POST", "/api/v1/runs/stream", {**INPUT, "stream_mode": "values"}), b"echo: hello"),
)


class Load:
    """Clients that send ``REQUESTS`` in turn over keep-alive connections.

    ``failures`` are messages; ``opened``: seconds from connecting to the first response; ``cut``: connections that
    killed workers had.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.failures: list[str] = []
        self.opened: list[float] = []
        self.answered = 0
        self.cut = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests until the block ends."""
        self._ends = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._send_requests())
            try:
                yield
            finally:
                self._ends.set()
        await asyncio.sleep(0)  # lets the last connections close

    async def _send_requests(self) -> None:
        turns = itertools.cycle(REQUESTS)
        while not self._ends.is_set():
            began = time.perf_counter()
            connection = await connect(self._port)
            try:
                keeps = await self._ask(connection, *next(turns))
                self.opened.append(time.perf_counter() - began)
                while keeps and not self._ends.is_set():
                    keeps = await self._ask(connection, *next(turns))
            finally:
                connection.close()

    async def _ask(self, connection: Connection, ready: bytes, wanted: bytes) -> bool:
        """Send one request; return whether the connection can be reused."""
        try:
            answer: Answer = await connection.ask(ready)
        except Failed as error:
            self.failures.append(f"{ready[:30]!r}: {error}")
            return False
        self.answered += 1
        if answer.status != 200 or wanted not in answer.body:
            self.failures.append(f"{ready[:30]!r}: {answer.status} {answer.body[-200:]!r}")
        return not connection.closes


def worker_pids(server: Running) -> list[int]:
    """Return the worker processes that are not reaped, in the order of their start."""
    path = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(word) for word in path.read_text().split()]


def serving(server: Running) -> int:
    """Count how many workers have become ready so far."""
    return server.output().count('"event": "serving"')


def is_stopped(pid: int) -> bool:
    """Whether all threads of a process have taken its SIGSTOP (proc(5), the state in stat)."""
    states = [one.read_text().rpartition(")")[2].split()[0] for one in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def accepted(pid: int, port: int) -> int:
    """Count the connections to ``port`` that a process has accepted (proc(5), /proc/net/tcp)."""
    established = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port
    }
    return sum(str(found.readlink()) in established for found in Path(f"/proc/{pid}/fd").iterdir())


async def under_load(port: int, server: Running, number: signal.Signals) -> Load:
    """Replace the oldest worker repeatedly with signal ``number``, under load."""
    load = Load(port)
    async with load.running():
        for _ in range(REPLACEMENTS):
            old, before = worker_pids(server)[0], serving(server)
            if number is signal.SIGKILL:
                os.kill(old, signal.SIGSTOP)  # it accepts no more while they are counted
                await asyncio.to_thread(until, lambda: is_stopped(old), 60)  # noqa: B023
                load.cut += accepted(old, port)
            os.kill(old, number)
            await asyncio.to_thread(until, lambda: serving(server) > before and old not in worker_pids(server), 60)  # noqa: B023
    return load


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_fails_while_workers_are_replaced_under_load(
    start: Callable[..., Running], port: int, database_url: str, workers: int
) -> None:
    server = started(start, port, database_url, workers)
    load = asyncio.run(under_load(port, server, signal.SIGTERM))
    report(f"{REPLACEMENTS} replacements of {workers}", load)
    assert load.failures == []
    assert "worker_lost" not in server.output()


def test_a_killed_worker_costs_only_the_requests_in_flight(
    start: Callable[..., Running], port: int, database_url: str
) -> None:
    server = started(start, port, database_url, 2)
    load = asyncio.run(under_load(port, server, signal.SIGKILL))
    report(f"{REPLACEMENTS} kills", load)
    assert len(load.failures) <= load.cut  # the other worker's connections go on, and new ones find it
    assert all("connection was closed" in failure for failure in load.failures)


def started(start: Callable[..., Running], port: int, database_url: str, workers: int) -> Running:
    """Start a server and wait until all its workers are ready."""
    settings = {"DATABASE_URL": database_url, "AGENT_AUTH": "none", "AGENT_KEY_PEPPER": PEPPER, "LOG_FORMAT": "json"}
    server = start("serve", "--port", str(port), "--workers", str(workers), **settings)
    until(lambda: serving(server) == workers and not probe("127.0.0.1", port), 60)
    return server


def report(what: str, load: Load) -> None:
    """Print the figures (visible with ``-s``)."""
    slowest = max(load.opened) * 1000
    median = sorted(load.opened)[len(load.opened) // 2] * 1000
    print(  # noqa: T201
        f"{what}: {load.answered} answers, {len(load.failures)} failed, {load.cut} connections cut; "
        f"{len(load.opened)} new ones answered in {median:.0f} ms (median), {slowest:.0f} ms (slowest)"
    )

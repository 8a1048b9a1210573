"""Rounds of broken database connections: after each, a run must finish within five seconds.

``python -m tests.faults.rounds --rounds 500`` prints a report; exit code 1 if a round failed. The rounds cycle through
the faults (terminated backends, fast restart, immediate shutdown, outage) and the number of clients (0, 8, 64). Half
of them use TCP, half the unix socket.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import msgspec

from app.infra.db import migrations
from tests.faults.proxy import Proxy
from tests.journeys.conftest import Served
from tests.outages import Server, children_of

FAULTS = ("terminate", "restart", "crash", "outage")
TRANSPORTS = ("tcp", "socket")
CLIENTS = (0, 8, 64)

RUN_SECONDS = 5.0
"""Timeout for a run after a round."""
ANSWER_SECONDS = 30.0
"""Timeout for every request."""
NOTICE_SECONDS = 2.0
"""Timeout for readiness to fail with the database; it recovers within ``RUN_SECONDS``."""

BODY = {"assistant_id": "assistant", "input": {"messages": [{"role": "user", "content": "Hello"}]}}


class Report(msgspec.Struct):
    """The rounds that were run, and the violations found."""

    rounds: int = 0
    runs: int = 0
    slowest_run: float = 0.0
    slowest_answer: float = 0.0
    workers_lost: int = 0
    answers: Counter[int] = msgspec.field(default_factory=Counter)
    violations: list[str] = []


class Scenario:
    """One server on one database; ``transport`` is how it connects."""

    def __init__(self, database: Server, proxy: Proxy, folder: Path, transport: str) -> None:
        self.database = database
        self.proxy = proxy
        url = proxy.url if transport == "tcp" else database.url
        self.server = Served(url, folder, AGENT_LEASE_SECONDS="5", LOG_FORMAT="json")
        self.http = httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=httpx.Limits(max_connections=None))
        self.report = Report()
        self._stopped = asyncio.Event()
        self._slowest = 0.0
        self.allowance = 0.0
        """Added to every deadline on a busy machine: a multiple of the run time before the fault."""

    async def aclose(self) -> None:
        await self.http.aclose()
        await asyncio.to_thread(self.server.stop)
        self.report.workers_lost = self.server.log.read_text().count('"worker_lost"')

    def violation(self, words: str) -> None:
        self.report.violations.append(f"round {self.report.rounds}: {words}")

    async def send_run(self) -> int:
        """Send a run and wait for it; return the status, 0 if the connection broke."""
        started_at = time.monotonic()
        try:
            answer = await self.http.post(f"{self.server.base}/runs/wait", json=BODY)
        except httpx.TimeoutException:
            self.violation(f"a request had no answer after {ANSWER_SECONDS} s")
            return 0
        except httpx.HTTPError:
            return 0
        took = time.monotonic() - started_at
        self.report.slowest_answer = max(self.report.slowest_answer, round(took, 2))
        self._slowest = max(self._slowest, took)
        self.report.answers[answer.status_code] += 1
        self.report.runs += answer.status_code == 200
        if answer.status_code not in {200, 503} or (answer.status_code == 200 and b"__error__" in answer.content):
            self.violation(f"{answer.status_code} {answer.text[:200]}")
        return answer.status_code

    @contextlib.asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[None]:
        """During the block ``count`` clients send one run after the other."""
        self._stopped.clear()

        async def one() -> None:
            while not self._stopped.is_set():
                if await self.send_run() != 200:
                    await asyncio.sleep(0.05)

        work = asyncio.gather(*(one() for _ in range(count)))
        try:
            yield
        finally:
            self._stopped.set()
            await work

    async def check_a_run_finishes(self) -> None:
        """Check that a run finishes in time; a 503 may be retried."""
        started_at = time.monotonic()
        seconds = RUN_SECONDS + self.allowance
        while (status := await self.send_run()) != 200 and time.monotonic() - started_at < seconds:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        took = time.monotonic() - started_at
        self.report.slowest_run = max(self.report.slowest_run, round(took, 2))
        if status != 200 or took > seconds:
            self.violation(f"a run took {took:.1f} s of {seconds:.1f} s after the round ({status})")

    async def health(self, probe: str) -> int:
        try:
            return (await self.http.get(f"{self.server.base}/health/{probe}")).status_code
        except httpx.HTTPError:
            return 0

    async def wait_for_readiness(self, ready: int) -> None:
        """Check that readiness follows the database, and liveness does not."""
        seconds = (RUN_SECONDS if ready == 200 else NOTICE_SECONDS) + self.allowance
        deadline = time.monotonic() + seconds
        while (found := await self.health("ready")) != ready and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if found != ready:
            self.violation(f"ready says {found} and not {ready} after {seconds:.1f} s")
        if (live := await self.health("live")) != 200:
            self.violation(f"live says {live}")

    async def fault(self, name: str) -> None:
        if name == "terminate":
            connection = await asyncpg.connect(self.database.url)
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            await connection.close()
            return
        if name == "crash":
            await asyncio.to_thread(self.database.crash)
        else:
            await asyncio.to_thread(self.database.stop)
            if name == "outage":
                await self.wait_for_readiness(503)
            await asyncio.to_thread(self.database.begin)
        self.proxy.aim(self.database.url)

    async def round(self, fault: str, clients: int) -> None:
        self.report.rounds += 1
        async with self.clients(clients):
            self._slowest, runs = 0.0, self.report.runs
            deadline = time.monotonic() + ANSWER_SECONDS
            if not clients:
                await self.send_run()
            while self.report.runs < runs + clients and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            self.allowance = 4 * self._slowest
            await self.fault(fault)
            await self.wait_for_readiness(200)
            await self.check_a_run_finishes()


@contextlib.asynccontextmanager
async def scenario_on(folder: Path, transport: str) -> AsyncIterator[Scenario]:
    """Start a database and a server; stop both after the block."""
    database = Server(folder / "db", {"fsync": "off"})
    await asyncio.to_thread(database.begin)
    try:
        await asyncio.to_thread(migrations.upgrade, database.url)
        async with Proxy(database.url) as proxy:
            scenario = Scenario(database, proxy, folder, transport)
            try:
                await asyncio.to_thread(scenario.server.wait_until_ready)
                yield scenario
            finally:
                await scenario.aclose()
    finally:
        await asyncio.to_thread(database.stop)


async def rounds(folder: Path, transport: str, count: int, first: int = 0) -> Report:
    """Run ``count`` rounds over ``transport``, beginning with combination ``first`` of the twelve."""
    async with scenario_on(folder, transport) as scenario:
        workers = children_of(scenario.server.process.pid)
        kinds = zip(itertools.cycle(FAULTS), itertools.cycle(CLIENTS), strict=False)
        for fault, clients in itertools.islice(kinds, first, first + count):
            await scenario.round(fault, clients)
        if children_of(scenario.server.process.pid) != workers:
            scenario.violation("the worker was replaced")
    return scenario.report


def main() -> int:
    """Run all rounds from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    given = parser.parse_args()
    failed = False
    for transport in TRANSPORTS:
        with tempfile.TemporaryDirectory(prefix="rounds-") as folder:
            report = asyncio.run(rounds(Path(folder), transport, given.rounds // len(TRANSPORTS)))
        failed |= bool(report.violations)
        sys.stdout.write(f"{transport}: {json.dumps(msgspec.to_builtins(report), indent=2)}\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

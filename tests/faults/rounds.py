"""Rounds of ended database connections: after each, a run must finish within five seconds.

``python -m tests.faults.rounds --rounds 500`` prints a report; it ends with 1 when a round was failed. Every round
takes the next fault: all backends terminated, a fast restart, an immediate shutdown, an outage; and the next number of
clients: 0, 8, 64. Half of the rounds go over TCP, half over the unix socket.
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
WAYS = ("tcp", "socket")
CLIENTS = (0, 8, 64)

RUN_SECONDS = 5.0
"""In which a run must finish after a round."""
ANSWER_SECONDS = 30.0
"""In which every request must have an answer, whatever happens."""
NOTICE_SECONDS = 2.0
"""In which readiness must fall with the database; it has as long as a run to come back."""

BODY = {"assistant_id": "assistant", "input": {"messages": [{"role": "user", "content": "Hello"}]}}


class Report(msgspec.Struct):
    """What was done, and what was broken by it."""

    rounds: int = 0
    runs: int = 0
    slowest_run: float = 0.0
    slowest_answer: float = 0.0
    workers_lost: int = 0
    answers: Counter[int] = msgspec.field(default_factory=Counter)
    violations: list[str] = []


class Scene:
    """One server on one database; ``way`` is how it reaches it."""

    def __init__(self, database: Server, proxy: Proxy, folder: Path, way: str) -> None:
        self.database = database
        self.proxy = proxy
        url = proxy.url if way == "tcp" else database.url
        self.server = Served(url, folder, AGENT_LEASE_SECONDS="5", LOG_FORMAT="json")
        self.http = httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=httpx.Limits(max_connections=None))
        self.report = Report()
        self._still = asyncio.Event()
        self._slowest = 0.0
        self.slack = 0.0
        """What a busy machine adds to every deadline: some of what runs took just before the fault."""

    async def aclose(self) -> None:
        await self.http.aclose()
        await asyncio.to_thread(self.server.stop)
        self.report.workers_lost = self.server.log.read_text().count('"worker_lost"')

    def wrong(self, words: str) -> None:
        self.report.violations.append(f"round {self.report.rounds}: {words}")

    async def ask(self) -> int:
        """A run, waited for; the status of the answer, 0 where the connection broke."""
        began = time.monotonic()
        try:
            answer = await self.http.post(f"{self.server.base}/runs/wait", json=BODY)
        except httpx.TimeoutException:
            self.wrong(f"a request had no answer after {ANSWER_SECONDS} s")
            return 0
        except httpx.HTTPError:
            return 0
        took = time.monotonic() - began
        self.report.slowest_answer = max(self.report.slowest_answer, round(took, 2))
        self._slowest = max(self._slowest, took)
        self.report.answers[answer.status_code] += 1
        self.report.runs += answer.status_code == 200
        if answer.status_code not in {200, 503} or (answer.status_code == 200 and b"__error__" in answer.content):
            self.wrong(f"{answer.status_code} {answer.text[:200]}")
        return answer.status_code

    @contextlib.asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[None]:
        """A block beside which ``count`` clients make one run after the other."""
        self._still.clear()

        async def one() -> None:
            while not self._still.is_set():
                if await self.ask() != 200:
                    await asyncio.sleep(0.05)

        work = asyncio.gather(*(one() for _ in range(count)))
        try:
            yield
        finally:
            self._still.set()
            await work

    async def finishes_a_run(self) -> None:
        """A run finishes in time; a 503 may be asked again, as its ``Retry-After`` says."""
        began = time.monotonic()
        seconds = RUN_SECONDS + self.slack
        while (status := await self.ask()) != 200 and time.monotonic() - began < seconds:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        took = time.monotonic() - began
        self.report.slowest_run = max(self.report.slowest_run, round(took, 2))
        if status != 200 or took > seconds:
            self.wrong(f"a run took {took:.1f} s of {seconds:.1f} s after the round ({status})")

    async def health(self, probe: str) -> int:
        try:
            return (await self.http.get(f"{self.server.base}/health/{probe}")).status_code
        except httpx.HTTPError:
            return 0

    async def becomes(self, ready: int) -> None:
        """Readiness follows the database; liveness does not."""
        seconds = (RUN_SECONDS if ready == 200 else NOTICE_SECONDS) + self.slack
        deadline = time.monotonic() + seconds
        while (found := await self.health("ready")) != ready and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if found != ready:
            self.wrong(f"ready says {found} and not {ready} after {seconds:.1f} s")
        if (live := await self.health("live")) != 200:
            self.wrong(f"live says {live}")

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
                await self.becomes(503)
            await asyncio.to_thread(self.database.begin)
        self.proxy.aim(self.database.url)

    async def round(self, fault: str, clients: int) -> None:
        self.report.rounds += 1
        async with self.clients(clients):
            self._slowest, runs = 0.0, self.report.runs
            deadline = time.monotonic() + ANSWER_SECONDS
            if not clients:
                await self.ask()
            while self.report.runs < runs + clients and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            self.slack = 4 * self._slowest
            await self.fault(fault)
            await self.becomes(200)
            await self.finishes_a_run()


@contextlib.asynccontextmanager
async def scene_on(folder: Path, way: str) -> AsyncIterator[Scene]:
    """A database and a server of their own; both end with the block."""
    database = Server(folder / "db", {"fsync": "off"})
    await asyncio.to_thread(database.begin)
    try:
        await asyncio.to_thread(migrations.upgrade, database.url)
        async with Proxy(database.url) as proxy:
            scene = Scene(database, proxy, folder, way)
            try:
                await asyncio.to_thread(scene.server.wait_until_ready)
                yield scene
            finally:
                await scene.aclose()
    finally:
        await asyncio.to_thread(database.stop)


async def rounds(folder: Path, way: str, count: int) -> Report:
    """``count`` rounds over ``way``."""
    async with scene_on(folder, way) as scene:
        workers = children_of(scene.server.process.pid)
        kinds = zip(itertools.cycle(FAULTS), itertools.cycle(CLIENTS), strict=False)  # twelve pairs, then again
        for fault, clients in itertools.islice(kinds, count):
            await scene.round(fault, clients)
        if children_of(scene.server.process.pid) != workers:
            scene.wrong("the worker was replaced")
    return scene.report


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    given = parser.parse_args()
    failed = False
    for way in WAYS:
        with tempfile.TemporaryDirectory(prefix="rounds-") as folder:
            report = asyncio.run(rounds(Path(folder), way, given.rounds // len(WAYS)))
        failed |= bool(report.violations)
        sys.stdout.write(f"{way}: {json.dumps(msgspec.to_builtins(report), indent=2)}\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

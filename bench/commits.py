"""The floor of a durable run: a bare program that commits a run and a checkpoint of its size.

It has a table of its own for each, in the PostgreSQL that the server uses: no HTTP, no agent, one connection pool.
*Grouped* batches the writes of its clients into one statement on two connections, as the server does; *single* sends
the statement for each run, on sixteen.
"""

import asyncio
import os
import time
from collections import deque

import asyncpg
import uvloop

from app.base.ids import new_id
from bench.figures import ALONE, GROUP, Load
from bench.load import WARM_SECONDS, Observations, gather_within, summarize
from bench.processes import cpu_seconds

TABLES = """
create schema if not exists bench;
create table if not exists bench.runs (run_id uuid primary key, request bytea, created_at timestamptz default now());
create table if not exists bench.checkpoints (run_id uuid primary key, body bytea);
"""
WRITE = """
with entry as (select * from unnest($1::uuid[], $2::bytea[], $3::bytea[]) as e(run_id, request, body)),
  runs as (insert into bench.runs (run_id, request) select run_id, request from entry)
insert into bench.checkpoints (run_id, body) select run_id, body from entry
"""
REQUEST = os.urandom(120)
CHECKPOINT = os.urandom(1900)
"""About 2 KB with the row overhead: below the TOAST threshold."""

GROUPED, SINGLE = 2, 16
"""Connections of the two variants."""
MAX_BATCH = 256
"""Maximum runs in one statement."""


class Commits:
    """Group commit of runs over ``connections``, at most ``max_batch`` in a statement."""

    def __init__(self, connections: list[asyncpg.Connection], max_batch: int) -> None:
        self._connections = connections
        self._max_batch = max_batch
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()

    def write(self) -> "asyncio.Future[None]":
        """Queue a new run; the future is done once it is committed."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        self._wake.set()
        return written

    async def serve(self, connection: asyncpg.Connection) -> None:
        """Write batches on one connection."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            group = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            count = len(group)
            await connection.execute(WRITE, [new_id() for _ in group], [REQUEST] * count, [CHECKPOINT] * count)
            for written in group:
                written.set_result(None)


async def ask(commits: Commits, observed: Observations, seconds: float) -> None:
    """One client: commit one run after the other."""
    started_at = start = time.perf_counter()
    while start < started_at + seconds and not observed.is_full:
        await commits.write()
        end = time.perf_counter()
        observed.total.append(end - start)
        start = end


def measure(url: str, postgres: int, *, grouped: bool, clients: int, seconds: float) -> Load:
    """Commit for ``clients`` concurrent clients. The program's CPU is reported as the server's."""
    scenario = GROUP if grouped else ALONE

    async def drive() -> Load:
        count = GROUPED if grouped else min(SINGLE, clients)
        connections = [await asyncpg.connect(url) for _ in range(count)]
        await connections[0].execute(TABLES)
        commits = Commits(connections, MAX_BATCH if grouped else 1)
        serving = [asyncio.create_task(commits.serve(connection)) for connection in connections]
        await gather_within([ask(commits, Observations(), WARM_SECONDS) for _ in range(clients)], WARM_SECONDS)
        observed = Observations()
        own, theirs, started_at = time.process_time(), cpu_seconds(postgres), time.perf_counter()
        await gather_within([ask(commits, observed, seconds) for _ in range(clients)], seconds)
        wall = time.perf_counter() - started_at
        used = [time.process_time() - own, cpu_seconds(postgres) - theirs, 0.0]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for connection in connections:
            await connection.close()
        return summarize(scenario, clients, wall, observed, used)

    return uvloop.run(drive())


def clear(url: str) -> None:
    """Drop the tables."""

    async def drop() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("drop schema if exists bench cascade")
        await connection.close()

    uvloop.run(drop())

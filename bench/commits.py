"""The floor under a durable run: a bare program that commits a run and a checkpoint of its size.

It has a table of its own for each, in the PostgreSQL that the server uses: no HTTP, no agent, one connection pool.
*Grouped* gathers what its clients want written into one statement on two connections, as the server does; *single*
sends the same statement for each run alone, on sixteen.
"""

import asyncio
import os
import time
from collections import deque

import asyncpg
import uvloop

from app.base.ids import new_id
from bench.figures import ALONE, GROUP, Load
from bench.load import WARM_SECONDS, Kept, gathered, summed
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
"""With its row's overhead about 2 KB: still in the row's own page."""

GROUPED, SINGLE = 2, 16
"""Connections of the two manners."""
MOST = 256
"""Runs in one statement at the most."""


class Commits:
    """Runs that wait to be written, over ``lanes`` connections, at most ``most`` in a statement."""

    def __init__(self, lanes: list[asyncpg.Connection], most: int) -> None:
        self._lanes = lanes
        self._most = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()

    def write(self) -> "asyncio.Future[None]":
        """Done once a new run is committed."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(written)
        self._wake.set()
        return written

    async def serve(self, lane: asyncpg.Connection) -> None:
        """Write group after group."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            group = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            count = len(group)
            await lane.execute(WRITE, [new_id() for _ in group], [REQUEST] * count, [CHECKPOINT] * count)
            for written in group:
                written.set_result(None)


async def ask(commits: Commits, kept: Kept, seconds: float) -> None:
    """One client: a run after the other."""
    began = start = time.perf_counter()
    while start < began + seconds and not kept.is_full:
        await commits.write()
        end = time.perf_counter()
        kept.total.append(end - start)
        start = end


def measure(url: str, postgres: int, *, grouped: bool, clients: int, seconds: float) -> Load:
    """Commit for ``clients`` at once. The program's own CPU stands as the server's."""
    scenario = GROUP if grouped else ALONE

    async def drive() -> Load:
        count = GROUPED if grouped else min(SINGLE, clients)
        lanes = [await asyncpg.connect(url) for _ in range(count)]
        await lanes[0].execute(TABLES)
        commits = Commits(lanes, MOST if grouped else 1)
        serving = [asyncio.create_task(commits.serve(lane)) for lane in lanes]
        await gathered([ask(commits, Kept(), WARM_SECONDS) for _ in range(clients)], WARM_SECONDS)
        kept = Kept()
        own, theirs, began = time.process_time(), cpu_seconds(postgres), time.perf_counter()
        await gathered([ask(commits, kept, seconds) for _ in range(clients)], seconds)
        wall = time.perf_counter() - began
        used = [time.process_time() - own, cpu_seconds(postgres) - theirs, 0.0]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        for lane in lanes:
            await lane.close()
        return summed(scenario, clients, wall, kept, used)

    return uvloop.run(drive())


def clear(url: str) -> None:
    """Drop the tables."""

    async def drop() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("drop schema if exists bench cascade")
        await connection.close()

    uvloop.run(drop())

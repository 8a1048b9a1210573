"""A thread of many short turns: its storage, and whether its last turn is as fast as its tenth."""

import asyncio
import re
import statistics
import time
from pathlib import Path

import asyncpg
import msgspec
import uvloop

from bench.client import Connection, Failed, connect, request
from bench.figures import Growth, quantile
from bench.operations import API, checked, new_thread

TURNS = 200
EARLY, LATE = slice(4, 15), slice(TURNS - 11, TURNS)
"""Turns 5 to 15 and the last eleven, whose medians are compared."""
READS = 50
ITEMS = "checkpoint_items"

STORED = """
select (select coalesce(sum(pg_column_size(c)), 0) from checkpoints c where c.thread_id = $1)
  + (select coalesce(sum(pg_column_size(i)), 0) from checkpoint_items i where i.thread_id = $1)
"""


class Values(msgspec.Struct):
    """The part of a state that is weighed."""

    values: msgspec.Raw


def measure(port: int, url: str, log: Path, threads: int) -> Growth:
    """Grow threads one after the other. ``url`` is the superuser's, ``log`` the PostgreSQL log."""

    async def drive() -> Growth:
        connection = await connect(port)
        early: list[float] = []
        late: list[float] = []
        thread = ""
        for _ in range(threads):
            thread = await new_thread(connection)
            times = [await turn(connection, thread, n) for n in range(TURNS)]
            early += times[EARLY]
            late += times[LATE]
        reads, values = await read_often(connection, thread)
        database = await asyncpg.connect(url)
        stored = int(await database.fetchval(STORED, thread))
        # the minimum of three: first uses and background work add statements
        of_state, in_all = min([await round_trips(database, log, connection, thread) for _ in range(3)])
        await database.close()
        connection.close()
        return Growth(
            turns=TURNS,
            threads=threads,
            early_ms=round(statistics.median(early) * 1000, 3),
            late_ms=round(statistics.median(late) * 1000, 3),
            stored_bytes=stored,
            state_bytes=len(values),
            read_ms=quantile(reads, 0.5),
            read_statements=of_state,
            read_round_trips=in_all,
        )

    return uvloop.run(drive())


async def turn(connection: Connection, thread: str, number: int) -> float:
    """Run one turn, whose response is only its update; return the seconds it took."""
    body = {
        "assistant_id": "echo",
        "input": {"messages": [{"role": "user", "content": f"turn {number}"}]},
        "stream_mode": "updates",
    }
    ready = request("POST", f"{API}/threads/{thread}/runs/stream", body)
    started_at = time.perf_counter()
    answer = checked(await connection.ask(ready))
    took = time.perf_counter() - started_at
    if f"echo: turn {number}".encode() not in answer.body or b'"status":"success"' not in answer.body[-300:]:
        raise Failed(f"not the turn's end: {answer.body[-300:]!r}")
    return took


async def read_often(connection: Connection, thread: str) -> tuple[list[float], bytes]:
    """Read the thread's state repeatedly; return the seconds of each read, and the values."""
    ready = request("GET", f"{API}/threads/{thread}/state")
    times, body = [], b""
    for _ in range(READS):
        started_at = time.perf_counter()
        body = checked(await connection.ask(ready)).body
        times.append(time.perf_counter() - started_at)
    return times, bytes(msgspec.json.decode(body, type=Values).values)


async def round_trips(database: asyncpg.Connection, log: Path, connection: Connection, thread: str) -> tuple[int, int]:
    """Count the statements of one read of the state: those that read its rows, and all. Uses PostgreSQL's log."""
    before = len(text_of(log))
    await logging(database, "all")
    checked(await connection.ask(request("GET", f"{API}/threads/{thread}/state")))
    await logging(database, "none")
    written = text_of(log)[before:]
    said = re.findall(r"\[(\d+)\] LOG:  (?:execute|statement)(.*?)(?=\n\d{4}-\d\d-\d\d |\Z)", written, re.DOTALL)
    reader = next(session for session, text in said if ITEMS in text)
    texts = [text for session, text in said if session == reader]
    return sum(ITEMS in text for text in texts), len(texts)


def text_of(log: Path) -> str:
    """Return the PostgreSQL log."""
    return log.read_text(encoding="utf-8", errors="replace")


async def logging(database: asyncpg.Connection, what: str) -> None:
    """Set ``log_statement`` to ``what`` for all sessions."""
    await database.execute(f"alter system set log_statement = '{what}'")
    await database.execute("select pg_reload_conf()")
    await asyncio.sleep(0.2)

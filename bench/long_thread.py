"""Whether runs get slower as their thread grows: ``python -m bench.long_thread`` (some minutes).

A thread of many runs alternates with short ones, so that both see the same conditions. The clients request only what
a run adds, not the thread's values, whose size grows.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.client import Connection, Failed, connect, request
from bench.operations import API, HELLO, checked, new_thread
from bench.processes import cpu_seconds
from bench.serving import Postgres, postgres
from bench.starting import serve

RUNS = 1600
SHORT = 20
"""Runs of a thread before one on it counts: the first ones warm up."""
BLOCK = 50
"""Runs on one thread before the other has its turn."""
ROUNDS = 6

Way = Callable[[Connection, str], Awaitable[None]]


async def streamed(mode: str, connection: Connection, thread: str) -> None:
    """A run that is streamed in ``mode``."""
    body = {"assistant_id": "echo", "input": HELLO, "stream_mode": mode}
    answer = checked(await connection.ask(request("POST", f"{API}/threads/{thread}/runs/stream", body)))
    if b"echo: hello" not in answer.body or b'"status":"success"' not in answer.body[-300:]:
        raise Failed(f"not the run's end: {answer.body[-300:]!r}")


async def background(connection: Connection, thread: str) -> None:
    """A run in the background, with the stream mode of a run that names none, of which only the end is read."""
    body = {"assistant_id": "echo", "input": HELLO}
    answer = checked(await connection.ask(request("POST", f"{API}/threads/{thread}/runs", body)))
    run = json.loads(answer.body)["run_id"]
    path = f"{API}/threads/{thread}/runs/{run}/stream?stream_mode=updates"
    end = checked(await connection.ask(request("GET", path))).body
    if b'"status":"success"' not in end[-300:]:
        raise Failed(f"not the run's end: {end[-300:]!r}")


async def waited(connection: Connection, thread: str) -> None:
    """A run that is waited for: answered with all values."""
    body = {"assistant_id": "echo", "input": HELLO}
    answer = checked(await connection.ask(request("POST", f"{API}/threads/{thread}/runs/wait", body)))
    if b"echo: hello" not in answer.body:
        raise Failed(f"not an echo: {answer.body[:200]!r}")


WAYS: dict[str, Way] = {
    "stream of updates": lambda connection, thread: streamed("updates", connection, thread),
    "stream of messages-tuple": lambda connection, thread: streamed("messages-tuple", connection, thread),
    "background, then its end": background,
    "wait, answered with all values": waited,
}


class Cost:
    """What runs took: seconds each, and CPU of the server and of PostgreSQL together."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.server = self.database = 0.0

    def shown(self) -> dict[str, float]:
        each = 1e6 / len(self.seconds)
        return {
            "p50_ms": round(statistics.median(self.seconds) * 1000, 3),
            "server_us": round(self.server * each),
            "postgres_us": round(self.database * each),
        }


async def block(way: Way, connection: Connection, thread: str, count: int) -> list[float]:
    """The seconds of ``count`` runs, one after the other."""
    seconds = []
    for _ in range(count):
        started_at = time.perf_counter()
        await way(connection, thread)
        seconds.append(time.perf_counter() - started_at)
    return seconds


async def measured(
    way: Way, connection: Connection, thread: str, cost: Cost, server_pid: int, database_pid: int
) -> None:
    """Add what a block of runs on ``thread`` takes to ``cost``."""
    before = cpu_seconds(server_pid), cpu_seconds(database_pid)
    cost.seconds += await block(way, connection, thread, BLOCK)
    cost.server += cpu_seconds(server_pid) - before[0]
    cost.database += cpu_seconds(database_pid) - before[1]


async def compare(way: Way, port: int, server_pid: int, database_pid: int, runs: int) -> dict[str, Any]:
    """What a run costs on a thread of ``runs`` runs, and on short ones."""
    connection = await connect(port)
    long = await new_thread(connection)
    await block(way, connection, long, runs)
    of_long, of_short = Cost(), Cost()
    for _ in range(ROUNDS):
        short = await new_thread(connection)
        await block(way, connection, short, SHORT)
        await measured(way, connection, short, of_short, server_pid, database_pid)
        await measured(way, connection, long, of_long, server_pid, database_pid)
    connection.close()
    young, old = of_short.shown(), of_long.shown()
    return {"short": young, "long": old, "ratio": {name: round(old[name] / young[name], 2) for name in young}}


def measure(runs: int, ways: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with postgres(folder) as database:
            return {way: of_way(WAYS[way], database, folder, runs, way) for way in ways}


def of_way(way: Way, database: Postgres, folder: Path, runs: int, name: str) -> dict[str, Any]:
    """The figures of one way, on a server of its own."""
    with serve(database.url, folder) as server:
        found = uvloop.run(compare(way, server.port, server.pid, database.pid, runs))
    print(name, found, file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.long_thread", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--way", action="append", choices=list(WAYS), help="only this one (repeatable)")
    given = parser.parse_args()
    print(json.dumps(measure(given.runs, given.way or list(WAYS)), indent=2))


if __name__ == "__main__":
    main()

"""``make soak`` (``python -m bench.soak``): mixed load with faults at a low rate, a calm phase, then a check for leaks.

A server with two workers, Redis and the embedded PostgreSQL; every ``--every`` seconds the younger worker is killed,
half of the database's connections are cut, or Redis is restarted. The exit code is 1 when a row does not hold.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from aiohttp import web

from app.infra.db import migrations
from app.infra.db.embedded import EmbeddedDatabase
from bench.processes import Server
from bench.serving import base, server
from bench.soak import samples, verdicts
from bench.soak.loads import Clients
from tests.redis import RedisServer

RESULTS = Path(__file__).parents[1] / "results"
SAMPLE_SECONDS = 2.0
LAST_SECONDS = 90.0
"""Timeout of work in progress after the load."""
CALM_SECONDS = 90.0
"""Timeout of the calm phase: leases, webhook retries and idle connections must end."""
AGENTS = """
[agents.stream100]
model = "scripted:stream100"
[agents.helper]
model = "scripted:demo"
tools = ["calculator", "clock"]
"""
CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and random() < 0.5
"""


class Troubles:
    """Injects faults one after the other."""

    def __init__(self, url: str, redis: RedisServer, one: Server) -> None:
        self._url = url
        self._redis = redis
        self._server = one
        self.done: dict[str, int] = {}
        kinds = {"worker killed": self.kill, "connections cut": self.cut, "Redis restarted": self.restart}
        self._next = itertools.cycle(kinds.items())

    async def again_and_again(self, every: float, clients: Clients) -> None:
        """Inject a fault every so many seconds."""
        while True:
            await clients.rest(every)
            if clients.over.is_set():
                return
            name, trouble = next(self._next)
            await trouble()
            self.done[name] = self.done.get(name, 0) + 1

    async def kill(self) -> None:
        """Kill the younger worker; the memory of the older one is sampled."""
        os.kill(samples.workers(self._server.pid)[-1], signal.SIGKILL)

    async def cut(self) -> None:
        """Terminate half of the database connections."""
        connection = await asyncpg.connect(self._url)
        await connection.execute(CUT)
        await connection.close()

    async def restart(self) -> None:
        """Stop Redis for a moment."""
        await asyncio.to_thread(self._redis.stop)
        await asyncio.sleep(1)
        await asyncio.to_thread(self._redis.start)


@contextlib.asynccontextmanager
async def hook() -> Any:
    """The address of a receiver of webhooks."""

    async def take(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


async def watch(watched: samples.Watch, over: asyncio.Event) -> None:
    """Sample until the load has ended."""
    while not over.is_set():
        watched.look()
        await asyncio.sleep(SAMPLE_SECONDS)


async def soak(url: str, redis: RedisServer, one: Server, given: argparse.Namespace) -> dict[str, Any]:
    """Run load and calm phase, then check."""
    async with hook() as address:
        first = Clients(base(one), address, given.seed)  # each kind once, so that first uses count as before
        await asyncio.gather(*(work() for name, (work, _, _) in first.works().items() if name != "crons"))
        await first.http.aclose()
        await asyncio.sleep(10)
        before = await asyncio.to_thread(samples.gauges, one.port)
        clients, troubles = Clients(base(one), address, given.seed), Troubles(url, redis, one)
        watched = samples.Watch(samples.workers(one.pid)[0])
        doing = [
            clients.again_and_again(name, work, pause)
            for name, (work, many, pause) in clients.works().items()
            for _ in range(many)
        ]
        asyncio.get_running_loop().call_later(given.minutes * 60, clients.over.set)
        async with asyncio.timeout(given.minutes * 60 + LAST_SECONDS):
            await asyncio.gather(*doing, troubles.again_and_again(given.every, clients), watch(watched, clients.over))
        await clients.http.aclose()
        rows = await calm(url, one, before, clients.wrong)
    return {
        "minutes": given.minutes,
        "seed": given.seed,
        "done": dict(clients.done),
        "disturbed and done again": dict(clients.disturbed),
        "faults": troubles.done,
        "wrong": clients.wrong[:20],
        "memory": watched.seen,
        "rows": [verdicts.of_memory(watched.seen), *rows],
    }


async def calm(url: str, one: Server, before: dict[str, float], wrong: list[str]) -> list[verdicts.Row]:
    """Wait until all checks hold, at most ``CALM_SECONDS``."""
    deadline = time.monotonic() + CALM_SECONDS
    while True:
        await asyncio.sleep(5)
        after = await asyncio.to_thread(samples.gauges, one.port)
        left = await samples.left_over(url)
        rows = [*verdicts.of_gauges(before, after), *verdicts.of_counts(left, wrong)]
        if all(row.holds for row in rows) or time.monotonic() > deadline:
            return rows


@contextlib.contextmanager
def soaked(folder: Path) -> Iterator[tuple[str, RedisServer, Server]]:
    """Start a server with two workers and its dependencies."""
    with contextlib.ExitStack() as stack:
        database = EmbeddedDatabase(folder)
        url = database.start()
        stack.callback(database.stop)
        migrations.upgrade(url)
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        settings = {
            "REDIS_URL": redis.url,
            "WORKERS": "2",
            "AGENT_LEASE_SECONDS": "5",
            "AGENT_EGRESS_ALLOW": "127.0.0.0/8",
        }
        yield url, redis, stack.enter_context(server(url, folder, AGENTS, **settings))


def main() -> int:
    """Print the table, write the result."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, soaked(Path(place)) as (url, redis, one):
        found = asyncio.run(soak(url, redis, one, given))
    rows = found["rows"]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("soak-%Y%m%dT%H%M%SZ.json", time.gmtime())
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    summary = {name: found[name] for name in ("done", "disturbed and done again", "faults", "wrong")}
    print(f"{json.dumps(summary, indent=2)}\n\n{verdicts.shown(rows)}\n\n{path}")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

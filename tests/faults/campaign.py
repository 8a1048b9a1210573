"""Run random programs on several servers under random faults, then check every guarantee.

``python -m tests.faults.campaign --threads 100 --turns 5`` prints a report; exit code 1 if a guarantee was violated.
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import asyncpg
import httpx
import msgspec
from redis.asyncio import Redis

from app.infra.db import migrations
from tests.faults import checker
from tests.faults.driver import Driver
from tests.faults.fleet import LEASE_SECONDS, Fleet, Witness
from tests.faults.programs import Program, programs
from tests.faults.proxy import Proxy, Trouble
from tests.outages import Server
from tests.redis import RedisServer

SERVERS = 3

FAULTS = {
    "kill": 2,
    "kill_worker": 3,
    "freeze": 2,
    "roll": 2,
    "terminate_backends": 2,
    "crash_database": 1,
    "restart_database": 1,
    "network": 4,
    "redis": 3,
}
"""Faults and their relative weights."""

STARTING = 0.05
"""Share of the faults that may hit a server that is still starting."""

PROGRESS = 50
"""Threads between two lines of progress."""

REFUSED = 0.03
"""Share of the model requests that fail at the provider."""


class Report(msgspec.Struct):
    """The faults that happened, and the violations found."""

    seed: int
    runs: int
    seconds: float
    faults: dict[str, int]
    refused: int
    commits_unheard: int
    reviews: int
    recovered: int
    readers: int
    latest_end: float
    violations: list[str]
    log: list[tuple[float, float, str]] = []


class FaultBench:
    """The environment of a campaign: a database that can crash, with a proxy for each server, and Redis."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.database = Server(folder / "database", {"fsync": "off"})
        self._seed = seed
        self._folder = folder
        self.proxies: list[Proxy] = []

    async def __aenter__(self) -> Self:
        self.redis = await asyncio.to_thread(RedisServer, self._folder)
        await asyncio.to_thread(self.database.begin)
        await asyncio.to_thread(migrations.upgrade, self.database.url)
        self.proxies = [await Proxy(self.database.url, self._seed).__aenter__() for _ in range(SERVERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in self.proxies:
            await proxy.__aexit__()
        await asyncio.to_thread(self.database.stop)
        await asyncio.to_thread(self.redis.stop)

    async def crash(self) -> None:
        """Crash and restart the database."""
        await self._with_new_address(self.database.crash)

    async def restart(self) -> None:
        """Restart the database gracefully."""
        await self._with_new_address(self.database.restart)

    async def _with_new_address(self, how: Callable[[], None]) -> None:
        await asyncio.to_thread(how)
        for proxy in self.proxies:
            proxy.aim(self.database.url)


class Chaos:
    """Injects one fault after the other until it is stopped."""

    def __init__(self, fleet: Fleet, testbed: FaultBench, seed: int, every: float) -> None:
        self._fleet = fleet
        self._testbed = testbed
        self._rng = random.Random(seed)
        self._every = every
        self._stop = asyncio.Event()
        self.faults = FAULTS
        self.done: Counter[str] = Counter()
        self.log: list[tuple[float, float, str]] = []
        """Start and end of each fault, by the same monotonic clock as the effects."""

    async def run(self) -> None:
        names, weights = list(self.faults), list(self.faults.values())
        while not await self._stopped(self._every):
            (fault,) = self._rng.choices(names, weights)
            index, started_at = await self._pick_server(), time.monotonic()
            if fault == "terminate_backends":
                await self._terminate()
            elif fault == "crash_database":
                await self._testbed.crash()
            elif fault == "restart_database":
                await self._testbed.restart()
            elif fault == "network":
                fault = await self._network(index)
            elif fault == "redis":
                fault = await self._redis()
            elif fault == "freeze":
                await asyncio.to_thread(self._fleet.freeze, index, LEASE_SECONDS * 1.5)
            else:
                await asyncio.to_thread(getattr(self._fleet, fault), index)
            self.done[fault] += 1
            self.log.append((round(started_at, 2), round(time.monotonic(), 2), f"{fault} {index}"))

    async def _pick_server(self) -> int:
        """Wait until most servers answer and return the index of one; sometimes return any, so that some die starting.

        Otherwise a busy machine, where a start takes longer than the pause between faults, would never have a server.
        """
        bases, any_will_do = self._fleet.bases(), self._rng.random() < STARTING
        async with httpx.AsyncClient(timeout=1.0) as http:
            while not self._stop.is_set() and not any_will_do:
                await asyncio.to_thread(self._fleet.start_exited)
                live = [index for index, base in enumerate(bases) if await _is_live(http, base)]
                if len(live) > len(bases) // 2:
                    return self._rng.choice(live)
                await self._stopped(0.1)
        return self._rng.randrange(len(bases))

    async def _network(self, index: int) -> str:
        trouble = self._rng.choice([one for one in Trouble if one is not Trouble.NONE])
        async with self._testbed.proxies[index].having(trouble):
            await self._stopped(self._rng.uniform(0.5, LEASE_SECONDS * 1.5))
        return f"network {trouble.name.lower()}"

    async def _redis(self) -> str:
        redis = self._testbed.redis
        trouble = self._rng.choice(["restart", "freeze", "flush", "cut", "slow"])
        if trouble == "restart":
            await asyncio.to_thread(redis.stop)
            await self._stopped(self._rng.uniform(0.0, 3.0))
            await asyncio.to_thread(redis.start)
        elif trouble == "freeze":
            redis.freeze()
            await self._stopped(self._rng.uniform(0.5, 6.0))
            redis.thaw()
        else:
            async with Redis.from_url(redis.url) as client:
                if trouble == "flush":
                    await client.flushall()
                elif trouble == "cut":
                    await client.client_kill_filter(_type="pubsub")
                else:
                    await client.client_pause(1500)
        return f"redis {trouble}"

    async def _terminate(self) -> None:
        connection = await asyncpg.connect(self._testbed.database.url)
        try:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and random() < 0.5"
            )
        finally:
            await connection.close()

    async def _stopped(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()


async def _is_live(http: httpx.AsyncClient, base: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await http.get(f"{base}/health/live")).is_success
    return False


async def campaign(
    folder: Path, seed: int, size: tuple[int, int], every: float, faults: str = "", seconds: float = math.inf
) -> Report:
    """Run ``size`` threads and turns, at most 24 at once, on three servers, with a fault every ``every`` seconds.

    ``faults``: comma-separated names; empty for all. After ``seconds`` no more threads start. Odd seeds have a Redis.
    """
    threads = programs(seed, *size)
    async with FaultBench(folder, seed) as testbed, contextlib.AsyncExitStack() as undo:
        witness = Witness(folder, REFUSED)
        undo.push_async_callback(asyncio.to_thread, witness.close)
        redis = {"REDIS_URL": testbed.redis.url} if seed % 2 else {}
        fleet = Fleet(testbed.database.url, folder, witness, 0)
        undo.push_async_callback(asyncio.to_thread, fleet.close)
        for proxy in testbed.proxies:
            await asyncio.to_thread(fleet.add, DATABASE_URL=proxy.url, **redis)
        driver = Driver(fleet.bases, witness.effects)
        undo.push_async_callback(driver.aclose)
        chaos = Chaos(fleet, testbed, seed, every)
        chaos.faults = {name: often for name, often in FAULTS.items() if not faults or name in faults.split(",")}
        started_at = time.monotonic()
        violations = await run_threads(driver, chaos, threads, started_at + seconds)
        threads = threads[: len(driver.thread_ids)]
        violations += await check(driver, witness, threads, testbed.database.url)
        violations += fleet.unexpected_exits
        recovered = sum(any(numbers[0] > 1 for numbers in map(epochs, one.frames)) for one in driver.records)
        return Report(
            seed=seed,
            runs=len(driver.records),
            seconds=round(time.monotonic() - started_at, 1),
            faults=dict(chaos.done),
            refused=len((await asyncio.to_thread(witness.report))["refused"]),
            commits_unheard=sum(proxy.lost for proxy in testbed.proxies),
            reviews=driver.reviews,
            recovered=recovered,
            readers=len(driver.reader_records),
            latest_end=round(max((one.late for one in driver.reader_records), default=0.0), 1),
            violations=violations,
            log=chaos.log if violations else [],
        )


async def run_threads(driver: Driver, chaos: Chaos, threads: list[list[Program]], until: float) -> list[str]:
    """Run the threads that start before ``until`` under faults; return the errors of those that did not end."""
    trouble = asyncio.ensure_future(chaos.run())
    slots = asyncio.Semaphore(24)

    async def one(number: int) -> None:
        async with slots:
            if time.monotonic() < until:
                await driver.converse(number, threads[number])
        if number % PROGRESS == PROGRESS - 1:
            sys.stderr.write(f"{len(driver.records)} runs, {chaos.done.total()} faults\n")

    conversations = asyncio.gather(*map(one, range(len(threads))), return_exceptions=True)
    await asyncio.wait((conversations, trouble), return_when=asyncio.FIRST_COMPLETED)
    if not conversations.done():
        conversations.cancel()
        raise RuntimeError("no more faults are injected") from trouble.exception()
    results = await conversations
    chaos.stop()
    await trouble
    return [f"{type(error).__name__}: {error}" for error in results if error is not None]


def epochs(frame: tuple[str, str, bytes]) -> tuple[int, int]:
    return checker.numbers(frame[0])


async def check(driver: Driver, witness: Witness, threads: list[list[Program]], database_url: str) -> list[str]:
    """Return all violations."""
    witnessed = await asyncio.to_thread(witness.report)
    everything = [program for turns in threads for program in turns]
    wrong = [words for record in (*driver.records, *driver.reader_records) for words in checker.streams(record)]
    wrong += [words for record in driver.records for words in checker.failed(record)]
    wrong += checker.effects(everything, witnessed)
    wrong += checker.questions(witnessed, everything)
    wrong += await checker.transitions(database_url, driver.records)
    wrong += await checker.conversations(driver, threads)
    thread_of = {program.id: driver.thread_ids[n] for n, turns in enumerate(threads) for program in turns}
    for record in driver.records:
        again = await driver.replay(thread_of[record.program], record)
        for one in (record, *(one for one in driver.reader_records if one.run_id == record.run_id)):
            wrong += [*checker.repeated(one, again), *checker.ends(one)]
    return wrong


def main() -> int:
    """Run a campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--faults", default="", help=f"some of {','.join(FAULTS)} (all)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no more threads after this time")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(
            campaign(
                Path(folder),
                given.seed,
                (given.threads, given.turns),
                given.every,
                given.faults,
                given.minutes * 60,
            )
        )
    sys.stdout.write(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

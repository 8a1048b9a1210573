"""Random programs on several servers while they are killed, paused and restarted; then every promise is checked.

``python -m tests.faults.campaign --threads 100 --turns 5`` prints a table; it ends with 1 when a promise was broken.
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
"""What may go wrong, and how often in comparison."""

STARTING = 0.05
"""The part of the faults that meet a server whether it has started or not."""

REFUSED = 0.03
"""The part of the questions to the model that meet a provider in trouble."""


class Report(msgspec.Struct):
    """What was done, and what was broken by it."""

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


class Ground:
    """What a campaign stands on: a database that can crash, and the way of each server to it."""

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
        """The database stops as if its machine had, and comes back."""
        await self._again(self.database.crash)

    async def restart(self) -> None:
        """The database stops in order, and comes back."""
        await self._again(self.database.restart)

    async def _again(self, how: Callable[[], None]) -> None:
        await asyncio.to_thread(how)
        for proxy in self.proxies:
            proxy.aim(self.database.url)


class Chaos:
    """Does something bad to one server after the other until it is told to stop."""

    def __init__(self, fleet: Fleet, ground: Ground, seed: int, every: float) -> None:
        self._fleet = fleet
        self._ground = ground
        self._dice = random.Random(seed)
        self._every = every
        self._stop = asyncio.Event()
        self.faults = FAULTS
        self.done: Counter[str] = Counter()
        self.log: list[tuple[float, float, str]] = []
        """When each began and was over, by the clock of this machine that effects are told in."""

    async def run(self) -> None:
        names, weights = list(self.faults), list(self.faults.values())
        while not await self._stopped(self._every):
            (fault,) = self._dice.choices(names, weights)
            place, began = await self._place(), time.monotonic()
            if fault == "terminate_backends":
                await self._terminate()
            elif fault == "crash_database":
                await self._ground.crash()
            elif fault == "restart_database":
                await self._ground.restart()
            elif fault == "network":
                fault = await self._network(place)
            elif fault == "redis":
                fault = await self._redis()
            elif fault == "freeze":
                await asyncio.to_thread(self._fleet.freeze, place, LEASE_SECONDS * 1.5)
            else:
                await asyncio.to_thread(getattr(self._fleet, fault), place)
            self.done[fault] += 1
            self.log.append((round(began, 2), round(time.monotonic(), 2), f"{fault} {place}"))

    async def _place(self) -> int:
        """A server that answers, once there is one; at times any, so that some die while they start.

        Else a busy machine, on which a start takes longer than the pause between two faults, would never have a server.
        """
        bases = self._fleet.bases()
        async with httpx.AsyncClient(timeout=1.0) as http:
            while not self._stop.is_set() and self._dice.random() > STARTING:
                for place in self._dice.sample(range(len(bases)), len(bases)):
                    with contextlib.suppress(httpx.HTTPError):
                        if (await http.get(f"{bases[place]}/health/live")).is_success:
                            return place
                await self._stopped(0.1)
        return self._dice.randrange(len(bases))

    async def _network(self, place: int) -> str:
        trouble = self._dice.choice([one for one in Trouble if one is not Trouble.NONE])
        async with self._ground.proxies[place].having(trouble):
            await self._stopped(self._dice.uniform(0.5, LEASE_SECONDS * 1.5))
        return f"network {trouble.name.lower()}"

    async def _redis(self) -> str:
        redis = self._ground.redis
        trouble = self._dice.choice(["restart", "freeze", "flush", "cut", "slow"])
        if trouble == "restart":
            await asyncio.to_thread(redis.stop)
            await self._stopped(self._dice.uniform(0.0, 3.0))
            await asyncio.to_thread(redis.start)
        elif trouble == "freeze":
            redis.freeze()
            await self._stopped(self._dice.uniform(0.5, 6.0))
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
        connection = await asyncpg.connect(self._ground.database.url)
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


async def campaign(
    folder: Path, seed: int, size: tuple[int, int], every: float, faults: str = "", seconds: float = math.inf
) -> Report:
    """``size`` threads and turns each, at most 24 at once, on three servers; one fault after ``every`` seconds.

    ``faults``: the names of those that happen, with commas between; all of them when it is empty. After ``seconds`` no
    more threads begin. Every second campaign has a Redis.
    """
    threads = programs(seed, *size)
    async with Ground(folder, seed) as ground, contextlib.AsyncExitStack() as undo:
        witness = Witness(folder, REFUSED)
        undo.push_async_callback(asyncio.to_thread, witness.close)
        redis = {"REDIS_URL": ground.redis.url} if seed % 2 else {}
        fleet = Fleet(ground.database.url, folder, witness, 0)
        undo.push_async_callback(asyncio.to_thread, fleet.close)
        for proxy in ground.proxies:
            await asyncio.to_thread(fleet.add, DATABASE_URL=proxy.url, **redis)
        driver = Driver(fleet.bases, witness.effects)
        undo.push_async_callback(driver.aclose)
        chaos = Chaos(fleet, ground, seed, every)
        chaos.faults = {name: often for name, often in FAULTS.items() if not faults or name in faults.split(",")}
        began = time.monotonic()
        violations = await worked(driver, chaos, threads, began + seconds)
        threads = threads[: len(driver.thread_ids)]
        violations += await checked(driver, witness, threads, ground.database.url)
        recovered = sum(any(numbers[0] > 1 for numbers in map(epochs, one.frames)) for one in driver.told)
        return Report(
            seed=seed,
            runs=len(driver.told),
            seconds=round(time.monotonic() - began, 1),
            faults=dict(chaos.done),
            refused=len((await asyncio.to_thread(witness.says))["refused"]),
            commits_unheard=sum(proxy.lost for proxy in ground.proxies),
            reviews=driver.reviews,
            recovered=recovered,
            readers=len(driver.watched),
            latest_end=round(max((one.late for one in driver.watched), default=0.0), 1),
            violations=violations,
            log=chaos.log if violations else [],
        )


async def worked(driver: Driver, chaos: Chaos, threads: list[list[Program]], until: float) -> list[str]:
    """Run what begins before ``until`` in the middle of the chaos; conversations that did not end, in words."""
    trouble = asyncio.ensure_future(chaos.run())
    few = asyncio.Semaphore(24)

    async def one(number: int) -> None:
        async with few:
            if time.monotonic() < until:
                await driver.converse(number, threads[number])

    results = await asyncio.gather(*map(one, range(len(threads))), return_exceptions=True)
    chaos.stop()
    await trouble
    return [f"{type(error).__name__}: {error}" for error in results if error is not None]


def epochs(frame: tuple[str, str, bytes]) -> tuple[int, int]:
    return checker.numbers(frame[0])


async def checked(driver: Driver, witness: Witness, threads: list[list[Program]], database_url: str) -> list[str]:
    """Every promise that was broken."""
    says = await asyncio.to_thread(witness.says)
    everything = [program for turns in threads for program in turns]
    wrong = [words for told in (*driver.told, *driver.watched) for words in checker.streams(told)]
    wrong += [words for told in driver.told for words in checker.failed(told)]
    wrong += checker.effects(everything, says)
    wrong += checker.questions(says, everything)
    wrong += await checker.transitions(database_url, driver.told)
    wrong += await checker.conversations(driver, threads)
    thread_of = {program.id: driver.thread_ids[n] for n, turns in enumerate(threads) for program in turns}
    for told in driver.told:
        again = await driver.replay(thread_of[told.program], told)
        for one in (told, *(one for one in driver.watched if one.run_id == told.run_id)):
            wrong += [*checker.repeated(one, again), *checker.ends(one)]
    return wrong


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--faults", default="", help=f"some of {','.join(FAULTS)} (all)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no more threads after so long")
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

"""Random programs on several servers while they are killed, paused and restarted; then every promise is checked.

``python -m tests.faults.campaign --threads 100 --turns 5`` prints a table; it ends with 1 when a promise was broken.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import asyncpg
import msgspec

from tests.database import clone, drop, server_with_template
from tests.faults import checker
from tests.faults.driver import Driver
from tests.faults.fleet import LEASE_SECONDS, Fleet, Witness
from tests.faults.programs import Program, programs

FAULTS = ("kill", "kill_worker", "kill_worker", "freeze", "roll", "terminate_backends")


class Report(msgspec.Struct):
    """What was done, and what was broken by it."""

    seed: int
    runs: int
    seconds: float
    faults: dict[str, int]
    reviews: int
    recovered: int
    violations: list[str]


class Chaos:
    """Does something bad to one server after the other until it is told to stop."""

    def __init__(self, fleet: Fleet, database_url: str, seed: int, every: float) -> None:
        self._fleet = fleet
        self._database_url = database_url
        self._dice = random.Random(seed)
        self._every = every
        self._stop = asyncio.Event()
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._stop.wait()
                    return
            fault = self._dice.choice(FAULTS)
            place = self._dice.randrange(len(self._fleet.servers))
            if fault == "terminate_backends":
                await self._terminate()
            elif fault == "freeze":
                await asyncio.to_thread(self._fleet.freeze, place, LEASE_SECONDS * 1.5)
            else:
                await asyncio.to_thread(getattr(self._fleet, fault), place)
            self.done[fault] += 1

    async def _terminate(self) -> None:
        connection = await asyncpg.connect(self._database_url)
        try:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and random() < 0.5"
            )
        finally:
            await connection.close()

    def stop(self) -> None:
        self._stop.set()


async def campaign(database_url: str, folder: Path, seed: int, size: tuple[int, int], every: float) -> Report:
    """``size`` threads and turns each, at most 24 at once, on three servers; one fault after ``every`` seconds."""
    threads = programs(seed, *size)
    witness = Witness(folder)
    fleet = await asyncio.to_thread(Fleet, database_url, folder, witness, 3)
    driver = Driver(fleet.bases, witness.effects)
    chaos = Chaos(fleet, database_url, seed, every)
    began = time.monotonic()
    try:
        trouble = asyncio.ensure_future(chaos.run())
        few = asyncio.Semaphore(24)

        async def one(number: int) -> None:
            async with few:
                await driver.converse(number, threads[number])

        results = await asyncio.gather(*map(one, range(len(threads))), return_exceptions=True)
        chaos.stop()
        await trouble
        violations = [f"{type(error).__name__}: {error}" for error in results if error is not None]
        violations += await checked(driver, witness, threads, database_url)
        recovered = sum(any(numbers[0] > 1 for numbers in map(epochs, one.frames)) for one in driver.told)
        return Report(
            seed=seed,
            runs=len(driver.told),
            seconds=round(time.monotonic() - began, 1),
            faults=dict(chaos.done),
            reviews=driver.reviews,
            recovered=recovered,
            violations=violations,
        )
    finally:
        await driver.aclose()
        await asyncio.to_thread(fleet.close)
        await asyncio.to_thread(witness.close)


def epochs(frame: tuple[str, str, bytes]) -> tuple[int, int]:
    return checker.numbers(frame[0])


async def checked(driver: Driver, witness: Witness, threads: list[list[Program]], database_url: str) -> list[str]:
    """Every promise that was broken."""
    says = await asyncio.to_thread(witness.says)
    everything = [program for turns in threads for program in turns]
    wrong = [words for told in driver.told for words in checker.streams(told)]
    wrong += checker.effects(everything, says)
    wrong += checker.questions(says, everything)
    wrong += await checker.transitions(database_url, driver.told)
    wrong += await checker.conversations(driver, threads)
    thread_of = {program.id: driver.thread_ids[n] for n, turns in enumerate(threads) for program in turns}
    for told in driver.told:
        again = await driver.replay(thread_of[told.program], told)
        if checker.settled(again) != checker.settled(told.frames):
            wrong.append(f"run {told.run_id}: the replay differs from what was streamed")
    return wrong


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults")
    given = parser.parse_args()

    async def go(server_url: str) -> Report:
        url = await clone(server_url)
        with tempfile.TemporaryDirectory() as folder:
            report = await campaign(url, Path(folder), given.seed, (given.threads, given.turns), given.every)
        await drop(server_url, url)
        return report

    with server_with_template() as server_url:
        report = asyncio.run(go(server_url))
    sys.stdout.write(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

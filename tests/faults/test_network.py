"""Guarantees hold when the database crashes or the network to it fails."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.cli.serve import GRACE_SECONDS
from tests.faults.campaign import FaultBench, check
from tests.faults.driver import Driver
from tests.faults.fleet import LEASE_SECONDS, Fleet, Witness
from tests.faults.programs import Program, programs
from tests.faults.proxy import Trouble
from tests.long_form import FULL

pytestmark = pytest.mark.timeout(180)

CONVERSATIONS, RUNS = (6, 6) if FULL else (4, 2)
"""Conversations at once, and runs that must start after each fault."""

SHORT_FORM = (Trouble.BLACKHOLE, Trouble.CUT, Trouble.DEAF, Trouble.HALF_OPEN)
TROUBLES = [one for one in Trouble if one is not Trouble.NONE] if FULL else SHORT_FORM


class Scenario:
    """Two servers with faulty connections to the database; conversations continue until ``stopped``."""

    def __init__(self, testbed: FaultBench, folder: Path) -> None:
        self.testbed = testbed
        self.witness = Witness(folder, 0.1)
        self.fleet = Fleet(testbed.database.url, folder, self.witness, 0)
        self.driver = Driver(self.fleet.bases, self.witness.effects)
        self.threads: list[list[Program]] = []
        self._numbers = itertools.count()
        self.stopped = False

    async def converse(self) -> None:
        """Run one thread after the other."""
        while not self.stopped:
            number = next(self._numbers)
            turns = programs(1000 + number, 1, 2)[0]
            self.threads.append(turns)
            await self.driver.converse(number, turns)

    async def wait_for_runs(self, more: int, working: "asyncio.Future[list[None]]") -> None:
        """Wait until ``more`` runs have started, or the work has ended."""
        enough = len(self.driver.records) + more
        while len(self.driver.records) < enough and not working.done():  # noqa: ASYNC110  polls the records
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.driver.aclose()
        await asyncio.to_thread(self.fleet.close)
        await asyncio.to_thread(self.witness.close)


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    async with FaultBench(tmp_path, 5) as testbed:
        scenario = Scenario(testbed, tmp_path)
        try:
            for proxy in testbed.proxies[:2]:
                await asyncio.to_thread(scenario.fleet.add, DATABASE_URL=proxy.url)
            yield scenario
        finally:
            await scenario.close()


async def test_guarantees_hold_under_every_network_fault(scenario: Scenario) -> None:
    """Each fault outlasts a lease: runs change their owner without the old one's knowledge."""
    work = asyncio.gather(*(scenario.converse() for _ in range(CONVERSATIONS)))
    for trouble in TROUBLES:
        async with scenario.testbed.proxies[0].having(trouble):
            await asyncio.sleep(LEASE_SECONDS + 1.0)
        await scenario.wait_for_runs(RUNS, work)
    scenario.stopped = True
    await work
    assert await check(scenario.driver, scenario.witness, scenario.threads, scenario.testbed.database.url) == []


async def test_guarantees_hold_when_commit_confirmations_are_lost(scenario: Scenario) -> None:
    proxy = scenario.testbed.proxies[0]
    async with proxy.having(Trouble.LOST_COMMITS):
        work = asyncio.gather(*(scenario.converse() for _ in range(4)))
        while proxy.lost < 12 and not work.done():
            await scenario.wait_for_runs(1, work)
    scenario.stopped = True
    await work
    assert await check(scenario.driver, scenario.witness, scenario.threads, scenario.testbed.database.url) == []


async def test_a_database_crash_under_load_costs_only_time(scenario: Scenario) -> None:
    work = asyncio.gather(*(scenario.converse() for _ in range(6)))
    for _ in range(2):
        await scenario.wait_for_runs(6, work)
        await scenario.testbed.crash()
    scenario.stopped = True
    await work
    assert await check(scenario.driver, scenario.witness, scenario.threads, scenario.testbed.database.url) == []


async def test_a_server_without_its_database_still_stops_gracefully_in_time(scenario: Scenario) -> None:
    """SIGTERM during a blackhole: runs cannot be handed over, so they resume when their leases expire."""
    work = asyncio.gather(*(scenario.converse() for _ in range(6)))
    await scenario.wait_for_runs(12, work)
    proxy, server = scenario.testbed.proxies[0], scenario.fleet.servers[0]
    async with proxy.having(Trouble.BLACKHOLE):
        server.process.terminate()
        code = await asyncio.to_thread(server.process.wait, 2 + GRACE_SECONDS + 3)
    assert code == 0, server.log.read_text()[-3000:]
    assert "worker_killed" not in server.log.read_text()
    await asyncio.to_thread(scenario.fleet.restart, 0)
    scenario.stopped = True
    await work
    assert await check(scenario.driver, scenario.witness, scenario.threads, scenario.testbed.database.url) == []

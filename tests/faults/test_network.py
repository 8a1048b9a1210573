"""The database crashes, the way to it goes wrong: nothing that was promised is lost, whoever hears of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.cli.serve import GRACE_SECONDS
from tests.faults.campaign import Ground, checked
from tests.faults.driver import Driver
from tests.faults.fleet import LEASE_SECONDS, Fleet, Witness
from tests.faults.programs import Program, programs
from tests.faults.proxy import Trouble

pytestmark = pytest.mark.timeout(180)

TROUBLES = [one for one in Trouble if one is not Trouble.NONE]


class Scene:
    """A server whose way to the database can go wrong, and one whose does not; conversations go on until ``still``."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground = ground
        self.witness = Witness(folder, 0.1)
        self.fleet = Fleet(ground.database.url, folder, self.witness, 0)
        self.driver = Driver(self.fleet.bases, self.witness.effects)
        self.threads: list[list[Program]] = []
        self._numbers = itertools.count()
        self.still = False

    async def converse(self) -> None:
        """One thread after the other."""
        while not self.still:
            number = next(self._numbers)
            turns = programs(1000 + number, 1, 2)[0]
            self.threads.append(turns)
            await self.driver.converse(number, turns)

    async def heard(self, more: int, working: "asyncio.Future[list[None]]") -> None:
        """Come back when ``more`` runs have begun, or the work is over."""
        enough = len(self.driver.told) + more
        while len(self.driver.told) < enough and not working.done():  # noqa: ASYNC110  what clients have heard
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.driver.aclose()
        await asyncio.to_thread(self.fleet.close)
        await asyncio.to_thread(self.witness.close)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Ground(tmp_path, 5) as ground:
        scene = Scene(ground, tmp_path)
        try:
            for proxy in ground.proxies[:2]:
                await asyncio.to_thread(scene.fleet.add, DATABASE_URL=proxy.url)
            yield scene
        finally:
            await scene.close()


async def test_the_way_to_the_database_may_go_wrong_in_every_manner(scene: Scene) -> None:
    """Longer than a lease each: runs change their owner while the old one cannot know it."""
    work = asyncio.gather(*(scene.converse() for _ in range(6)))
    for trouble in TROUBLES:
        async with scene.ground.proxies[0].having(trouble):
            await asyncio.sleep(LEASE_SECONDS + 1.0)
        await scene.heard(6, work)
    scene.still = True
    await work
    assert await checked(scene.driver, scene.witness, scene.threads, scene.ground.database.url) == []


async def test_answers_to_commits_may_be_lost_all_the_time(scene: Scene) -> None:
    proxy = scene.ground.proxies[0]
    async with proxy.having(Trouble.LOST_COMMITS):
        work = asyncio.gather(*(scene.converse() for _ in range(4)))
        while proxy.lost < 12 and not work.done():
            await scene.heard(1, work)
    scene.still = True
    await work
    assert await checked(scene.driver, scene.witness, scene.threads, scene.ground.database.url) == []


async def test_a_database_that_crashes_under_load_costs_time_alone(scene: Scene) -> None:
    work = asyncio.gather(*(scene.converse() for _ in range(6)))
    for _ in range(2):
        await scene.heard(6, work)
        await scene.ground.crash()
    scene.still = True
    await work
    assert await checked(scene.driver, scene.witness, scene.threads, scene.ground.database.url) == []


async def test_a_server_that_has_lost_its_database_still_stops_in_time_and_in_order(scene: Scene) -> None:
    """SIGTERM while nothing comes through: its runs cannot be handed over, so they go on when their leases end."""
    work = asyncio.gather(*(scene.converse() for _ in range(6)))
    await scene.heard(12, work)
    proxy, server = scene.ground.proxies[0], scene.fleet.servers[0]
    async with proxy.having(Trouble.BLACKHOLE):
        server.process.terminate()
        code = await asyncio.to_thread(server.process.wait, 2 + GRACE_SECONDS + 3)
    assert code == 0, server.log.read_text()[-3000:]
    assert "worker_killed" not in server.log.read_text()
    await asyncio.to_thread(scene.fleet.restart, 0)
    scene.still = True
    await work
    assert await checked(scene.driver, scene.witness, scene.threads, scene.ground.database.url) == []

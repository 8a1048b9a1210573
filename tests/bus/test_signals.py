"""Signals over a connection that dies without a word: it is replaced, and what waited to be sent goes out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from app.base.ids import new_id
from app.bus.signals import Signal, Signals
from app.db.engine import Database
from tests.faults.proxy import Proxy, Trouble

pytestmark = pytest.mark.timeout(90)


class Ear:
    """The signals of one process, and what it is sent."""

    def __init__(self, url: str, direct: str = "") -> None:
        self.database = Database(url, direct=direct, requests=1, engine=1)
        self.signals = Signals(self.database)
        self.got: asyncio.Queue[Signal] = asyncio.Queue()
        self.signals.listen(self.got.put_nowait)

    async def next(self) -> Signal:
        return await asyncio.wait_for(self.got.get(), 40)


@contextlib.asynccontextmanager
async def listening(url: str, direct: str = "") -> AsyncIterator[Ear]:
    ear = Ear(url, direct)
    ear.signals.start()
    try:
        assert (await ear.next()).is_empty  # it is connected
        yield ear
    finally:
        await ear.signals.aclose()
        await ear.database.aclose()


async def test_a_connection_that_is_dead_without_knowing_it_is_replaced(fresh_database_url: str, proxy: Proxy) -> None:
    ears = listening(fresh_database_url, proxy.url), listening(fresh_database_url)
    async with ears[0] as ear, ears[1] as other, proxy.having(Trouble.HALF_OPEN):
        assert (await ear.next()).is_empty  # connected again, by itself
        other.signals.tell("news", [thread := new_id()])
        while thread not in (await ear.next()).news:
            pass


async def test_a_signal_that_a_dead_connection_swallowed_goes_out_by_the_next(
    fresh_database_url: str, proxy: Proxy
) -> None:
    ears = listening(fresh_database_url, proxy.url), listening(fresh_database_url)
    async with ears[0] as ear, ears[1] as other, proxy.having(Trouble.HALF_OPEN):
        ear.signals.tell("news", [thread := new_id()])
        while thread not in (await other.next()).news:
            pass


async def test_an_echo_is_no_signal_to_anyone(fresh_database_url: str) -> None:
    async with listening(fresh_database_url) as ear, listening(fresh_database_url) as other:
        for _ in range(2):  # as many echoes as that takes
            echoes = other.signals._echoes
            async with asyncio.timeout(30):
                while other.signals._echoes == echoes:  # noqa: ASYNC110  an echo is told to nobody
                    await asyncio.sleep(0.05)
        assert ear.got.empty()

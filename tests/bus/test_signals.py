"""Signals over a connection that dies silently: it is replaced, and pending signals are sent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from app.base.ids import new_id
from app.engine.streams.signals import Signal, Signals
from app.infra.db.engine import Database
from tests.faults.proxy import Proxy, Trouble

pytestmark = pytest.mark.timeout(90)


class Ear:
    """The signals of one process, and those that it receives."""

    def __init__(self, url: str, direct: str = "") -> None:
        self.database = Database(url, direct=direct, requests=1, engine=1)
        self.signals = Signals(self.database)
        self.got: asyncio.Queue[Signal] = asyncio.Queue()
        self.signals.listen(self.got.put_nowait)

    async def next(self) -> Signal:
        async with asyncio.timeout(40):  # wait_for may swallow a cancellation
            return await self.got.get()


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


async def test_a_silently_dead_connection_is_replaced(fresh_database_url: str, proxy: Proxy) -> None:
    ears = listening(fresh_database_url, proxy.url), listening(fresh_database_url)
    async with ears[0] as ear, ears[1] as other, proxy.having(Trouble.HALF_OPEN):
        assert (await ear.next()).is_empty  # connected again, by itself
        other.signals.notify("news", [thread := new_id()])
        while thread not in (await ear.next()).news:
            pass


async def test_a_signal_lost_on_a_dead_connection_is_sent_on_the_next(fresh_database_url: str, proxy: Proxy) -> None:
    ears = listening(fresh_database_url, proxy.url), listening(fresh_database_url)
    async with ears[0] as ear, ears[1] as other, proxy.having(Trouble.HALF_OPEN):
        ear.signals.notify("news", [thread := new_id()])
        while thread not in (await other.next()).news:
            pass


async def echoed(ear: Ear, times: int) -> None:
    """Wait until ``ear`` has sent so many echoes, and all but the last have come back."""
    echoes = ear.signals._echoes + times
    async with asyncio.timeout(60):
        while ear.signals._echoes < echoes:  # noqa: ASYNC110  nothing else signals an echo
            await asyncio.sleep(0.05)


async def test_an_echo_reaches_only_its_sender(fresh_database_url: str) -> None:
    async with listening(fresh_database_url) as ear, listening(fresh_database_url) as other:
        async with ear.database.listening() as connection:
            received: list[object] = []
            await connection.add_listener("agent_service_echo", lambda *given: received.append(given))
            channels = {one.signals._echo_channel for one in (ear, other)}
            assert len(channels) == 2
            await connection.add_listener(min(channels), lambda _c, _p, channel, _: received.append(channel))
            await asyncio.gather(echoed(ear, 2), echoed(other, 2))
            await connection.fetchval("select 1")
            assert set(received) == {min(channels)}
        assert ear.got.empty()


async def test_incoming_signals_replace_echoes(fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.streams.signals.PROOF_SECONDS", 3600.0)
    async with listening(fresh_database_url) as busy, listening(fresh_database_url) as quiet:

        async def speak() -> None:
            while True:
                quiet.signals.queue()
                await busy.next()

        # the signals of one reach both, and neither needs an echo
        speaking = asyncio.ensure_future(speak())
        try:
            monkeypatch.setattr("app.engine.streams.signals.ECHO_SECONDS", 1.0)
            sends = []
            send = busy.signals._send

            async def counted(connection: object) -> None:
                await send(connection)
                sends.append(busy.signals._echoes)

            monkeypatch.setattr(busy.signals, "_send", counted)
            async with asyncio.timeout(60):
                while len(sends) < 4:  # noqa: ASYNC110  nothing signals it
                    await asyncio.sleep(0.05)
            assert set(sends[1:]) == {sends[1]}
        finally:
            speaking.cancel()
        await echoed(busy, 1)

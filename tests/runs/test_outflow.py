"""Large chunks of replays: few are in memory at once, and each key has its share."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.agents.port import RunContext, RunOutcome
from app.domain.event_id import START
from app.engine.entries import ClaimedRun
from app.engine.streams.send_budget import SendBudget
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, step

LARGE = 1_000_000


# The chunk of a step has twice that: its values, and the update that the log keeps of it.


async def hoard(_: RunContext) -> RunOutcome:
    return RunOutcome(step=step("x" * LARGE))


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Engine]:
    async with engine_on(database, SteeredAgent("steered", hoard), SteeredAgent("echo", echo)) as engine:
        yield engine


async def large_run(engine: Engine) -> ClaimedRun:
    run = await engine.begin("x", agent="steered", modes=["values"])
    await engine.result(run)
    return run


class Idle:
    """A client that reads until the first large chunk, and then stops."""

    def __init__(self, engine: Engine, run: ClaimedRun, holder: str) -> None:
        self.chunks = engine.streams.follow(TENANT, run.run_id, after=START, modes=None, holder=holder)
        self.has_large = asyncio.Event()
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for chunk in self.chunks:
            if len(chunk) > LARGE:
                self.has_large.set()
                await asyncio.Event().wait()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.chunks.aclose()


async def some_have(count: int, readers: list[Idle]) -> None:
    async with asyncio.timeout(20):
        while sum(reader.has_large.is_set() for reader in readers) < count:  # noqa: ASYNC110  of any of them
            await asyncio.sleep(0.01)


async def test_stalled_clients_hold_at_most_the_share_of_their_key(engine: Engine) -> None:
    run = await large_run(engine)
    engine.streams.send_budget = budget = SendBudget(max_bytes=10 * LARGE, max_bytes_each=3 * LARGE, max_loads=1)
    readers = [Idle(engine, run, "one") for _ in range(12)]
    await some_have(2, readers)
    other = Idle(engine, run, "other")
    await some_have(1, [other])  # has a share of its own
    small = await engine.begin("x", agent="echo", modes=["values"])
    await engine.result(small)
    chunks = engine.streams.follow(TENANT, small.run_id, after=START, modes=None, holder="one")
    async with asyncio.timeout(10):  # small chunks do not wait for those
        assert b"event: end" in b"".join([chunk async for chunk in chunks])
    async with asyncio.timeout(10):
        while budget.waiting < 10:  # noqa: ASYNC110  waiters are not signalled
            await asyncio.sleep(0.01)
    assert sum(reader.has_large.is_set() for reader in readers) == 2
    assert budget.bytes < 7 * LARGE
    for reader in [one for one in readers if one.has_large.is_set()]:
        await reader.leave()
    await some_have(4, readers)  # the next two are admitted
    for reader in (*readers, other):
        await reader.leave()
    assert (budget.bytes, budget.waiting) == (0, 0)
    assert budget.peak < 7 * LARGE


async def test_the_process_bounds_all_keys_together(engine: Engine) -> None:
    run = await large_run(engine)
    engine.streams.send_budget = budget = SendBudget(max_bytes=5 * LARGE, max_bytes_each=5 * LARGE, max_loads=1)
    readers = [Idle(engine, run, f"key {number}") for number in range(8)]
    await some_have(3, readers)
    async with asyncio.timeout(10):
        while budget.waiting < 5:  # noqa: ASYNC110  waiters are not signalled
            await asyncio.sleep(0.01)
    assert sum(reader.has_large.is_set() for reader in readers) == 3
    for reader in readers:
        await reader.leave()
    assert budget.bytes == 0

"""Large runs wait for memory, and large values reach all subscribers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.agents.port import RunContext, RunOutcome
from app.engine.entries import LARGE_REQUEST
from app.engine.queue.memory_gate import LargeRuns
from app.engine.streams.feed import MAX_BYTES
from app.engine.streams.send_budget import SendBudget
from app.infra.db.engine import Database
from tests.runs.engine import TENANT, Engine, SteeredAgent, echo, engine_on, step

LARGE = "x" * LARGE_REQUEST


@pytest.fixture
def open_gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def engine(
    database: Database, open_gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    async def held(_: RunContext) -> RunOutcome:
        await open_gate.wait()
        return RunOutcome(step=step("done"))

    size = 2 * LARGE_REQUEST
    monkeypatch.setattr("app.engine.supervisor.LargeRuns", lambda: LargeRuns(size, size))
    agents = SteeredAgent("steered", held), SteeredAgent("echo", echo)
    async with engine_on(database, *agents) as engine:
        yield engine


async def test_a_large_run_waits_for_memory_without_holding_its_request(
    engine: Engine, open_gate: asyncio.Event
) -> None:
    first, second = [await engine.begin(LARGE, agent="steered") for _ in range(2)]
    live = engine.supervisor.live(second.run_id)
    assert live is not None
    assert live.claimed.request == b""
    small = await engine.begin("small")
    assert (await engine.result(small))["messages"][-1]["content"] == "echo: small"
    assert live.waiting is not None
    open_gate.set()
    for run in (first, second):
        values = await engine.result(run)
        assert [len(message["content"]) for message in values["messages"]] == [len(LARGE), len("done")]


async def test_a_waiting_large_run_can_be_cancelled(engine: Engine, open_gate: asyncio.Event) -> None:
    first, second = [await engine.begin(LARGE, agent="steered") for _ in range(2)]
    await asyncio.sleep(0)
    await engine.supervisor.cancel(TENANT, [second.run_id], "interrupt")
    async with asyncio.timeout(5):
        assert b'"status":"interrupted"' in await engine.stream(second)
    open_gate.set()
    await engine.result(first)


async def test_large_values_are_the_same_in_a_live_stream_and_in_a_replay(engine: Engine) -> None:
    text = "y" * (MAX_BYTES + 1)
    run = await engine.begin(text, modes=["values", "updates"])
    live = await engine.stream(run)
    assert live == await engine.stream(run)
    assert live.count(b"event: values") == 2
    assert live.count(text.encode()) == 1 + 1 + 2  # the input; the update; the input and its echo


async def test_a_large_result_waits_for_room_in_the_share_of_its_key(engine: Engine) -> None:
    run = await engine.begin("z" * 200_000)
    await engine.result(run)
    engine.streams.send_budget = SendBudget(max_bytes=1_000_000, max_bytes_each=300_000, max_loads=1)
    first = await engine.streams.outcome(TENANT, run.thread_id, run.run_id, "one")
    waiting = asyncio.ensure_future(engine.streams.outcome(TENANT, run.thread_id, run.run_id, "one"))
    other = await engine.streams.outcome(TENANT, run.thread_id, run.run_id, "other")
    other.release()
    assert not waiting.done()
    first.release()
    async with asyncio.timeout(5):
        second = await waiting
    assert b"".join(second.pieces) == b"".join(first.pieces)
    second.release()
    assert engine.streams.send_budget.bytes == 0

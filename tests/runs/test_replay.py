"""Replays equal live streams."""

import asyncio

import msgspec

from app.agents.port import RunContext, RunOutcome, Step
from app.domain.event_id import EventId
from app.domain.events import Custom
from app.engine.streams.frames import MODES
from app.infra.db.engine import Database
from tests.runs.engine import SteeredAgent, engine_on, said, step


async def test_steps_hidden_by_the_modes_cost_a_replay_nothing(database: Database) -> None:
    async def unseen_steps(context: RunContext) -> RunOutcome:
        for text in ("one", "two"):
            await context.commit(step(text))  # the first ends the node's task, the second belongs to none
        context.emit(Custom(data=msgspec.Raw(b'"here"')))
        await context.commit(step("three"))
        return RunOutcome()

    async with engine_on(database, SteeredAgent("echo", unseen_steps)) as engine:
        run = await engine.begin("x", modes=["tasks", "custom"])
        live = await engine.stream(run)
    assert b'"here"' in live
    async with engine_on(database, SteeredAgent("echo", unseen_steps)) as another:
        assert await another.stream(run) == live


async def test_a_late_subscriber_gets_the_values_of_each_step(database: Database) -> None:
    """Frames of values are encoded when they are read, when the state may have changed."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def changing(context: RunContext) -> RunOutcome:
        draft = said("draft")
        await context.commit(Step(node="agent", update={"messages": [draft]}, next=("agent",)))
        await context.commit(Step(node="agent", update={"list": [1, 2], "topic": "one"}, next=("agent",)))
        final = msgspec.structs.replace(draft, content="final")
        await context.commit(Step(node="agent", update={"messages": [final, said("more")], "list": [2]}, next=()))
        await context.commit(Step(node="agent", update={"topic": "two", "list": [2, 3]}, next=()))
        reached.set()
        await go_on.wait()
        return RunOutcome(step=step("done"))

    async with engine_on(database, SteeredAgent("steered", changing)) as engine:
        run = await engine.begin("x", agent="steered", modes=list(MODES))
        await reached.wait()
        reader = asyncio.ensure_future(engine.stream(run))
        await asyncio.sleep(0)
        go_on.set()
        live = await reader
    ids = [line.partition(b": ")[2].decode() for line in live.split(b"\r\n") if line.startswith(b"id: ")]
    async with engine_on(database, SteeredAgent("steered", changing)) as another:
        assert await another.stream(run) == live
        for place in ids[:-1]:
            epoch, seq = map(int, place.split("-"))
            assert live.endswith(rest := await another.stream(run, after=EventId(epoch, seq)))
            assert rest.count(b"\r\nid: ") == len(ids) - seq

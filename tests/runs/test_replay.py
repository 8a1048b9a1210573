"""What a reader gets later is what readers got at once."""

import msgspec

from app.agents.port import Outcome, RunContext
from app.db.engine import Database
from app.domain.events import Custom
from tests.runs.engine import SteeredAgent, engine_on, step


async def test_steps_that_no_mode_shows_cost_a_replay_nothing(database: Database) -> None:
    async def unseen_steps(context: RunContext) -> Outcome:
        for text in ("one", "two"):
            await context.commit(step(text))  # the first ends the node's task, the second belongs to none
        context.emit(Custom(data=msgspec.Raw(b'"here"')))
        await context.commit(step("three"))
        return Outcome()

    async with engine_on(database, SteeredAgent("echo", unseen_steps)) as engine:
        run = await engine.begin("x", modes=["tasks", "custom"])
        live = await engine.stream(run)
    assert b'"here"' in live
    async with engine_on(database, SteeredAgent("echo", unseen_steps)) as another:
        assert await another.stream(run) == live

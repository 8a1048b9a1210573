"""Writes left in progress by a broken connection may arrive after their retry and after later writes."""

import asyncio
from typing import Any

import pytest

from app.agents.port import RunContext, RunOutcome
from app.base.errors import Unavailable
from app.engine.entries import JournalEntry
from app.engine.execution import journal
from app.infra.db.engine import Database
from tests.runs.engine import SteeredAgent, echo, engine_on, fetch, step

STATE = """
select head, last_number, (select count(*) from steps) as steps, (select count(*) from events) as events from threads
"""


async def test_a_repeated_late_step_moves_no_head_back(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[JournalEntry] = []
    done, go_on = asyncio.Event(), asyncio.Event()

    async def three_steps(context: RunContext) -> RunOutcome:
        await context.commit(step("one"))
        await context.commit(step("two"))
        done.set()
        await go_on.wait()
        return RunOutcome(step=step("three"))

    async with engine_on(database, SteeredAgent("steered", three_steps)) as engine:
        write = engine.parts.journal.write

        async def noting(entry: JournalEntry) -> int:
            written.append(entry)
            return await write(entry)

        monkeypatch.setattr(engine.parts.journal, "write", noting)
        run = await engine.begin("x", agent="steered")
        await asyncio.wait_for(done.wait(), 10)
        (before,) = await fetch(database, STATE)
        assert before["steps"] == 2
        for entry in written[:-1]:
            async with database.engine_connection() as connection:
                assert await journal._commit(connection, [entry]) != [None], "its owner is still the same"
            assert await fetch(database, STATE) == [before]
        go_on.set()
        result: Any = await engine.result(run)
    assert [message["content"] for message in result["messages"]] == ["x", "one", "two", "three"]


async def test_an_end_with_a_lost_answer_is_not_mistaken_for_another_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_on(database, SteeredAgent("echo", echo)) as engine:
        groups = engine.parts.journal._groups
        submit = groups.submit
        tries = 0

        async def lost(entry: JournalEntry) -> int | None:
            nonlocal tries
            if entry.end is not None and not tries:
                tries += 1
                await fetch(database, "update threads set live_run = null, status = 'idle'")
                await fetch(
                    database,
                    "update runs set status = 'interrupted', reason = 'cancelled', owner = null, lease_until = null, "
                    "ended_at = now()",
                )
                raise Unavailable("The answer was lost.")
            return await submit(entry)

        monkeypatch.setattr(groups, "submit", lost)
        whole = await engine.stream(await engine.begin("x"))
    assert tries == 1
    assert b'"status":"interrupted"' in whole
    assert b"success" not in whole

"""Function agents under the real engine: resumed by another process, streamed to clients, journal removed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from app.agents.function import Context
from app.agents.functions.step_journal import JOURNAL
from app.engine.checkpoints.codec import unpack_head
from app.infra.db.engine import Database
from tests.agents.functions import agent
from tests.runs.engine import SteeredAgent, add_assistants, engine_on, fetch


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    """The application's own pools on a database of this test alone."""
    database = Database(fresh_database_url, requests=4, engine=14)
    await add_assistants(database, "test")
    yield database
    await database.aclose()


async def test_another_process_resumes_where_one_was_stopped(database: Database) -> None:
    reached = asyncio.Event()
    gate = asyncio.Event()
    done: list[str] = []

    async def wait() -> str:
        done.append("wait")
        reached.set()
        await gate.wait()
        return "waited"

    async def run(context: Context) -> str:
        context.emit("begun")
        context.state["phase"] = "first"
        await context.step("first", done.append, "first")
        said = await context.model.text()
        context.state["phase"] = await context.step("wait", wait)
        return said

    tested: Any = cast("SteeredAgent", agent(run, says=("Hello.", "Never.")))
    modes = ["values", "updates", "messages-tuple", "custom"]
    async with engine_on(database, tested) as first:
        begun = await first.begin("go", agent="test", modes=modes)
        await reached.wait()
    gate.set()
    async with engine_on(database, tested, sweeping=True) as second:
        values = await second.result(begun)
        stream = (await second.stream(begun)).decode()
    assert [message["content"] for message in values["messages"]] == ["go", "Hello."]
    assert values["phase"] == "waited"
    assert done == ["first", "wait", "wait"]
    assert stream.count("event: custom") == 1
    assert "__" not in stream
    assert '{"first":{"phase":"first"}}' in stream
    steps = await fetch(database, "select node, epoch from steps order by step")
    assert [(step["node"], step["epoch"]) for step in steps] == [("first", 1), ("run", 1), ("wait", 2), ("run", 2)]
    heads = await fetch(database, "select head, next from checkpoints order by step")
    kept = [JOURNAL in unpack_head(row["head"]).lists for row in heads]
    assert kept == [True, True, True, True, False]
    assert [row["next"] for row in heads] == [["run"]] * 4 + [[]]


async def test_after_an_error_a_run_without_input_resumes(database: Database) -> None:
    tries: list[str] = []

    async def run(context: Context) -> str:
        await context.step("first", tries.append, "first")
        tries.append("then")
        if tries.count("then") == 1:
            raise LookupError("not there yet")
        return "there"

    tested: Any = cast("SteeredAgent", agent(run))
    async with engine_on(database, tested) as engine:
        failed = await engine.begin("go", agent="test")
        assert (await engine.result(failed))["__error__"] == {"error": "LookupError", "message": "not there yet"}
        again = await engine.begin(agent="test", thread=failed.thread_id)
        values = await engine.result(again)
    assert [message["content"] for message in values["messages"]] == ["go", "there"]
    assert tries == ["first", "then", "then"]

"""An agent may raise anything, and a thread's stored state may be damaged; the run ends all the same."""

import msgspec
import pytest

from app.agents.port import Interrupt, RunContext, RunOutcome
from app.base.errors import TooLarge
from app.engine.structs import RunRequest
from app.infra.db.engine import Database
from tests.runs.engine import SteeredAgent, echo, engine_on, fetch, step


@pytest.mark.parametrize("words", ["zero \x00 byte", "half \ud800 pair", ""])
async def test_an_error_with_unstorable_text_still_ends_the_run(database: Database, words: str) -> None:
    async def fail(_: RunContext) -> RunOutcome:
        raise ValueError(words)

    async with engine_on(database, SteeredAgent("steered", fail)) as engine:
        run = await engine.begin("x", agent="steered")
        error = (await engine.result(run))["__error__"]
    assert error["error"] == "ValueError"
    assert error["message"]
    (row,) = await fetch(database, "select status from runs")
    assert row["status"] == "error"


@pytest.mark.parametrize("words", ["zero \x00 byte", "half \ud800 pair"])
async def test_a_question_that_cannot_be_stored_ends_the_run_with_a_sentence(database: Database, words: str) -> None:
    async def ask(_: RunContext) -> RunOutcome:
        return RunOutcome(interrupts=(Interrupt("a" * 32, {"text": words}),))

    async with engine_on(database, SteeredAgent("steered", ask)) as engine:
        run = await engine.begin("x", agent="steered")
        error = (await engine.result(run))["__error__"]
    assert error["error"] == "AgentError"
    assert error["message"].startswith("A question of this run has ")
    assert error["message"].endswith("Ask without it.")


@pytest.mark.parametrize(
    "damage",
    [
        "update checkpoint_items set body = '\\x28b52ffd00'",
        "delete from checkpoint_items",
        "update checkpoints set head = 'not JSON'",
        "delete from checkpoints",
    ],
)
@pytest.mark.parametrize("forks", [False, True])
async def test_a_run_whose_thread_cannot_be_loaded_ends_at_once(database: Database, damage: str, forks: bool) -> None:
    async with engine_on(database, SteeredAgent("echo", echo)) as engine:
        first = await engine.begin("one")
        await engine.result(first)
    (thread,) = await fetch(database, "select head from threads")
    request = RunRequest(input=["two"], checkpoint_id=thread["head"] if forks else None, webhook="http://x.example/")
    await fetch(database, damage)
    async with engine_on(database, SteeredAgent("echo", echo)) as other:  # whose cache is empty
        run = await other.begin(thread=first.thread_id, request=msgspec.json.encode(request))
        error = (await other.result(run))["__error__"]
        assert str(thread["head"]) in error["message"]
        assert error["error"] == ("NotFound" if damage == "delete from checkpoints" else "DamagedCheckpoint")
        again = await other.begin(thread=first.thread_id, request=msgspec.json.encode(request))
        assert (await other.result(again))["__error__"] == error
    (row,) = await fetch(
        database,
        "select r.status, reason, attempts, t.status as thread, live_run, head, last_number from runs r, threads t"
        " where run_id = $1",
        run.run_id,
    )
    assert row == {
        "status": "error",
        "reason": "failed",
        "attempts": 1,
        "thread": "error",
        "live_run": None,
        "head": thread["head"],
        "last_number": 2,
    }


async def test_a_run_that_makes_its_threads_state_too_large_fails_and_leaves_the_last_checkpoint(
    database: Database,
) -> None:
    async def talk(context: RunContext) -> RunOutcome:
        for number in range(20):
            try:
                await context.commit(step(f"{number} " + "x" * 10_000, following=("agent",)))
            except TooLarge:
                break
        await context.commit(step("small", following=("agent",)))  # as code that ignores the error
        raise AssertionError

    async with engine_on(
        database, SteeredAgent("steered", talk), SteeredAgent("echo", echo), state_bytes=100_000
    ) as engine:
        run = await engine.begin("x", agent="steered")
        error = (await engine.result(run))["__error__"]
        assert error["error"] == "TooLarge"
        assert "AGENT_STATE_BYTES" in error["message"]
        counts = (
            "select (select count(*) from checkpoints) as checkpoints, (select count(*) from checkpoint_items) as items"
        )
        assert await fetch(database, counts) == [{"checkpoints": 10, "items": 10}]  # the input and nine steps
        again = await engine.begin("y" * 1000, thread=run.thread_id)  # not from what was too large
        assert len((await engine.result(again))["messages"]) == 12
        whole = await engine.begin("y" * 90_000, thread=run.thread_id)
        assert (await engine.result(whole))["__error__"]["error"] == "TooLarge"
    (row,) = await fetch(database, "select head, status from threads")
    (checkpoint,) = await fetch(database, "select run_id from checkpoints where checkpoint_id = $1", row["head"])
    assert (row["status"], checkpoint["run_id"]) == ("error", again.run_id)

"""An agent may raise anything; its run ends all the same."""

import pytest

from app.agents.port import Interrupt, RunContext, RunOutcome
from app.infra.db.engine import Database
from tests.runs.engine import SteeredAgent, engine_on, fetch


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

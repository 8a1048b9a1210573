"""Author-defined steps of function agents: recorded, named, typed, nested and limited; failures too."""

from dataclasses import dataclass
from typing import Any

import pytest

from app.agents.function import Context, ModelError, StepFailed, step
from app.agents.port import Step
from app.agents.testing import FakeRunContext
from app.base.errors import AgentServiceError, JournalFull, LeaseLost, ModelUnavailable
from app.base.ids import new_id
from tests.agents.functions import Crash, Dying, agent, crashed, texts
from tests.llm.scripted_model import ScriptedModel


async def test_caught_failures_are_replayed() -> None:
    tries: list[str] = []

    async def pay() -> None:
        tries.append("pay")
        raise ConnectionError("no line")

    async def run(context: Context) -> str:
        said = ""
        try:
            await context.step("pay", pay)
        except StepFailed as failed:
            said = f"{failed.kind}: {failed.words}"
        try:
            await context.model.text()
        except ModelError as error:
            said += f"; {type(error).__name__}: {error}"
        await context.step("note", dict)
        await context.step("last", dict)
        return said

    model = ScriptedModel([[ModelUnavailable("down")], "up again"])
    tested = agent(run, model=model)
    first = Dying()
    first.max_steps = 1
    with pytest.raises(Crash):
        await first.play(tested, "go")
    second = crashed(first)
    await second.play(tested)
    assert texts(second)[-1] == "ConnectionError: no line; ModelUnavailable: down"
    assert (tries, len(model.requests)) == (["pay"], 1)


async def test_a_failed_run_resumes_where_it_failed() -> None:
    tries: list[str] = []

    async def flaky() -> str:
        tries.append("flaky")
        if len(tries) == 1:
            raise ConnectionError("no line")
        return "ok"

    async def run(context: Context) -> str:
        await context.step("first", dict)
        return await context.step("flaky", flaky)

    tested = agent(run)
    play = FakeRunContext()
    with pytest.raises(ConnectionError):
        await play.play(tested, "go")
    again = crashed(play)
    again.run_id = new_id()
    await again.play(tested)
    assert texts(again) == ["go", "ok"]
    assert [step.node for step in again.steps] == ["flaky", "run"]


@dataclass
class Receipt:
    number: int


@step
async def charge(amount: int) -> Receipt:
    return Receipt(amount)


async def test_a_declared_step_is_a_node_and_returns_its_type() -> None:
    async def run(context: Context) -> dict[str, Any]:
        receipt = await charge(5)
        assert isinstance(receipt, Receipt)
        await context.step("last", dict)
        return {"number": receipt.number}

    tested = agent(run)
    assert tested.nodes == ("run", "charge")
    assert {"source": "run", "target": "charge", "conditional": True} in tested.graph()["edges"]
    first = Dying()
    first.max_steps = 1
    with pytest.raises(Crash):
        await first.play(tested, "go")
    second = crashed(first)
    await second.play(tested)
    assert second.state.get("number") == 5
    assert await charge(6) == Receipt(6)  # outside of a run it is an ordinary function


async def test_nested_steps_are_recorded_until_the_outer_step_completes() -> None:
    done: list[str] = []

    async def outer(context: Context) -> str:
        await context.step("inner", lambda: done.append("inner"))
        await context.step("second", lambda: done.append("second"))
        return "outer"

    async def run(context: Context) -> str:
        said = await context.step("outer", outer, context)
        await context.step("last", dict)
        return said

    tested = agent(run)
    for max_steps in (1, 3):
        done.clear()
        first = Dying()
        first.max_steps = max_steps
        with pytest.raises(Crash):
            await first.play(tested, "go")
        second = crashed(first)
        await second.play(tested)
        assert texts(second) == ["go", "outer"]
        assert done == (["inner", "second", "second"] if max_steps == 1 else ["inner", "second"])


async def test_results_are_bounded() -> None:
    async def run(context: Context) -> None:
        await context.step("big", lambda: "x" * 2_000_000)

    with pytest.raises(JournalFull, match="'big' returned 2000002 bytes"):
        await FakeRunContext().play(agent(run), "go")

    async def many(context: Context) -> None:
        for _ in range(20):
            await context.step("big", lambda: "x" * 900_000)

    with pytest.raises(JournalFull, match="together"):
        await FakeRunContext().play(agent(many), "go")


async def test_a_function_cannot_swallow_an_error_that_ends_the_run() -> None:
    class Lost(FakeRunContext):
        async def commit(self, step: Step) -> None:
            raise LeaseLost("gone")

    async def run(context: Context) -> str:
        try:
            await context.step("look", dict)
        except AgentServiceError:
            return "I go on"
        return "never"

    with pytest.raises(LeaseLost):
        await Lost().play(agent(run), "go")

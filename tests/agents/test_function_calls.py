"""Function agents: input, return value, limits and end."""

import asyncio
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from app.agents.function import AIMessage, Context
from app.agents.port import RunConfig
from app.agents.testing import FakeRunContext
from app.base.errors import AgentError, Invalid, StepLimit, TokenLimit
from app.base.ids import new_id
from app.domain.state import State
from tests.agents.functions import agent, texts


class Order(msgspec.Struct):
    number: str
    amount: int


class Model(pydantic.BaseModel):
    number: str
    amount: int


@dataclass
class Record:
    number: str
    amount: int


class Typed(TypedDict):
    number: str
    amount: int


@pytest.mark.parametrize("kind", [Order, Model, Record, Typed])
async def test_the_function_receives_a_typed_input(kind: Any) -> None:
    async def run(context: Context, order: kind) -> Any:
        assert context.messages == []
        return order

    run.__annotations__ |= {"context": Context, "order": kind}
    tested = agent(run)
    play = FakeRunContext()
    await play.play(tested, {"number": "7", "amount": 3})
    assert (play.state.get("number"), play.state.get("amount")) == ("7", 3)
    with pytest.raises(Invalid) as caught:
        tested.read_input({"number": "7", "amount": "x"}, new_id())
    assert caught.value.errors[0][0] == "/input/amount"
    with pytest.raises(Invalid) as caught:
        tested.read_input({"number": "7"}, new_id())
    assert caught.value.errors[0][0] == "/input/amount"
    schema = tested.schemas()["input_schema"]
    assert sorted(schema["required"]) == ["amount", "number"]
    assert schema["properties"]["amount"]["type"] == "integer"


async def test_messages_of_a_typed_input_join_the_conversation() -> None:
    class Ask(TypedDict):
        messages: list[Any]
        customer: str

    async def run(context: Context, ask: Ask) -> str:
        return f"{ask['customer']}: {context.messages[-1].content}"

    run.__annotations__ |= {"ask": Ask}
    play = FakeRunContext()
    await play.play(agent(run), {"messages": [{"role": "user", "content": "hi"}], "customer": "Ann"})
    assert texts(play) == ["hi", "Ann: hi"]


async def test_only_an_input_with_a_default_is_optional() -> None:
    async def optional(context: Context, n: int = 5) -> dict[str, int]:
        return {"n": n}

    async def needed(context: Context, n: int) -> None:
        pass

    play = FakeRunContext()
    play.next = ("optional",)
    await play.play(agent(optional))
    assert play.state.get("n") == 5
    play = FakeRunContext()
    play.next = ("needed",)
    with pytest.raises(AgentError, match="takes an input and the run has none"):
        await play.play(agent(needed))


@pytest.mark.parametrize(
    "value, words",
    [
        (7, "returned a int"),
        (object(), "not valid JSON"),
        ({"__journal": []}, "reserved"),
        ({"messages": [{}]}, "needs a role"),
    ],
)
async def test_an_unsupported_return_value_is_rejected(value: Any, words: str) -> None:
    async def run(context: Context) -> Any:
        return value

    with pytest.raises(AgentError, match=words):
        await FakeRunContext().play(agent(run), "go")


async def test_a_returned_object_may_contain_messages_and_values() -> None:
    async def run(context: Context) -> dict[str, Any]:
        first = context.messages[0]
        return {"messages": [{"type": "remove", "id": first.id}, AIMessage(content="clean")], "done": True}

    play = FakeRunContext()
    await play.play(agent(run), "go")
    assert texts(play) == ["clean"]
    assert play.state.get("done") is True


async def test_steps_and_tokens_are_bounded() -> None:
    async def run(context: Context) -> None:
        for number in range(9):
            await context.model.ask(f"{number} words")

    says = ("one two three",) * 9
    with pytest.raises(StepLimit, match=r"took 3 steps.*limits\.steps"):
        await FakeRunContext().play(agent(run, says=says, steps=3), "go")
    with pytest.raises(TokenLimit, match=r"limits\.tokens"):
        await FakeRunContext().play(agent(run, says=says, tokens=10), "go")
    with pytest.raises(StepLimit, match="recursion_limit"):
        await FakeRunContext(config=RunConfig(recursion_limit=2)).play(agent(run, says=says), "go")


async def test_a_cancelled_run_ends_with_all_its_branches() -> None:
    started = asyncio.Event()
    ended: list[str] = []

    async def branch(context: Context) -> None:
        try:
            await context.step("wait", asyncio.Event().wait)
        finally:
            ended.append("branch")

    async def run(context: Context) -> int:
        branches = [asyncio.create_task(branch(context)) for _ in range(2)]
        await context.step("begin", dict)
        started.set()
        await asyncio.Event().wait()
        return len(branches)

    task = asyncio.create_task(FakeRunContext().play(agent(run), "go"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["branch", "branch"]


async def test_an_exception_of_the_function_propagates_unchanged() -> None:
    class TooDear(Exception):
        pass

    async def pay() -> None:
        raise TooDear("no")

    async def run(context: Context) -> None:
        await context.step("pay", pay)

    with pytest.raises(TooDear):
        await FakeRunContext().play(agent(run), "go")


async def test_a_task_that_outlives_the_run_has_no_effect() -> None:
    kept: list[Context] = []

    async def run(context: Context) -> None:
        kept.append(context)

    play = FakeRunContext()
    await play.play(agent(run), "go")
    kept[0].emit("late")
    assert play.events == []
    with pytest.raises(AgentError, match="has ended"):
        await kept[0].step("late", dict)


async def test_a_finished_thread_does_not_restart_without_input() -> None:
    async def run(context: Context) -> str:
        return "again"

    play = FakeRunContext(State())
    assert (await play.play(agent(run))).step is None

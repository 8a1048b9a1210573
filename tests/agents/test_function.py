"""Function agents: the API of their context, their return values and their limits."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from app.agents.function import AIMessage, Context, HumanMessage, ModelError, ToolCall, ToolFailed, ToolMessage
from app.agents.testing import FakeRunContext
from app.base.errors import ModelUnavailable
from app.base.ids import new_id
from app.domain.events import Custom, MessageAdded, MessageDelta
from app.tools import ToolContext, ToolResult, tool
from tests.agents.functions import agent, texts
from tests.llm.scripted_model import ScriptedModel


async def test_a_returned_text_becomes_the_agents_message() -> None:
    async def run(context: Context) -> str:
        return f"Hello, {context.messages[-1].content}!"

    play = FakeRunContext()
    outcome = await play.play(agent(run), "Ann")
    assert texts(play) == ["Ann", "Hello, Ann!"]
    assert isinstance(play.messages()[-1], AIMessage)
    assert outcome.step is not None
    assert (outcome.step.node, outcome.step.next) == ("run", ())
    (added,) = [event for event in play.events if isinstance(event, MessageAdded)]
    assert b"Hello, Ann!" in bytes(added.message)


async def test_a_streamed_answer_and_its_returned_text_are_one_message() -> None:
    async def run(context: Context) -> str:
        return await context.model.text(instructions="Greet.")

    model = ScriptedModel([["Hel", "lo"]])
    play = FakeRunContext()
    await play.play(agent(run, model=model), "hi")
    deltas = [event for event in play.events if isinstance(event, MessageDelta)]
    assert [delta.text for delta in deltas] == ["Hel", "lo", ""]
    assert {delta.node for delta in deltas} == {"run"}
    assert play.messages()[-1].id == deltas[0].message_id
    assert play.messages()[-1].response_metadata["model_name"] == "test"
    assert not [event for event in play.events if isinstance(event, MessageAdded)]
    (request,) = model.requests
    assert request.instructions == "Greet."
    assert [message.content for message in request.messages] == ["hi"]
    assert play.steps[0].usage is not None


async def test_the_model_accepts_texts_messages_and_objects_with_the_agents_config() -> None:
    async def run(context: Context) -> None:
        await context.model.ask("one")
        await context.model.ask([("system", "two"), HumanMessage(content="three")], name="planner", max_tokens=7)
        await context.model.ask([{"role": "user", "content": "four"}], temperature=0.5)
        with pytest.raises(ValueError, match="message 0 is invalid: needs a role"):
            await context.model.ask([{"content": "five"}])

    model = ScriptedModel(["a", "b", "c"])
    play = FakeRunContext()
    await play.play(agent(run, model=model), "hi")
    assert [[m.content for m in request.messages] for request in model.requests] == [
        ["one"],
        ["two", "three"],
        ["four"],
    ]
    assert [request.instructions for request in model.requests] == ["Be kind."] * 3
    assert (model.requests[1].max_tokens, model.requests[2].temperature) == (7, 0.5)
    assert [step.node for step in play.steps] == ["run", "planner", "run", "run"]
    assert texts(play) == ["hi"]


async def test_a_failing_model_can_be_caught() -> None:
    async def run(context: Context) -> str:
        try:
            return await context.model.text()
        except ModelError as error:
            return f"sorry: {error}"

    play = FakeRunContext()
    await play.play(agent(run, says=([ModelUnavailable("down")],)), "hi")
    assert texts(play)[-1] == "sorry: down"


@tool(tool_class="read_only")
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def test_a_tool_called_by_name_returns_its_text_or_a_value() -> None:
    async def run(context: Context) -> dict[str, Any]:
        return {
            "text": await context.tools.call("add", a=1, b=2),
            "sum": await context.tools.call("add", int, a=3, b=4),
        }

    play = FakeRunContext()
    await play.play(agent(run, add), "go")
    assert (play.state.get("text"), play.state.get("sum")) == ("3", 7)
    assert play.intents == []  # read-only: no intents needed


@pytest.mark.parametrize(
    "name, args, words",
    [("add", {"a": "x", "b": 1}, "/a"), ("nope", {}, "The tools are: add"), ("add", {"a": 1}, '"b" is a required')],
)
async def test_an_invalid_tool_call_raises(name: str, args: dict[str, Any], words: str) -> None:
    async def run(context: Context) -> None:
        await context.tools.call(name, **args)

    with pytest.raises(ToolFailed, match=words):
        await FakeRunContext().play(agent(run, add), "go")


async def test_several_tools_run_at_the_same_time_and_answer_in_order() -> None:
    meet = asyncio.Barrier(2)

    async def search(context: ToolContext, query: str) -> str:
        """Search."""
        await meet.wait()
        return f"{query} {len(context.idempotency_key)}"

    async def run(context: Context) -> list[str]:
        answers = await context.tools.run([("search", {"query": "a"}), ("search", {"query": "b"})])
        assert all(isinstance(answer, ToolMessage) for answer in answers)
        context.state["found"] = [answer.content for answer in answers]
        return []

    play = FakeRunContext()
    async with asyncio.timeout(5):
        await play.play(agent(run, search), "go")
    assert play.state.get("found") == ["a 36", "b 36"]
    assert [(intent.tool, intent.args) for intent in play.intents] == [
        ("search", b'{"query":"a"}'),
        ("search", b'{"query":"b"}'),
    ]


async def test_calls_of_two_rounds_with_one_id_have_intents_of_their_own() -> None:
    """Models name the calls of each of their messages alike, and the database has one intent of an id for a run."""

    async def search(query: str) -> str:
        """Search."""
        return query

    async def run(context: Context) -> None:
        for query in ("a", "b"):
            await context.tools.run([ToolCall("search", {"query": query}, "call_0")])

    play = FakeRunContext()
    await play.play(agent(run, search), "go")
    first, second = play.intents
    assert first.call_id != second.call_id


async def test_a_loop_of_model_and_tools_can_be_written_out() -> None:
    async def run(context: Context) -> AIMessage:
        talk = context.messages
        answer = await context.model.ask(talk, tools=True)
        while answer.tool_calls:
            talk += [answer, *await context.tools.run(answer)]
            answer = await context.model.ask(talk, tools=["add"])
        return answer

    model = ScriptedModel([[ToolCall("add", {"a": 1, "b": 2}, "c1")], "It is 3."])
    play = FakeRunContext()
    await play.play(agent(run, add, model=model), "1+2?")
    assert texts(play) == ["1+2?", "It is 3."]
    assert [spec.name for spec in model.requests[0].tools] == ["add"]
    answered = model.requests[1].messages[-1]
    assert isinstance(answered, ToolMessage)
    assert (answered.tool_call_id, answered.content) == ("c1", "3")


async def test_values_are_typed_and_committed_with_the_next_step() -> None:
    @dataclass
    class Ticket:
        title: str
        votes: int = 0

    async def run(context: Context) -> None:
        assert context.state.get("ticket", Ticket) is None
        assert context.state.get("count", int, 3) == 3
        context.state["ticket"] = Ticket("bug")
        context.state.set("count", 4)
        await context.step("look", dict)
        ticket = context.state.get("ticket", Ticket)
        assert ticket == Ticket("bug")
        assert "count" in context.state
        assert context.state["count"] == 4
        with pytest.raises(ValueError, match="'count' does not match the requested type: Expected `str`"):
            context.state.get("count", str)
        for name in ("__journal", "messages", ""):
            with pytest.raises(ValueError, match=r"reserved|say"):
                context.state[name] = 1

    play = FakeRunContext()
    await play.play(agent(run), "go")
    assert play.steps[0].update["ticket"] == {"title": "bug", "votes": 0}
    assert play.steps[0].node == "look"
    assert "ticket" not in play.steps[1].update


async def test_memory_lasts_as_long_as_the_thread() -> None:
    async def run(context: Context) -> str:
        name = await context.memory.get("name", str, "stranger")
        await context.memory.set("name", context.messages[-1].content)
        return f"Hello, {name}."

    play = FakeRunContext()
    await play.play(agent(run), "Ann")
    play.run_id = new_id()
    await play.play(agent(run), "Bob")
    assert texts(play) == ["Ann", "Hello, stranger.", "Bob", "Hello, Ann."]
    assert play.state.get("memory") == {"name": "Bob"}


async def test_messages_wait_for_a_step_and_custom_events_are_sent_immediately() -> None:
    async def run(context: Context) -> str:
        context.emit({"progress": 1})
        context.say("Looking.")
        await context.step("look", dict)
        return "Done."

    play = FakeRunContext()
    await play.play(agent(run), "go")
    assert texts(play) == ["go", "Looking.", "Done."]
    custom = [bytes(event.data) for event in play.events if isinstance(event, Custom)]
    assert custom == [b'{"progress":1}']
    assert isinstance(play.events[0], Custom)
    assert len([event for event in play.events if isinstance(event, MessageAdded)]) == 2


async def test_a_tool_sees_the_values_that_the_function_has_set_and_may_change_them() -> None:
    @tool(tool_class="transactional")
    async def bump(context: ToolContext) -> ToolResult:
        """Bump."""
        return ToolResult(content="ok", update={"n": context.value("n") + 1})

    async def run(context: Context) -> None:
        context.state["n"] = 1
        await context.tools.call("bump")
        assert context.state["n"] == 2

    play = FakeRunContext()
    await play.play(agent(run, bump), "go")
    assert play.state.get("n") == 2

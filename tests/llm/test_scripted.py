"""Scripted models: the demonstration, the two for benchmarks, and the test double."""

import asyncio
import json
import time
from typing import Any

import pytest

from app.agents.tools.function_tool import FunctionTool
from app.agents.tools.registry import BUILTIN
from app.base.errors import ModelRejected, ModelTimeout
from app.domain.messages import AIMessage, HumanMessage, Message, ToolCall, ToolMessage, Usage
from app.providers.llm.demo import SCRIPT, expression_in
from app.providers.llm.port import Finished, ModelRequest, TextDelta, ToolSpec
from app.providers.llm.scripted import DemoModel, EchoModel, Stream100Model
from tests.llm.recording import ask, record_events
from tests.llm.scripted_model import ScriptedModel

TOOLS = [FunctionTool(tool).spec for tool in BUILTIN.values()]


async def calls_for(text: str, tools: list[ToolSpec] = TOOLS) -> list[tuple[str | None, Any]]:
    recording = await record_events(DemoModel(), ask(text, tools=tools))
    assert (recording.finished.reason == "tool_calls") is bool(recording.calls)
    return [(name, json.loads(args)) for _, name, args in recording.calls]


@pytest.mark.parametrize(
    "text, calls",
    [
        ("what time is it?", [("clock", {})]),
        ("Which DATE is today?", [("clock", {})]),
        ("what is 12*(3+4)?", [("calculator", {"expression": "12*(3+4)"})]),
        ("note buy milk", [("notes", {"action": "add", "text": "buy milk"})]),
        ("Remember that the key is under the mat.", [("notes", {"action": "add", "text": "the key is under the mat"})]),
        ("list notes", [("notes", {"action": "list"})]),
        ("please show me all my notes", [("notes", {"action": "list"})]),
        ("hello", []),
        ("I am 42", []),
    ],
)
async def test_the_demo_calls_the_requested_tool(text: str, calls: list[tuple[str, Any]]) -> None:
    assert await calls_for(text) == calls


async def test_the_demo_calls_several_tools_at_once() -> None:
    assert await calls_for("Note buy milk. What time is it and what is 2 + 3?") == [
        ("notes", {"action": "add", "text": "buy milk"}),
        ("calculator", {"expression": "2 + 3"}),
        ("clock", {}),
    ]


async def test_the_demo_calls_no_tool_that_it_is_not_offered() -> None:
    clock = [spec for spec in TOOLS if spec.name == "clock"]
    assert await calls_for("what is 2+3?", clock) == []
    assert await calls_for("what time is it and what is 2+3?", clock) == [("clock", {})]


ORDERS = ToolSpec(
    name="find_order",
    description="Find an order.",
    parameters={
        "type": "object",
        "properties": {"number": {"type": "integer"}, "shop": {"type": "string"}, "open": {"type": "boolean"}},
        "required": ["number"],
    },
)


@pytest.mark.parametrize(
    "text, arguments",
    [
        ("call find_order number=17", [{"number": 17}]),
        (
            "Please call find_order number=17 shop='7 North' open=true",
            [{"number": 17, "shop": "7 North", "open": True}],
        ),
        ("call find_order number=1 call find_order number=2", [{"number": 1}, {"number": 2}]),
        ("don't call find_order number=x", [{"number": "x"}]),
        ("call find_order", [{}]),
        ("find_order number=17", []),
        ("call other number=17", []),
    ],
)
async def test_the_demo_calls_any_offered_tool_by_name(text: str, arguments: list[dict[str, Any]]) -> None:
    assert await calls_for(text, [*TOOLS, ORDERS]) == [("find_order", given) for given in arguments]


async def test_the_demo_says_how_an_offered_tool_is_called() -> None:
    recording = await record_events(DemoModel(), ask("hello", tools=[ORDERS]))
    assert "“call find_order number=…” calls find_order" in recording.text


async def test_the_demo_identifies_itself_as_a_script_and_names_the_settings() -> None:
    recording = await record_events(DemoModel(), ask("hello", tools=TOOLS))
    assert recording.text.startswith(SCRIPT)
    assert "not a language model" in recording.text
    for words in ("OPENAI_API_KEY", "what time is it", "12*(3+4)", "list notes"):
        assert words in recording.text


async def test_the_demo_identifies_itself_with_calls_and_results() -> None:
    assert (await record_events(DemoModel(), ask("what time is it?", tools=TOOLS))).text.startswith(SCRIPT)
    conversation: list[Message] = [
        HumanMessage(content="what time is it and what is 1/0?"),
        AIMessage(content="", tool_calls=[ToolCall("clock", {}, "a"), ToolCall("calculator", {}, "b")]),
        ToolMessage(content="noon", tool_call_id="a"),
        ToolMessage(content="division by zero", tool_call_id="b", status="error"),
    ]
    recording = await record_events(DemoModel(), ModelRequest(messages=conversation, tools=TOOLS))
    assert recording.text == (
        f"{SCRIPT} The tool clock answered: noon The tool calculator answered: an error: division by zero"
    )
    assert recording.finished.reason == "stop"


async def test_the_demo_streams_words_and_says_the_same_every_time() -> None:
    one, two = [await record_events(DemoModel(), ask("what time is it?", tools=TOOLS)) for _ in range(2)]
    assert one.events == two.events
    assert [event.text for event in one.events if isinstance(event, TextDelta)][:3] == ["I ", "am ", "a "]


async def test_calls_of_later_turns_have_unique_ids() -> None:
    request = ask("what time is it?", tools=TOOLS)
    before = (await record_events(DemoModel(), request)).calls[0][0]
    assert isinstance(request.messages, list)
    request.messages.extend([AIMessage(content="noon"), HumanMessage(content="what time is it?")])
    assert (await record_events(DemoModel(), request)).calls[0][0] != before


@pytest.mark.parametrize(
    "text, expression",
    [
        ("what is 12*(3+4)?", "12*(3+4)"),
        ("(1+2)*3 please", "(1+2)*3"),
        ("compute 2**10 // 3", "2**10 // 3"),
        ("-3 + .5", "-3 + .5"),
        ("the sum (see 3+4) is", "3+4"),
        ("2 * (3", ""),
        ("no numbers", ""),
        ("room 12", ""),
        ("a-b", ""),
    ],
)
def test_arithmetic_is_found_in_words(text: str, expression: str) -> None:
    assert expression_in(text) == expression


@pytest.mark.parametrize("text", ["1+" * 5000, "(" * 5000, "- " * 5000 + "x", "1 " * 5000])
def test_hostile_arithmetic_takes_no_time(text: str) -> None:
    began = time.thread_time()
    expression_in(text)
    assert time.thread_time() - began < 1.0


async def test_echo_says_the_last_human_text_in_one_piece() -> None:
    recording = await record_events(EchoModel(), ask("hello there"))
    assert recording.events == [
        TextDelta("echo: hello there"),
        Finished(reason="stop", model="echo", vendor="scripted", usage=Usage(2, 3, 5)),
    ]


async def test_stream100_says_a_hundred_tokens() -> None:
    recording = await record_events(Stream100Model())
    assert [event.text for event in recording.events[:-1] if isinstance(event, TextDelta)] == [
        f"tok{n} " for n in range(100)
    ]
    assert recording.finished.usage == Usage(7, 100, 107)


async def test_the_double_plays_its_turns_and_records_requests() -> None:
    gate = asyncio.Event()
    model = ScriptedModel(["one", ["Hel", gate, "lo"], [ToolCall("clock", {}, "a")], ["par", ModelTimeout("late")]])
    assert (await record_events(model)).text == "one"
    task = asyncio.ensure_future(record_events(model))
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    assert (await task).text == "Hello"
    assert (await record_events(model)).calls == [("a", "clock", "{}")]
    broken = await record_events(model, ask("last"))
    assert (broken.text, type(broken.error)) == ("par", ModelTimeout)
    assert [len(request.messages) for request in model.requests] == [1, 1, 1, 1]
    assert type((await record_events(model)).error) is ModelRejected

"""The built-in agent: model calls, concurrent tools, answers; errors of tools are reported to the model."""

import asyncio
import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.agents.port import RunConfig
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.agent import RunLimits, ToolLoop, ToolLoopConfig
from app.agents.tool_loop.calls import Toolbox
from app.agents.tools.builtin.notes import notes
from app.agents.tools.function_tool import FunctionTool
from app.base.errors import ModelUnavailable, StepLimit, TokenLimit
from app.domain.events import Custom, MessageAdded, MessageDelta
from app.domain.messages import AIMessage, HumanMessage, ToolCall, ToolMessage, Usage
from app.infra.telemetry.logs import hide_raised
from app.providers.llm.port import Finished, Model, ModelEvent, ModelRequest, TextDelta, ToolCallDelta
from app.tools import ToolContext, tool
from tests.llm.scripted_model import ScriptedModel


def call(name: str, args: str = "{}", id_: str | None = "c1", index: int = 0) -> ToolCallDelta:
    return ToolCallDelta(index=index, id=id_, name=name, args=args)


class ScriptedTurns:
    """A model that plays turns, each a list of events or an error, and records its requests."""

    vendor = "test"
    name = "turns"

    def __init__(self, *turns: list[ModelEvent] | Exception, tokens: int = 0) -> None:
        self._turns = list(turns)
        self._tokens = tokens
        self.asked: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> Any:
        self.asked.append(request)
        turn = self._turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        for event in turn:
            yield event
        usage = Usage(total_tokens=self._tokens)
        yield Finished(reason="stop", model="turns", vendor="test", usage=usage)


def agent(model: Model, *functions: Any, **limits: Any) -> ToolLoop:
    tools = [FunctionTool(function) for function in functions]
    return ToolLoop("test", model, Toolbox(tools, lambda *_: None), ToolLoopConfig(limits=RunLimits(**limits)))


async def test_the_agent_streams_its_answer() -> None:
    run = FakeRunContext()
    outcome = await run.play(agent(ScriptedTurns([TextDelta("Hel"), TextDelta("lo")])), "hi")
    human, ai = run.messages()
    assert isinstance(human, HumanMessage)
    assert isinstance(ai, AIMessage)
    assert ai.content == "Hello"
    deltas = [event for event in run.events if isinstance(event, MessageDelta)]
    assert [d.text for d in deltas] == ["Hel", "lo", ""]
    assert deltas[-1].last
    assert {d.message_id for d in deltas} == {ai.id}
    assert outcome.step is not None
    assert outcome.step.next == ()


async def test_the_models_answer_is_committed_before_any_tool_starts() -> None:
    run = FakeRunContext()
    steps_when_called: list[int] = []

    def look() -> str:
        """Look."""
        steps_when_called.append(len(run.steps))
        return "seen"

    model = ScriptedTurns([call("look")], [TextDelta("done")])
    await run.play(agent(model, look), "go")
    assert steps_when_called == [1]
    assert [step.node for step in run.steps] == ["agent", "tools", "agent"]
    (intent,) = run.steps[0].intents
    assert (intent.tool, intent.tool_class, intent.args) == ("look", "unsafe", b"{}")
    assert any(isinstance(event, MessageAdded) for event in run.events)


async def test_tools_of_one_answer_run_at_the_same_time_and_answer_in_order() -> None:
    meet = asyncio.Barrier(2)

    async def first() -> str:
        """First."""
        await meet.wait()
        return "1"

    async def second() -> str:
        """Second."""
        await meet.wait()
        return "2"

    run = FakeRunContext()
    asks = [call("first", id_="a"), call("second", id_="b", index=1)]
    async with asyncio.timeout(5):
        await run.play(agent(ScriptedTurns(list(asks), [TextDelta("ok")]), first, second), "go")
    answers = [m for m in run.messages() if isinstance(m, ToolMessage)]
    assert [(m.tool_call_id, m.content) for m in answers] == [("a", "1"), ("b", "2")]


async def test_a_sync_tool_does_not_block_the_loop() -> None:
    go_on = threading.Event()

    def slow() -> str:
        """Slow."""
        assert go_on.wait(5)
        return "done"

    async def release() -> str:
        """Release."""
        go_on.set()
        return "released"

    run = FakeRunContext()
    asks = [call("slow", id_="a"), call("release", id_="b", index=1)]
    async with asyncio.timeout(5):
        await run.play(agent(ScriptedTurns(list(asks), [TextDelta("ok")]), slow, release), "go")
    assert [m.content for m in run.messages() if isinstance(m, ToolMessage)] == ["done", "released"]


@tool(timeout=0.05)
async def hangs() -> str:
    """Hang."""
    await asyncio.Event().wait()
    return "never"


def raises() -> str:
    """Raise."""
    raise LookupError("no such order")


def adds(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@pytest.mark.parametrize(
    "asked,words",
    [
        (call("hangs"), "longer than 0.05 s"),
        (call("raises"), "LookupError: no such order"),
        (call("missing"), "There is no tool 'missing'. The tools are: hangs, raises, adds."),
        (call("adds", "{}"), '"a" is a required property'),
        (call("adds", '{"a": "x"}'), "/a:"),
        (call("adds", '{"a": 1, "c": 2}'), "c"),
        (call("adds", '{"a": '), "not a JSON object"),
        (call("adds", "[1]"), "not a JSON object"),
    ],
)
async def test_errors_of_a_call_are_reported_to_the_model(asked: ToolCallDelta, words: str) -> None:
    run = FakeRunContext()
    model = ScriptedTurns([asked], [TextDelta("I see")])
    await run.play(agent(model, hangs, raises, adds), "go")
    (answer,) = [m for m in run.messages() if isinstance(m, ToolMessage)]
    assert answer.status == "error"
    assert words in str(answer.content)
    assert isinstance(model.asked[1].messages[-1], ToolMessage)


async def test_calls_without_unique_ids_get_new_ones() -> None:
    run = FakeRunContext()
    asks = [
        call("adds", '{"a":1}', id_=None),
        call("adds", '{"a":2}', id_="x", index=1),
        call("adds", '{"a":3}', "x", 2),
    ]
    await run.play(agent(ScriptedTurns(list(asks), [TextDelta("ok")]), adds), "go")
    answers = [m for m in run.messages() if isinstance(m, ToolMessage)]
    assert [m.content for m in answers] == ["2", "3", "4"]
    assert len({m.tool_call_id for m in answers}) == 3


async def test_after_a_crash_the_tools_run_without_another_model_call() -> None:
    run = FakeRunContext()
    run.next = ("tools",)
    asked = AIMessage(content="", id="m1", tool_calls=[ToolCall(name="adds", args={"a": 4}, id="c1")])
    run.state.apply({"messages": [HumanMessage(content="go", id="h1"), asked]})
    model = ScriptedTurns([TextDelta("five")])
    await run.play(agent(model, adds))
    assert [step.node for step in run.steps] == ["tools", "agent"]
    assert len(model.asked) == 1


async def test_notes_of_one_answer_run_in_sequence_and_change_the_threads_values() -> None:
    run = FakeRunContext()
    asks = [call("notes", f'{{"action":"add","text":"n{n}"}}', f"c{n}", n) for n in range(3)]
    await run.play(agent(ScriptedTurns(list(asks), [TextDelta("ok")]), notes), "go")
    assert run.state.get("notes") == ["n0", "n1", "n2"]


async def test_a_tool_can_emit_custom_events() -> None:
    async def talk(context: ToolContext, text: str) -> str:
        """Talk."""
        context.emit({"said": text, "by": context.configurable["user"]})
        return context.idempotency_key

    run = FakeRunContext(config=RunConfig(configurable={"user": "ann"}))
    await run.play(agent(ScriptedTurns([call("talk", '{"text":"hey"}')], [TextDelta("ok")]), talk), "go")
    (said,) = [event for event in run.events if isinstance(event, Custom)]
    assert bytes(said.data) == b'{"said":"hey","by":"ann"}'
    (intent,) = run.steps[0].intents
    assert run.messages()[2].content == intent.key


async def test_more_steps_than_the_limit_fail_the_run() -> None:
    turns: list[Any] = [[call("adds", '{"a":1}', f"c{n}")] for n in range(9)]
    with pytest.raises(StepLimit, match=r"limits\.steps"):
        await FakeRunContext().play(agent(ScriptedTurns(*turns), adds, steps=5), "go")
    turns = [[call("adds", '{"a":1}', f"c{n}")] for n in range(9)]
    with pytest.raises(StepLimit):
        await FakeRunContext(config=RunConfig(recursion_limit=2)).play(agent(ScriptedTurns(*turns), adds), "go")


async def test_more_tokens_than_the_limit_fail_the_run() -> None:
    turns: list[Any] = [[call("adds", '{"a":1}', f"c{n}")] for n in range(9)]
    with pytest.raises(TokenLimit, match=r"limits\.tokens"):
        await FakeRunContext().play(agent(ScriptedTurns(*turns, tokens=60), adds, tokens=100), "go")


async def test_a_model_that_fails_fails_the_run() -> None:
    with pytest.raises(ModelUnavailable):
        await FakeRunContext().play(agent(ScriptedTurns(ModelUnavailable("down"))), "go")


async def test_a_cancelled_run_cancels_its_tools() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits() -> str:
        """Wait."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    task = asyncio.ensure_future(FakeRunContext().play(agent(ScriptedTurns([call("waits")]), waits), "go"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_the_scripted_double_drives_the_loop() -> None:
    run = FakeRunContext()
    await run.play(agent(ScriptedModel(["hello"])), "hi")
    assert run.messages()[-1].content == "hello"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("sync", [True, False])
async def test_a_base_exception_of_a_tool_ends_the_run_but_not_the_event_loop(
    error: type[BaseException], sync: bool
) -> None:
    async def bad() -> str:
        """Bad."""
        raise error

    def bad_in_a_thread() -> str:
        """Bad."""
        raise error

    async def good() -> str:
        """Good."""
        await asyncio.Event().wait()
        return ""

    function = bad_in_a_thread if sync else bad
    asks = [call("good", id_="a"), call(function.__name__, id_="b", index=1)]
    with pytest.raises(error):
        await FakeRunContext().play(agent(ScriptedTurns(list(asks)), good, function), "go")


async def test_a_failing_tool_is_logged_without_its_message() -> None:
    async def pay(card: str) -> str:
        """Pay."""
        raise LookupError(f"no account for {card}")

    run = FakeRunContext()
    with capture_logs(processors=[hide_raised]) as lines:
        await run.play(agent(ScriptedTurns([call("pay", '{"card": "4111-1111"}')], [TextDelta("ok")]), pay), "go")
    (line,) = [line for line in lines if line["event"] == "tool_failed"]
    assert (line["log_level"], line["tool"], line["run_id"]) == ("warning", "pay", str(run.run_id))
    assert line["error"] == "LookupError"
    assert "test_toolloop.py" in line["at"]
    assert "4111" not in str(lines)
    assert "4111" in str(run.messages()[2].content)

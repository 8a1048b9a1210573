"""Long conversations: requests stay within the token budget, and the thread keeps all messages."""

from typing import Any

import msgspec
import pytest

from app.agents.port import RunConfig
from app.agents.testing import FakeRunContext
from app.agents.tool_loop import conversation_window as memories
from app.agents.tool_loop.agent import RunLimits, ToolLoop, ToolLoopConfig
from app.agents.tool_loop.calls import Toolbox
from app.agents.tool_loop.conversation_window import CHANNEL, MemorySpec, SummaryMemory
from app.agents.tools.function_tool import FunctionTool
from app.base.errors import ModelUnavailable, TokenLimit
from app.domain.messages import AIMessage, HumanMessage, Message, SystemMessage, ToolCall, ToolMessage, text_of
from app.domain.state import MESSAGES, State
from app.providers.llm.port import ModelRequest
from app.providers.llm.token_estimate import IMAGE_TOKENS, estimate_text_tokens, estimate_tokens, shorten
from tests.llm.scripted_model import ScriptedModel, ScriptTurn

LONG = "word " * 60
"""75 tokens."""


class Summarizer(ScriptedModel):
    """Answers with the number of the summary."""

    def __init__(self, *turns: ScriptTurn) -> None:
        super().__init__(turns or [f"summary {number}" for number in range(1, 50)], name="summarizer")


def loop(
    model: ScriptedModel, summarizer: ScriptedModel, *functions: Any, limits: RunLimits = RunLimits(), **spec: Any
) -> ToolLoop:
    memory = SummaryMemory(MemorySpec(**{"tokens": 400, "keep": 4, **spec}), summarizer)
    toolbox = Toolbox([FunctionTool(function) for function in functions], lambda *_: None)
    return ToolLoop("test", model, toolbox, ToolLoopConfig(instructions="Be kind.", limits=limits), memory=memory)


def conversation(turns: int, text: str = LONG) -> FakeRunContext:
    """Return a thread of ``turns`` questions and answers, each of at least 75 tokens."""
    run = FakeRunContext()
    for turn in range(turns):
        run.state.append(msgspec.json.encode(HumanMessage(content=f"q{turn} {text}", id=f"q{turn}")))
        run.state.append(msgspec.json.encode(AIMessage(content=f"a{turn} {text}", id=f"a{turn}")))
    return run


def again(run: FakeRunContext) -> FakeRunContext:
    """Return another run on the stored thread, loaded from its head and its log."""
    run.items = {**getattr(run, "items", {}), **dict(run.state.take_items())}  # type: ignore[attr-defined]
    state = State.load(run.state.head(), run.items, run.state.last_number)  # type: ignore[attr-defined]
    later = FakeRunContext(state)
    later.items = run.items  # type: ignore[attr-defined]
    return later


def first_words(request: ModelRequest) -> list[str]:
    """Return the first word of each message of the request."""
    return [text_of(message.content)[:12].split(" ")[0] for message in request.messages]


def request_tokens(request: ModelRequest) -> int:
    return estimate_text_tokens(request.instructions) + sum(estimate_tokens(message) for message in request.messages)


async def test_a_short_conversation_is_sent_unchanged() -> None:
    run, model, summarizer = conversation(1), ScriptedModel(["fine"]), Summarizer()
    await run.play(loop(model, summarizer), "hi")
    assert first_words(model.requests[0]) == ["q0", "a0", "hi"]
    assert not summarizer.requests
    assert [step.node for step in run.steps] == ["agent"]


async def test_older_messages_are_summarized_for_the_model_and_stay_in_the_thread() -> None:
    run, model, summarizer = conversation(6), ScriptedModel(["fine"]), Summarizer()
    before = run.messages()
    await run.play(loop(model, summarizer), "hi")
    (asked,) = model.requests
    assert first_words(asked) == ["The", "a5", "hi"]  # the newest that fit into half of the remaining budget
    assert "summary" in text_of(asked.messages[0].content)
    assert isinstance(asked.messages[0], HumanMessage)  # content of people and tools never becomes an instruction
    assert request_tokens(asked) <= 400
    assert asked.instructions == "Be kind."
    assert run.messages()[:-2] == before
    assert [step.node for step in run.steps[-2:]] == ["memory", "agent"]
    assert b"summary" not in run.state.json()


async def test_each_message_is_summarized_once_and_summaries_build_on_each_other() -> None:
    run, summarizer = conversation(6), Summarizer()
    model = ScriptedModel([f"b{n} {LONG}" for n in range(12)])
    for n in range(12):
        await run.play(loop(model, summarizer), f"p{n} {LONG}")
        run = again(run)
    read = [text_of(request.messages[0].content) for request in summarizer.requests]
    for said in [f"person: q{n} " for n in range(6)] + [f"assistant: a{n} " for n in range(6)]:
        assert sum(text.count(said) for text in read) == 1, said
    for number, text in enumerate(read[1:], 1):
        assert f"<memory>\nsummary {number}\n</memory>" in text
    assert all(request_tokens(request) <= 400 for request in model.requests)
    assert len(read) < 18  # not in every turn


async def test_a_later_run_reuses_the_summary() -> None:
    run, summarizer = conversation(6), Summarizer()
    broken = ScriptedModel([[ModelUnavailable("away", vendor="test")]])
    with pytest.raises(ModelUnavailable):
        await run.play(loop(broken, summarizer), "hi")
    asked = len(summarizer.requests)
    assert asked
    assert run.steps[-1].next == ("agent",)
    later, model = again(run), ScriptedModel(["fine"])
    later.next = run.steps[-1].next
    await later.play(loop(model, summarizer))
    assert len(summarizer.requests) == asked
    assert model.requests == broken.requests


@pytest.mark.parametrize("change", [HumanMessage(content="other", id="q1"), {"type": "remove", "id": "q1"}])
async def test_a_summary_of_changed_messages_is_ignored(change: Any) -> None:
    run, summarizer = conversation(6), Summarizer()
    await run.play(loop(ScriptedModel(["fine"]), summarizer), "hi")
    made = len(summarizer.requests)
    run = again(run)
    run.state.apply({MESSAGES: [msgspec.Raw(msgspec.json.encode(change))]})
    await run.play(loop(ScriptedModel(["fine"]), summarizer), "and now?")
    regenerated = [text_of(request.messages[0].content) for request in summarizer.requests[made:]]
    assert "<memory>" not in regenerated[0]
    assert "person: q0" in regenerated[0]
    assert not any(f"person: q1 {LONG}" in text for text in regenerated)


async def test_a_truncated_conversation_is_sent_without_the_old_summary() -> None:
    run, summarizer = conversation(6), Summarizer()
    await run.play(loop(ScriptedModel(["fine"]), summarizer), "hi")
    run = again(run)
    run.state.apply({MESSAGES: [{"type": "remove", "id": "__remove_all__"}]})
    model = ScriptedModel(["fine"])
    await run.play(loop(model, summarizer), "again")
    assert first_words(model.requests[0]) == ["again"]


async def test_a_fork_has_the_summary_of_its_checkpoint() -> None:
    run, summarizer = conversation(6), Summarizer()
    await run.play(loop(ScriptedModel(["fine"]), summarizer), "hi")
    fork, made = again(run), len(summarizer.requests)
    for n in range(6):
        await run.play(loop(ScriptedModel([LONG]), summarizer), f"p{n} {LONG}")
    model = ScriptedModel(["fine"])
    await fork.play(loop(model, summarizer), "elsewhere")
    assert first_words(model.requests[0]) == ["The", "a5", "hi", "fine", "elsewhere"]
    assert f"summary {made}\n" in text_of(model.requests[0].messages[0].content)


def look(n: int) -> str:
    """Look at something."""
    return f"seen {n} {LONG}"


async def test_calls_keep_their_answers_and_the_question_stays_during_long_work() -> None:
    turns: list[ScriptTurn] = [
        [ToolCall(name="look", args={"n": n}, id=f"c{n}"), ToolCall(name="look", args={"n": -n}, id=f"d{n}")]
        for n in range(12)
    ]
    model, summarizer, run = ScriptedModel([*turns, "done"]), Summarizer(), FakeRunContext()
    await run.play(loop(model, summarizer, look, tokens=900), "What is there?")
    assert summarizer.requests
    for request in model.requests:
        asked = {
            call.id for message in request.messages if isinstance(message, AIMessage) for call in message.tool_calls
        }
        answers = [message for message in request.messages if isinstance(message, ToolMessage)]
        assert {message.tool_call_id for message in answers} == asked
        assert all(message.status == "success" for message in answers)
        assert sum(text_of(message.content) == "What is there?" for message in request.messages) == 1
    assert len(run.messages()) == 1 + 12 * 3 + 1


async def test_system_messages_stay_verbatim() -> None:
    run = conversation(2)
    run.state.append(msgspec.json.encode(SystemMessage(content="Never mention the owl.", id="s")))
    for element in conversation(5).state.elements():
        run.state.append(element.replace(b'"id":"', b'"id":"x'))
    model = ScriptedModel(["fine"])
    await run.play(loop(model, Summarizer()), "hi")
    assert text_of(model.requests[0].messages[0].content) == "Never mention the owl."
    assert request_tokens(model.requests[0]) <= 400


async def test_without_a_summary_older_messages_are_omitted_and_the_next_run_retries() -> None:
    run, broken = conversation(6), Summarizer([ModelUnavailable("away", vendor="test")])
    model = ScriptedModel([[ToolCall(name="look", args={"n": 1}, id="c")], "fine"])
    await run.play(loop(model, broken, look), "hi")
    assert [step.node for step in run.steps] == ["agent", "tools", "agent"]
    assert len(broken.requests) == 1  # not before every model call of a run
    note = text_of(model.requests[0].messages[0].content)
    assert note == "[11 messages of the conversation are left out here]"
    assert all(request_tokens(request) <= 400 for request in model.requests)
    summarizer = Summarizer()
    await again(run).play(loop(ScriptedModel(["fine"]), summarizer, look), "again")
    assert summarizer.requests


async def test_an_empty_summary_is_not_stored() -> None:
    run, model = conversation(6), ScriptedModel(["fine"])
    await run.play(loop(model, Summarizer("  \n")), "hi")
    assert run.state.get(CHANNEL) is None
    assert "left out" in text_of(model.requests[0].messages[0].content)


async def test_a_summary_cannot_exceed_its_token_limit() -> None:
    run, model = conversation(6), ScriptedModel(["fine"])
    await run.play(loop(model, Summarizer(*["endless " * 5_000] * 9)), "hi")
    assert estimate_text_tokens(run.state.get(CHANNEL)["text"]) <= 100
    assert request_tokens(model.requests[0]) <= 400


async def test_an_already_long_thread_is_summarized_in_chunks_within_the_budget() -> None:
    run, summarizer, model = conversation(60), Summarizer(), ScriptedModel(["fine"])
    await run.play(loop(model, summarizer), "hi")
    assert all(request_tokens(request) <= 700 for request in summarizer.requests)  # without its own instructions
    assert [step.node for step in run.steps] == ["memory"] * len(summarizer.requests) + ["agent"]
    read = " ".join(text_of(request.messages[0].content) for request in summarizer.requests)
    assert all(read.count(f"person: q{n} ") == 1 for n in range(57))


async def test_a_message_above_the_budget_is_shortened_for_the_summarizer() -> None:
    run, summarizer, model = conversation(1, "x" * 100_000), Summarizer(), ScriptedModel(["fine"])
    for element in conversation(2).state.elements():
        run.state.append(element.replace(b'"id":"', b'"id":"x'))
    await run.play(loop(model, summarizer), "hi")
    assert all(request_tokens(request) <= 700 for request in summarizer.requests)
    assert "[...]" in text_of(summarizer.requests[0].messages[0].content)
    assert request_tokens(model.requests[0]) <= 400


async def test_summaries_cost_the_run_its_tokens_and_none_of_its_steps() -> None:
    run, model = conversation(60), ScriptedModel(["fine"])
    run.config = RunConfig(recursion_limit=1)
    await run.play(loop(model, Summarizer(), limits=RunLimits(steps=1)), "hi")
    steps = [step for step in run.steps if step.node == "memory"]
    assert {step.model for step in steps} == {"scripted:summarizer"}
    assert all(step.usage and step.usage.total_tokens for step in steps)
    with pytest.raises(TokenLimit):
        await conversation(60).play(loop(ScriptedModel(["fine"]), Summarizer(), limits=RunLimits(tokens=500)), "hi")


async def test_tokens_of_each_message_are_estimated_once_per_run(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[str | None] = []

    def counting(message: Message) -> int:
        weighed.append(message.id)
        return estimate_tokens(message)

    monkeypatch.setattr(memories, "estimate_tokens", counting)
    turns: list[ScriptTurn] = [[ToolCall(name="look", args={"n": n}, id=f"c{n}")] for n in range(20)]
    run = FakeRunContext()
    await run.play(loop(ScriptedModel([*turns, "done"]), Summarizer(), look, tokens=3_000), "go")
    question = run.messages()[0].id
    assert len(run.steps) == 41
    assert max(weighed.count(message.id) for message in run.messages() if message.id != question) == 1


def test_token_estimates_err_on_the_high_side() -> None:
    assert estimate_text_tokens("a" * 400) == 100
    assert estimate_text_tokens("猫" * 100) == 100
    picture = HumanMessage(content=[{"type": "image_url", "image_url": {"url": "data:" + "x" * 1_000_000}}])
    assert IMAGE_TOKENS <= estimate_tokens(picture) < IMAGE_TOKENS + 10
    for text in ("a" * 10_000, "猫" * 10_000, "é" * 5_000 + "b" * 5_000):
        assert estimate_text_tokens(shorten(text, 100)) <= 100

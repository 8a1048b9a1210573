"""Calls that a crash left unresolved: decided by their tool class, or by a person."""

import uuid
from typing import Any

import pytest

from app.agents.port import RunOutcome, UnresolvedCall
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.agent import ToolLoop
from app.agents.tool_loop.calls import Toolbox
from app.agents.tools.function_tool import FunctionTool
from app.base.errors import ReviewAborted, StartError
from app.domain.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
from app.domain.state import MESSAGES
from app.tools import tool
from tests.llm.scripted_model import ScriptedModel

made: list[str] = []


@tool(tool_class="unsafe")
def pay(amount: int) -> str:
    """Pay."""
    made.append(f"pay {amount}")
    return "paid"


@tool(tool_class="idempotent")
def put(amount: int) -> str:
    """Put."""
    made.append(f"put {amount}")
    return "put"


async def found(key: str) -> str | None:
    made.append("look")
    if "gone" in made:
        return None
    if "down" in made:
        raise ConnectionError("no answer")
    return "it is booked"


@tool(tool_class="reconcilable", lookup=found)
def book(amount: int) -> str:
    """Book."""
    made.append(f"book {amount}")
    return "booked"


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    made.clear()


def unresolved(run: FakeRunContext, attempt: str, message_id: str = "m") -> UnresolvedCall:
    return UnresolvedCall(attempt, run.thread_id, str(uuid.uuid5(run.thread_id, f"{message_id} c1")))


async def recovered(name: str, run: FakeRunContext | None = None) -> tuple[FakeRunContext, RunOutcome]:
    """Return a run resumed after a process died during a call of the tool ``name``."""
    call = ToolCall(name=name, args={"amount": 4}, id="c1")
    if run is None:
        run = FakeRunContext()
        run.state.apply(
            {MESSAGES: [HumanMessage(content="go", id="h"), AIMessage(content="", id="m", tool_calls=[call])]}
        )
        run.next = ("tools",)
        run.unresolved_calls = {"c1": [unresolved(run, "first attempt")]}
    agent = ToolLoop("test", ScriptedModel(["The end."]), Toolbox([FunctionTool(f) for f in (pay, put, book)], count))
    return run, await run.play(agent)


def count(*_: str) -> None: ...


def answer_of(run: FakeRunContext) -> ToolMessage:
    (message,) = [message for message in run.messages() if isinstance(message, ToolMessage)]
    return message


async def test_an_unsafe_call_is_reviewed_by_a_person() -> None:
    _, outcome = await recovered("pay")
    (question,) = outcome.interrupts
    assert question.value["type"] == "tool_review"
    assert (question.value["tool"], question.value["args"], question.value["call_id"]) == ("pay", {"amount": 4}, "c1")
    assert question.value["actions"] == ["retry", "done", "failed", "abort"]
    assert made == []


@pytest.mark.parametrize(
    "answer, content, status, calls",
    [
        ({"action": "retry"}, "paid", "success", ["pay 4"]),
        ("retry", "paid", "success", ["pay 4"]),
        ({"action": "done", "result": "receipt 17"}, "receipt 17", "success", []),
        ({"action": "done", "result": {"receipt": 17}}, '{"receipt":17}', "success", []),
        ({"action": "done"}, "done", "success", []),
        ({"action": "failed", "result": "card refused"}, "card refused", "error", []),
        ({"action": "failed"}, "The call failed.", "error", []),
    ],
)
async def test_a_person_decides(answer: Any, content: str, status: str, calls: list[str]) -> None:
    run, outcome = await recovered("pay")
    run.answers = {outcome.interrupts[0].id: answer}
    await recovered("pay", run)
    assert (answer_of(run).content, answer_of(run).status) == (content, status)
    assert made == calls


async def test_a_person_may_end_the_run() -> None:
    run, outcome = await recovered("pay")
    run.answers = {outcome.interrupts[0].id: {"action": "abort"}}
    with pytest.raises(ReviewAborted):
        await recovered("pay", run)
    assert made == []


async def test_an_ambiguous_answer_repeats_the_question() -> None:
    run, outcome = await recovered("pay")
    run.answers = {outcome.interrupts[0].id: {"action": "perhaps"}}
    _, again = await recovered("pay", run)
    assert again.interrupts[0].id == outcome.interrupts[0].id
    assert "Answer with an action" in again.interrupts[0].value["problem"]


async def test_a_review_applies_to_one_attempt() -> None:
    run, outcome = await recovered("pay")
    run.answers = {outcome.interrupts[0].id: "retry"}
    run.unresolved_calls = {"c1": [unresolved(run, "first attempt"), unresolved(run, "second attempt")]}
    _, again = await recovered("pay", run)
    assert again.interrupts[0].id != outcome.interrupts[0].id
    assert made == []


async def test_an_idempotent_call_runs_again() -> None:
    run, _ = await recovered("put")
    assert answer_of(run).content == "put"
    assert made == ["put 4"]


async def test_a_look_up_resolves_the_call() -> None:
    run, _ = await recovered("book")
    assert answer_of(run).content == "it is booked"
    assert made == ["look"]


async def test_a_call_that_the_look_up_does_not_find_runs_again() -> None:
    made.append("gone")
    run, _ = await recovered("book")
    assert answer_of(run).content == "booked"
    assert made == ["gone", "look", "book 4"]


async def test_a_failed_look_up_is_reviewed_by_a_person() -> None:
    made.append("down")
    _, outcome = await recovered("book")
    assert "ConnectionError: no answer" in outcome.interrupts[0].value["problem"]
    assert "book 4" not in made


def test_a_reconcilable_tool_needs_a_look_up_and_no_other_has_one() -> None:
    @tool(tool_class="reconcilable")
    def lost() -> str:
        return ""

    @tool(tool_class="unsafe", lookup=found)
    def odd() -> str:
        return ""

    for function in (lost, odd):
        with pytest.raises(StartError, match="needs a lookup"):
            FunctionTool(function)

"""Calls of the agents file's tools by graphs: what a crash, a person's answer and a retry of a node do to them."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.agents.langgraph.kept_values import KeptValues
from app.agents.langgraph.session import COMMAND, INPUT
from app.agents.langgraph.tools import MAX_ARGS_BYTES, GraphToolCalls, results_in
from app.agents.langgraph.wire import HEAD, EndReport, MarkReport, ToolRequest
from app.agents.langgraph.worker import GraphProject, GraphWorker, WorkerRun
from app.agents.open_calls import open_calls
from app.agents.port import RunInstructions, UnresolvedCall
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.approval import ApprovalPolicy
from app.agents.tool_loop.call_questions import idempotency_key, intent_id
from app.agents.tool_loop.calls import Toolbox
from app.agents.tools.function_tool import FunctionTool
from app.base.errors import ReviewAborted
from app.domain.messages import ToolCall
from app.domain.state import State
from app.tools import tool


class Post:
    """A tool with an effect: ``sent``; it fails while it is ``broken``."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.broken = False

    async def send(self, text: str) -> str:
        """Send a text."""
        self.sent.append(text)
        if self.broken:
            raise ValueError("the post is closed")
        return f"sent {text}"


def calls_of(context: FakeRunContext, approve: ApprovalPolicy = ApprovalPolicy(), *tools: Any) -> GraphToolCalls:
    toolbox = Toolbox([FunctionTool(one) for one in tools], lambda *_: None, approve)
    return GraphToolCalls(toolbox, context, context.amend, context.intend)


async def made(
    calls: GraphToolCalls,
    attempt: int = 1,
    answers: dict[str, Any] | None = None,
    key: str = "task 0",
    args: bytes = b'{"text":"hi"}',
) -> Any:
    """Make the call of the tool ``send``; return its result or its questions."""
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    calls._context.answers.update(answers or {})
    request = ToolRequest(run=1, id=7, key=key, call_id="call_1", attempt=attempt, name="send", args=args)

    def answer(**sent: Any) -> None:
        found.set_result(sent["error"] or sent["value"])

    calls.start(request, answer, found.set_exception)
    return await found


async def test_a_call_that_a_crash_left_unknown_is_reviewed_and_not_made_again() -> None:
    post, context = Post(), FakeRunContext()
    key = idempotency_key(context, "task 0", ToolCall(name="send", args={"text": "hi"}, id="call_1"))
    context.unresolved_calls["call_1"] = [UnresolvedCall("r", context.thread_id, key)]
    calls = calls_of(context, ApprovalPolicy(), post.send)
    (asked,) = (await made(calls))["questions"]
    question = calls.questions[asked["id"]]
    assert (question.kind, question.value["type"]) == ("review", "tool_review")
    result = await made(calls, answers={asked["id"]: {"action": "done", "result": "it went out"}})
    assert (result["content"], result["status"], post.sent) == ("it went out", "success", [])

    again = calls_of(context := FakeRunContext(), ApprovalPolicy(), post.send)
    context.unresolved_calls["call_1"] = [
        UnresolvedCall("r", context.thread_id, idempotency_key(context, "task 0", _call()))
    ]
    (asked,) = (await made(again))["questions"]
    try:
        await made(again, answers={asked["id"]: {"action": "abort"}})
    except ReviewAborted:
        pass
    else:
        raise AssertionError("the run goes on")


def _call() -> ToolCall:
    return ToolCall(name="send", args={"text": "hi"}, id="call_1")


async def test_an_approval_keeps_who_may_give_it() -> None:
    post = Post()
    calls = calls_of(FakeRunContext(), ApprovalPolicy(tools=["send"], by="other"), post.send)
    (asked,) = (await made(calls))["questions"]
    question = calls.questions[asked["id"]]
    assert (question.kind, question.others_only, question.call_id) == ("approval", True, "call_1")
    assert (await made(calls, answers={asked["id"]: "approve"}))["content"] == "sent hi"


async def test_a_node_that_starts_again_finds_its_result_and_one_that_is_retried_repeats_a_failure() -> None:
    post, context = Post(), FakeRunContext()
    calls = calls_of(context, ApprovalPolicy(), post.send)
    post.broken = True
    for _ in range(2):
        assert (await made(calls))["status"] == "error"
    assert post.sent == ["hi"]
    assert [intent.call_id for intent in context.intents] == [intent_id("task 0", _call())]
    post.broken = False
    for attempt in (2, 2, 1, 3):
        assert (await made(calls, attempt))["content"] == "sent hi"
    assert post.sent == ["hi", "hi"]
    context.state.apply(results_in(context.state))  # as the commit of the superstep does
    assert results_in(context.state) == {}


async def test_calls_that_change_nothing_leave_nothing_behind() -> None:
    seen: list[str] = []

    @tool(tool_class="read_only")
    async def send(text: str) -> str:
        """Look at a text."""
        seen.append(text)
        return text

    context = FakeRunContext()
    calls = calls_of(context, ApprovalPolicy(), send)
    for _ in range(2):
        assert (await made(calls))["content"] == "hi"
    assert (seen, context.intents, results_in(context.state)) == (["hi", "hi"], [], {})


@pytest.mark.parametrize(
    "values", [{HEAD: {"run": str(UUID(int=9 << 100))}}, {HEAD: {"run": ""}}, {INPUT: 1}, {COMMAND: 1}]
)
def test_every_earlier_run_may_have_made_a_call_of_a_graph(values: dict[str, Any]) -> None:
    """The run that wrote its checkpoint last need not have made the call, and there may be no checkpoint yet."""
    state = State()
    state.apply(values)
    assert open_calls(state).since == UUID(int=0)
    assert open_calls(State()).since is None


async def test_calls_of_two_messages_with_one_id_have_intents_of_their_own() -> None:
    post, context = Post(), FakeRunContext()
    calls = calls_of(context, ApprovalPolicy(), post.send)
    for key in ("message 1", "message 2"):
        await made(calls, key=key)
    first, second = context.intents
    assert first.call_id != second.call_id
    owner = FakeRunContext()
    owner.thread_id = context.thread_id
    owner.unresolved_calls[second.call_id] = [UnresolvedCall("r", context.thread_id, second.key)]
    again = calls_of(owner, ApprovalPolicy(), post.send)
    assert "questions" in await made(again, key="message 2")
    assert (await made(again, key="message 1"))["content"] == "sent hi"
    assert len(post.sent) == 3


async def test_a_run_that_goes_back_makes_the_calls_again_and_finds_its_own_results() -> None:
    post, context = Post(), FakeRunContext()
    await made(calls_of(context, ApprovalPolicy(), post.send))
    fork = FakeRunContext(context.state)
    fork.thread_id, fork.instructions = context.thread_id, RunInstructions(fork=True)
    for _ in range(2):  # the second time as after a restart of the worker
        assert (await made(calls_of(fork, ApprovalPolicy(), post.send)))["content"] == "sent hi"
        assert post.sent == ["hi", "hi"]


async def test_arguments_of_more_than_a_mebibyte_are_refused() -> None:
    post = Post()
    large = b'{"text":"%s"}' % (b"x" * MAX_ARGS_BYTES)
    assert "more than 1048576" in await made(calls_of(FakeRunContext(), ApprovalPolicy(), post.send), args=large)
    assert post.sent == []


async def test_a_run_that_has_ended_stays_ended_when_a_late_report_comes() -> None:
    worker = GraphWorker(GraphProject(graphs={}, folder=Path()))
    admitted: Any = None
    connection: Any = None
    run = worker._runs[1] = WorkerRun(1, connection, admitted, (UUID(int=1), UUID(int=2)), KeptValues())
    for report in (EndReport(run=1, status="done"), MarkReport(run=1, wait=1)):
        worker._route(report)
        assert run.ended

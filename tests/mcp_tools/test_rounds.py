"""Calls that take more than one request: questions to a person in between, and tasks that outlive their caller."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app.agents.mcp.spec import McpServerSpec
from app.agents.port import UnresolvedCall
from app.agents.testing import FakeRunContext
from app.agents.tool_loop.call_questions import idempotency_key
from app.agents.tool_loop.calls import CallResults, Toolbox
from app.agents.tool_loop.conversation import PendingCalls
from app.base.json_schema import JsonSchema
from app.domain.messages import ToolCall
from tests.mcp_tools import server as fixture
from tests.mcp_tools.conftest import Connected, connected, serving_http
from tests.mcp_tools.task_server import TaskServer
from tests.waiting import eventually


async def run(found: Connected, context: FakeRunContext, name: str, **args: Any) -> CallResults:
    toolbox = Toolbox([], lambda *_: None, sources=found.server.sources)
    call = ToolCall(name=f"fix__{name}", args=args, id="call_1")
    return await toolbox.run(PendingCalls("m", [call]), context)


@pytest.mark.parametrize("revision", ["auto", "2025-11-25"])
async def test_a_question_of_a_server_is_an_interrupt_and_its_answer_ends_the_call(
    http_url: str, revision: Any
) -> None:
    fixture.orders.clear()
    context = FakeRunContext()
    async with connected(McpServerSpec(url=http_url, revision=revision)) as found:
        waiting = await run(found, context, "order", item="tea")
        (question,) = waiting.interrupts
        assert (question.kind, question.call_id) == ("question", "call_1")
        assert question.value["message"] == "Which size of tea?"
        assert (question.value["type"], question.value["server"]) == ("elicitation", "fix")
        assert "size" in question.value["requested_schema"]["required"]
        assert question.expects is not None
        fits = JsonSchema(question.expects)
        assert not fits.problems({"action": "decline"})
        assert fits.problems({"action": "accept", "content": {}})
        assert not fits.problems({"action": "accept", "content": {"size": "L"}})  # what has a default may be left out
        assert fixture.orders == []

    context.answers[question.id] = {"action": "accept", "content": {"size": "L"}}
    async with connected(McpServerSpec(url=http_url, revision=revision)) as found:  # as another process has it
        answered = await run(found, context, "order", item="tea")
        assert [message.content for message in answered.messages] == ["ordered tea L"]
        assert fixture.orders == ["tea L"]
        hidden = [name for name in context.state.channels if name.startswith("__tool:")]
        assert list(answered.forget) == hidden
        assert bool(hidden) == (revision == "auto")

        context.answers.clear()
        context.answers[question.id] = {"action": "decline"}
        declined = await run(found, context, "order", item="tea")
        assert [message.content for message in declined.messages] == ["ordered tea decline"]


@pytest.fixture
def tasks() -> Iterator[tuple[TaskServer, McpServerSpec]]:
    server = TaskServer()
    with serving_http(server.app) as base:
        yield server, McpServerSpec(url=f"{base}/mcp", timeout=20)


async def test_a_task_is_followed_by_another_process_and_not_called_again(
    tasks: tuple[TaskServer, McpServerSpec],
) -> None:
    server, spec = tasks
    context = FakeRunContext()
    async with connected(spec) as found:
        first = asyncio.create_task(run(found, context, "build"))
        await eventually(lambda: ("tasks/get", "task-1") in server.requests)
        first.cancel()  # the process ends
        await asyncio.wait([first])
    assert server.cancelled == []
    key = idempotency_key(context, "m", ToolCall(name="fix__build", args={}, id="call_1"))
    context.unresolved_calls["call_1"] = [UnresolvedCall("r", context.thread_id, key)]  # unsafe: else it is reviewed
    async with connected(spec) as found:
        second = asyncio.create_task(run(found, context, "build"))
        await eventually(lambda: len(server.requests) > 6)
        server.fail = True  # away for a moment
        await eventually(lambda: server.failed)
        server.fail, server.status = False, "completed"
        results = await second
    assert [message.content for message in results.messages] == ["built by task-1"]
    assert len(server.calls) == 1


async def test_a_task_asks_a_person_and_is_cancelled_with_its_run(tasks: tuple[TaskServer, McpServerSpec]) -> None:
    server, spec = tasks
    context = FakeRunContext()
    server.status = "input_required"
    async with connected(spec) as found:
        (question,) = (await run(found, context, "build")).interrupts
        assert question.value["message"] == "Really?"
        context.answers[question.id] = {"action": "accept", "content": {"sure": True}}
        results = await run(found, context, "build")
        assert [message.content for message in results.messages] == ["built by task-1"]
        assert server.answers == [{"sure": {"action": "accept", "content": {"sure": True}}}]

        server.status, other = "working", FakeRunContext()
        stopped = asyncio.create_task(run(found, other, "build"))
        await eventually(lambda: ("tasks/get", "task-2") in server.requests)
        other.cancelled = True
        stopped.cancel()
        await asyncio.wait([stopped])
        assert server.cancelled == ["task-2"]

        late = McpServerSpec(url=spec.url, timeout=0.5)
        async with connected(late) as slow:
            (message,) = (await run(slow, FakeRunContext(), "build")).messages
            assert message.content == "The tool took longer than 0.5 s."
            assert server.cancelled == ["task-2", "task-3"]
    assert len(server.calls) == 3

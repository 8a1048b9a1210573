"""Questions of any form, and their answers, on every wire."""

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.protocols.questions import approval, calls_of, client_call_id, decision_in, edit, kind_of, words_of
from tests.protocols.ag_ui_streams import checked, run_input
from tests.system.services import API, Service, serving
from tests.waiting import eventually

AGENTS = Path(__file__).parent / "agents" / "agents.toml"

TWO_CALLS = {
    "action_requests": [
        {"name": "pay", "args": {"sum": 1}, "description": "Pay 1?"},
        {"name": "tell", "args": {}, "description": "Tell it?"},
    ],
    "review_configs": [],
}
"""A question about two calls, as LangChain's middleware asks it."""

APPROVED = {"decisions": [{"type": "approve"}, {"type": "approve"}]}

ODD = [
    {"action_requests": ["pay"]},
    {"action_requests": 5, "type": "tool_approval"},
    {"type": "client_tool_call"},
    {"type": ["tool_review"], "tool": 1},
    {"type": "tool_review"},
    [[]],
    None,
]
"""Values of questions that only look like those that are known."""


def test_a_question_about_calls_is_decided_for_each_of_them() -> None:
    assert kind_of(TWO_CALLS) == "approval"
    assert [call.name for call in calls_of(TWO_CALLS)] == ["pay", "tell"]
    assert words_of(TWO_CALLS) == "Pay 1?\n\nTell it?"
    assert approval(TWO_CALLS, True, "unused") == APPROVED
    assert approval({}, False, "no") == {"decisions": [{"type": "reject", "message": "no"}]}
    own = {"type": "tool_approval", "tool": "pay", "args": {"sum": 1}, "call_id": "c"}
    assert edit(own, {"sum": 2}) == {
        "decisions": [{"type": "edit", "edited_action": {"name": "pay", "args": {"sum": 2}}}]
    }
    assert calls_of(own)[0].arguments == '{"sum":1}'
    answers: list[Any] = [True, "approve", {"action": "retry"}, APPROVED, edit(own, {})]
    assert [decision_in(answer) for answer in answers] == [(True, None)] * len(answers)
    refusals: list[Any] = [False, 1.5, {"action": []}, {"decisions": [{"type": "approve"}, {"type": []}]}, None]
    assert [decision_in(answer) for answer in refusals] == [(False, None)] * len(refusals)
    assert decision_in(approval(own, False, "no")) == (False, "no")
    assert client_call_id({"type": "client_tool_call", "call_id": "c"}) == "c"


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(AGENTS)) as service:
        yield service


async def asked(service: Service, value: Any) -> tuple[str, str, str]:
    """Have an agent ask; return its thread, run and question."""
    thread = str(uuid.uuid4())
    given = {"messages": [{"role": "user", "content": json.dumps(value)}]}
    run = {"assistant_id": "asker", "input": given, "if_not_exists": "create"}
    answer = await service.client.post(f"{API}/threads/{thread}/runs/wait", json=run)
    (question,) = answer.json()["__interrupt__"]
    (started,) = (await service.get(f"/threads/{thread}/runs")).json()
    return thread, started["run_id"], question["id"]


async def over_responses(service: Service, thread: str, run: str, question: str) -> None:
    approved = {"type": "mcp_approval_response", "approval_request_id": f"mcpr_{question}", "approve": True}
    body = {"model": "asker", "input": [approved], "previous_response_id": f"resp_{uuid.UUID(run).hex}"}
    response = (await service.client.post("/v1/responses", json=body)).json()
    assert response["status"] == "completed"
    given = (await service.client.get(f"/v1/responses/{response['id']}/input_items")).json()
    assert [one["approve"] for one in given["data"] if one["type"] == "mcp_approval_response"] in ([], [True])


async def over_ai_sdk(service: Service, thread: str, run: str, question: str) -> None:
    part = {"type": "tool-pay", "state": "approval-responded", "approval": {"id": question, "approved": True}}
    body = {"id": thread, "messages": [{"id": "m", "role": "assistant", "parts": [part]}]}
    assert (await service.client.post("/ai-sdk/asker/chat", json=body)).status_code == 200


async def over_ag_ui(service: Service, thread: str, run: str, question: str) -> None:
    resume = [{"interruptId": question, "status": "resolved", "payload": {"approved": True}}]
    answer = await service.client.post("/ag-ui/asker", json=run_input(thread, resume=resume))
    assert checked(answer.text)[-1]["outcome"] == {"type": "success"}


async def over_a2a(service: Service, thread: str, run: str, question: str) -> None:
    task = await service.client.get(f"/a2a/asker/tasks/{run}")
    assert task.json()["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    for words, code in (("perhaps", 400), ("Yes.", 200)):
        message = {"messageId": words, "role": "ROLE_USER", "parts": [{"text": words}], "taskId": run}
        assert (await service.client.post("/a2a/asker/message:send", json={"message": message})).status_code == code


async def task_over_mcp(service: Service, thread: str, run: str, method: str = "tasks/get", **more: Any) -> Any:
    about = "io.modelcontextprotocol/"
    capabilities: dict[str, Any] = {"elicitation": {}, "extensions": {f"{about}tasks": {}}}
    meta = {f"{about}protocolVersion": "2026-07-28", f"{about}clientCapabilities": capabilities}
    task_id = f"{uuid.UUID(thread).hex}.{uuid.UUID(run).hex}"
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": task_id,
               "Accept": "application/json, text/event-stream"}  # fmt: skip
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"taskId": task_id, **more, "_meta": meta}}
    return (await service.client.post("/mcp", json=body, headers=headers)).json()["result"]


async def over_mcp(service: Service, thread: str, run: str, question: str) -> None:
    form = (await task_over_mcp(service, thread, run))["inputRequests"][question]["params"]
    assert form["requestedSchema"]["properties"]["decision"]["enum"] == ["approve", "reject"]
    answers = {question: {"action": "accept", "content": {"decision": "approve"}}}
    await task_over_mcp(service, thread, run, "tasks/update", inputResponses=answers)

    async def completed() -> bool:
        return bool((await task_over_mcp(service, thread, run))["status"] == "completed")

    await eventually(completed)


Answering = Callable[[Service, str, str, str], Awaitable[None]]


@pytest.mark.parametrize("answer", [over_responses, over_ai_sdk, over_ag_ui, over_a2a, over_mcp])
async def test_calls_of_a_graph_are_approved_on_every_wire(service: Service, answer: Answering) -> None:
    thread, run, question = await asked(service, TWO_CALLS)
    await answer(service, thread, run, question)
    values = (await service.get(f"/threads/{thread}")).json()["values"]
    assert json.loads(values["messages"][-1]["content"]) == APPROVED


async def test_a_question_of_any_form_is_shown_on_every_wire(service: Service) -> None:
    for value in ODD:
        thread, run, question = await asked(service, value)
        client = service.client
        task = (await client.get(f"/a2a/asker/tasks/{run}")).json()
        assert task["status"]["message"]["parts"][-1]["data"]["questions"][0]["questionId"] == question
        response = await client.get(f"/v1/responses/resp_{uuid.UUID(run).hex}")
        assert response.json()["output"][-1]["id"] == f"mcpr_{question}", value
        assert question in (await task_over_mcp(service, thread, run))["inputRequests"], value
        connected = await client.post("/copilotkit/agent/asker/connect", json=run_input(thread))
        assert checked(connected.text)[-1]["outcome"]["interrupts"][0]["id"] == question
        resume = [{"interruptId": question, "status": "resolved", "payload": 1}]
        answered = await client.post("/ag-ui/asker", json=run_input(thread, resume=resume))
        assert checked(answered.text)[-1]["outcome"] == {"type": "success"}


async def test_a_result_of_a_clients_tool_answers_over_the_ai_sdk(service: Service) -> None:
    weather = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    body = {"model": "careful", "input": "call weather", "tools": [weather]}
    response = await service.client.post("/v1/responses", json=body)
    thread, call = response.headers["x-thread-id"], response.json()["output"][-1]
    wrong = {"type": "tool-t", "state": "approval-responded", "approval": {"id": "other", "approved": True}}
    part = {"type": "tool-weather", "toolCallId": call["call_id"], "state": "output-available", "output": {"sun": True}}
    for parts, status in (([wrong], 409), ([{**part, "toolCallId": "d"}], 422), ([part], 200), ([part], 422)):
        chat = {"id": thread, "messages": [{"id": "m", "role": "assistant", "parts": parts}]}
        answer = await service.client.post("/ai-sdk/careful/chat", json=chat)
        assert answer.status_code == status, answer.text
    messages = (await service.get(f"/threads/{thread}")).json()["values"]["messages"]
    assert [one["content"] for one in messages if one["type"] == "tool"] == ['{"sun":true}']


async def test_a_completion_says_what_a_person_is_asked(service: Service) -> None:
    body = {"model": "asker", "messages": [{"role": "user", "content": json.dumps({"question": "Which?"})}]}
    whole = (await service.client.post("/v1/chat/completions", json=body)).json()["choices"][0]
    assert (whole["message"]["content"], whole["finish_reason"]) == ("Which?", "stop")
    stream = await service.client.post("/v1/chat/completions", json={**body, "stream": True})
    chunks = [json.loads(line[6:]) for line in stream.text.split("\n") if line.startswith("data: {")]
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks) == "Which?"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"

"""What clients and graphs write may be anything: no protocol answers it with a 500."""

import base64
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from app.domain.events import MessageAdded, StepCommitted
from app.protocols.ag_ui.messages import shown
from app.protocols.openai.responses.compaction import MAX_SUMMARY_BYTES, PREFIX
from app.protocols.openai.responses.items import items_of
from app.protocols.parts import PartAssembler
from tests.system.services import API, Service, serving

TWENTY = "2026-01-01T00:00:00"
ODD_MESSAGES: list[dict[str, Any]] = [
    {"type": []},
    {"type": "ai", "id": "a", "content": 5, "additional_kwargs": "x", "tool_calls": ["x"], "usage_metadata": {"x": []}},
    {"type": "ai", "id": "b", "content": [{"type": {}}], "additional_kwargs": [], "tool_calls": {"a": 1}},
    {"type": "human", "id": "c", "content": {"a": 1}},
    {"type": "tool", "id": "d", "content": None, "tool_call_id": 5},
]


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none") as service:
        yield service


async def test_odd_members_of_a_request_are_refused(service: Service) -> None:
    cases: list[tuple[str, Any]] = [
        ("/v1/responses", {"input": "x", "text": {"format": "json"}}),
        ("/v1/responses", {"input": "x", "tool_choice": {"type": "allowed_tools", "mode": [], "tools": []}}),
        ("/v1/responses", {"input": [{"role": [], "content": "x"}]}),
        ("/v1/responses", {"input": [{"type": [], "content": "x"}]}),
        ("/v1/responses", {"input": [{"type": "message", "role": "user", "content": [{"type": []}]}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": []}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": []}]}]}),
    ]
    for path, body in cases:
        answer = await service.client.post(path, json={"model": "assistant", **body})
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_compaction_follows_the_rules_of_a_body(service: Service) -> None:
    def compacted(text: bytes) -> dict[str, Any]:
        content = PREFIX + base64.urlsafe_b64encode(text).decode()
        return {"type": "compaction", "encrypted_content": content}

    said = {"type": "message", "role": "user", "content": "x"}
    longest = compacted(b"\t" * MAX_SUMMARY_BYTES)
    too_long, damaged = compacted(b"x" * (MAX_SUMMARY_BYTES + 1)), {**longest, "encrypted_content": PREFIX + "AAAAA"}
    unstorable, not_text = compacted(b"a\0b"), compacted(b"a\xed\xa0\x80")
    for items in ([unstorable], [not_text], [longest, longest], [too_long], [damaged]):
        for path in ("responses", "responses/input_tokens", "responses/compact"):
            answer = await service.client.post(f"/v1/{path}", json={"model": "assistant", "input": [*items, said]})
            error = answer.json()["error"]
            where = f"input.{len(items) - 1}.encrypted_content"
            assert (answer.status_code, error["param"]) == (400, where), error
        answer = await service.client.post("/v1/conversations", json={"items": items})
        assert answer.status_code == 400, answer.text
    made = await service.client.post("/v1/responses", json={"model": "assistant", "input": [longest, said]})
    assert (made.status_code, made.json()["status"]) == (200, "completed"), made.text


async def test_json_in_a_text_follows_the_rules_of_a_body(service: Service) -> None:
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    for text in (deep, '{"a":"\\u0000"}', '{"a":[' + "[]," * 100_000 + "1]}"):
        call = {"id": "c", "type": "function", "function": {"name": "t", "arguments": text}}
        said = {"role": "user", "content": "x"}
        chat = {"model": "assistant", "messages": [said, {"role": "assistant", "tool_calls": [call]}, said]}
        item = {"type": "function_call", "call_id": "c", "name": "t", "arguments": text}
        run = {"threadId": uuid.uuid4().hex, "runId": "r", "protocolVersion": "1.0"}
        spoken = [{"id": "a", "role": "assistant", "toolCalls": [call]}, {"id": "b", **said}]
        for path, body in (("/v1/chat/completions", chat), ("/v1/responses", {"model": "assistant", "input": [item]}),
                           ("/ag-ui/echo", {**run, "messages": spoken})):  # fmt: skip
            answer = await service.client.post(path, json=body)
            assert answer.status_code == 400, (path, answer.text)


async def test_odd_parts_are_left_out_or_refused_where_the_protocol_says_so(service: Service) -> None:
    odd = {"id": "u", "role": "user", "content": [{"type": [], "url": "https://example.com"}]}
    given = {"threadId": str(uuid.uuid4()), "runId": "r", "protocolVersion": "1.0", "messages": [odd]}
    assert (await service.client.post("/ag-ui/echo", json=given)).status_code == 200
    body = {"model": "assistant", "input": [{"type": []}]}
    answer = await service.client.post("/v1/responses", json=body, headers={"x-chat-id": "c"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input.0.type")


async def test_odd_parameters_of_a_list_of_tasks_are_refused(service: Service) -> None:
    token = "MjAyNi0wMS0wMVQwMDowMDowMCAwMWEyMDZkMi0wMmM3LTc3MDEtODA5YS01YzFmYjgxZjBmY2I="  # a time without a zone
    for params in ({"statusTimestampAfter": TWENTY}, {"pageToken": token}, {"pageToken": "é"}, {"pageToken": "MQ=="}):
        answer = await service.client.get("/a2a/echo/tasks", params=params)
        assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT"), params


@pytest.mark.parametrize("about", ["x", {"inputId": [], "parts": 5}, {"parts": [{"text": 5}], "contextId": {}}])
async def test_runs_with_odd_metadata_are_shown_on_every_wire(service: Service, about: Any) -> None:
    thread = str(uuid.uuid4())
    metadata = {"a2a": about, "openai": about, "ag_ui_run_id": about, "ag_ui_parent_run_id": about, "protocol": about}
    run = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "x"}]}, "metadata": metadata}
    await service.client.post(f"{API}/threads/{thread}/runs/wait", json={**run, "if_not_exists": "create"})
    (ended,) = (await service.get(f"/threads/{thread}/runs")).json()
    response = f"/v1/responses/resp_{uuid.UUID(ended['run_id']).hex}"
    for path in (f"/a2a/echo/tasks/{ended['run_id']}", "/a2a/echo/tasks?includeArtifacts=true", response,
                 f"{response}/input_items"):  # fmt: skip
        answer = await service.client.get(path)
        assert answer.status_code == 200, (path, answer.text)
    connect = {"threadId": thread, "runId": "r", "messages": []}
    assert (await service.client.post("/copilotkit/agent/echo/connect", json=connect)).status_code == 200


async def test_an_answer_by_another_api_is_an_input_item(service: Service) -> None:
    thread = str(uuid.uuid4())
    run = {"assistant_id": "echo", "input": {"messages": [{"role": "user", "content": "x"}]}}
    await service.client.post(f"{API}/threads/{thread}/runs/wait", json={**run, "if_not_exists": "create"})
    command = {"assistant_id": "echo", "command": {"resume": "yes"}, "strict_resume": False}
    resumed = await service.client.post(f"{API}/threads/{thread}/runs", json=command)
    assert resumed.status_code == 200, resumed.text
    items = await service.client.get(f"/v1/responses/resp_{uuid.UUID(resumed.json()['run_id']).hex}/input_items")
    assert (items.status_code, items.json()["data"]) == (200, [])


def test_odd_messages_of_a_graph_are_shown_or_left_out() -> None:
    assembler = PartAssembler()
    for message in ODD_MESSAGES:
        encoded = msgspec.Raw(msgspec.json.encode(message))
        list(assembler.parts(MessageAdded("agent", 1, encoded)))
        update = msgspec.Raw(msgspec.json.encode({"agent": {"messages": [message]}}))
        list(assembler.parts(StepCommitted(1, "c", update, "agent")))
    assert shown(ODD_MESSAGES)
    assert items_of(ODD_MESSAGES, "agent")

"""OpenAI's own client uses Responses and Conversations unchanged against a real server."""

import functools
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import websockets
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.journeys.conftest import Served

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
"""The streaming events, as OpenAI's own models declare them: the client itself reads them without validation."""

SUM = "what is 12*(3+4)?"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def openai_client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def careful_client(steered: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{steered.port}/v1", api_key="none", max_retries=0) as client:
        yield client


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def types_of(response: Response) -> list[str]:
    return [item.type for item in response.output]


def test_a_response_is_a_run_and_chains_fork_from_any_earlier_one(openai_client: openai.OpenAI, served: Served) -> None:
    create = openai_client.responses.create
    first = create(model="assistant", input=SUM, metadata={"of": "test"}, temperature=0.5)
    assert (first.status, first.error, first.metadata) == ("completed", None, {"of": "test"})
    assert types_of(first) == ["message", "mcp_call", "message"]
    call: Any = first.output[1]
    assert (call.name, json.loads(call.arguments), call.output) == ("calculator", {"expression": "12*(3+4)"}, "84")
    assert "84" in first.output_text
    assert first.usage is not None
    assert first.usage.total_tokens > 0
    assert first.created_at <= (first.completed_at or 0) <= time.time()
    assert openai_client.responses.retrieve(first.id).to_dict() == first.to_dict()
    given = openai_client.responses.input_items.list(first.id).data
    assert [item.to_dict()["content"][0]["text"] for item in given] == [SUM]  # type: ignore[index]

    second = create(model="assistant", input="hello", previous_response_id=first.id)
    fork = create(model="assistant", input="call clock", previous_response_id=first.id)
    assert (second.previous_response_id, fork.previous_response_id) == (first.id, first.id)
    thread = openai_client.responses.with_raw_response.create(
        model="assistant", input="goodbye", previous_response_id=fork.id
    ).headers["x-thread-id"]
    state = httpx.get(f"{served.base}/threads/{thread}/state").json()["values"]["messages"]
    assert [m["content"] for m in state if m["type"] == "human"] == [SUM, "call clock", "goodbye"]
    apart = create(model="assistant", input="hello", previous_response_id=second.id, store=False)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(apart.id)
    openai_client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(second.id)


def test_a_stream_is_numbered_without_holes_and_repeated_byte_by_byte(
    openai_client: openai.OpenAI, served: Served
) -> None:
    url = f"http://127.0.0.1:{served.port}/v1/responses"
    live = httpx.post(url, json={"model": "assistant", "input": SUM, "stream": True}, timeout=60)
    events = events_of(live.text)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert (events[-1]["type"], events[0]["response"]["completed_at"]) == ("response.completed", None)
    assert isinstance(events[-1]["response"]["completed_at"], int)
    for event in events:
        EVENTS.validate_python(event)
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    assert text == "".join(item["content"][0]["text"] for item in done if item["type"] == "message")
    response_id = events[0]["response"]["id"]
    repeated = httpx.get(f"{url}/{response_id}", params={"stream": "true"}, timeout=60)
    assert repeated.content == live.content
    rest = httpx.get(f"{url}/{response_id}", params={"stream": "true", "starting_after": 5}, timeout=60)
    assert events_of(rest.text) == events[6:]
    with openai_client.responses.stream(model="assistant", input=SUM) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == openai_client.responses.retrieve(response_id).output_text
    assert kinds == [event["type"] for event in events]


def test_a_background_response_is_followed_cancelled_and_repeated_by_its_key(openai_client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = openai_client.responses.create(model="assistant", input=SUM, background=True, extra_headers=key)
    assert first.status in {"queued", "in_progress"}
    events = list(openai_client.responses.retrieve(first.id, stream=True))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    ended = openai_client.responses.retrieve(first.id)
    assert (ended.status, ended.background) == ("completed", True)
    repeated = openai_client.responses.create(model="assistant", input=SUM, background=True, extra_headers=key)
    assert repeated.id == first.id
    assert openai_client.responses.cancel(first.id).status == "completed"


def test_a_tool_of_the_client_waits_for_its_output(openai_client: openai.OpenAI, served: Served) -> None:
    create = openai_client.responses.create
    asked = create(model="assistant", input="call weather city=Rome and call clock", tools=[WEATHER])
    assert asked.status == "completed"
    call: Any = next(item for item in asked.output if item.type == "function_call")
    assert (call.name, call.arguments) == ("weather", '{"city":"Rome"}')
    assert any(item.type == "mcp_call" and item.name == "clock" for item in asked.output)
    with pytest.raises(openai.BadRequestError, match="no tool output"):
        create(model="assistant", input="and now?", previous_response_id=asked.id)
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"}]
    answered = create(model="assistant", input=output, previous_response_id=asked.id, tools=[WEATHER])
    assert types_of(answered) == ["message"]
    assert "The tool weather answered: 22 degrees" in answered.output_text
    assert openai_client.responses.input_items.list(answered.id).data[0].to_dict()["output"] == "22 degrees"
    forked = create(model="assistant", input=[*output, {"role": "user", "content": "hello"}],
                    previous_response_id=asked.id)  # fmt: skip
    assert types_of(forked) == ["message"]
    said: Any = [{"role": "user", "content": "call weather city=Rome"}, call.to_dict(), *output]
    stateless = create(model="assistant", input=said, tools=[WEATHER], store=False)
    assert "22 degrees" in stateless.output_text
    with openai_client.responses.stream(
        model="assistant", input="x", tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}
    ) as stream:
        kinds = [event.type for event in stream]
    assert "response.function_call_arguments.delta" in kinds
    assert "response.function_call_arguments.done" in kinds


def test_an_approval_is_asked_once_and_answered_on_any_wire(careful_client: openai.OpenAI, steered: Served) -> None:
    create = careful_client.responses.create
    asked = create(model="careful", input=SUM)
    assert types_of(asked) == ["message", "mcp_approval_request"]
    request: Any = asked.output[1]
    assert (request.name, json.loads(request.arguments)) == ("calculator", {"expression": "12*(3+4)"})
    approval: Any = [{"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}]
    done = create(model="careful", input=approval, previous_response_id=asked.id)
    assert types_of(done) == ["mcp_call", "message"]
    call: Any = done.output[0]
    assert (call.name, call.output, call.approval_request_id) == ("calculator", "84", request.id)
    assert json.loads(call.arguments) == {"expression": "12*(3+4)"}
    (given,) = careful_client.responses.input_items.list(done.id).data
    assert given.to_dict()["approval_request_id"] == request.id
    with pytest.raises(openai.BadRequestError):
        create(model="careful", input=approval, previous_response_id=asked.id)

    conversation = careful_client.conversations.create()
    asked = create(model="careful", input=SUM, conversation=conversation.id)
    thread = uuid.UUID(conversation.id.removeprefix("conv_"))
    body = {"assistant_id": "careful", "command": {"resume": {"action": "reject", "reason": "no"}}}
    httpx.post(f"{steered.base}/threads/{thread}/runs/wait", json=body, timeout=60).raise_for_status()
    request = asked.output[1]
    approval[0]["approval_request_id"] = request.id
    with pytest.raises(openai.BadRequestError):
        create(model="careful", input=approval, conversation=conversation.id)


def test_conversations_hold_the_items_of_their_responses(openai_client: openai.OpenAI, served: Served) -> None:
    first: Any = {"type": "message", "role": "user", "content": "My name is Ann."}
    conversation = openai_client.conversations.create(items=[first], metadata={"a": "b"})
    assert conversation.metadata == {"a": "b"}
    response = openai_client.responses.create(model="assistant", input=SUM, conversation=conversation.id)
    assert response.conversation is not None
    assert response.conversation.id == conversation.id
    items = openai_client.conversations.items
    listed = list(items.list(conversation.id, order="asc", limit=2))
    assert [item.type for item in listed] == ["message", "message", "message", "mcp_call", "message"]
    assert [item.id for item in listed[2:]] == [item.id for item in response.output]
    added = items.create(conversation.id, items=[{"type": "message", "role": "user", "content": "hello"}])
    (new,) = added.data
    assert items.retrieve(new.id or "", conversation_id=conversation.id).to_dict() == new.to_dict()
    call = next(item for item in listed if item.type == "mcp_call")
    items.delete(call.id, conversation_id=conversation.id)
    assert call.id not in [item.id for item in items.list(conversation.id)]
    openai_client.conversations.update(conversation.id, metadata={"c": "d"})
    assert openai_client.conversations.retrieve(conversation.id).metadata == {"c": "d"}
    thread = uuid.UUID(conversation.id.removeprefix("conv_"))
    types = [m["type"] for m in httpx.get(f"{served.base}/threads/{thread}/state").json()["values"]["messages"]]
    assert types == ["human", "human", "ai", "ai", "human"]
    assert openai_client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        openai_client.conversations.retrieve(conversation.id)


def test_bad_requests_get_openais_errors(openai_client: openai.OpenAI) -> None:
    create: Any = openai_client.responses.create
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        create(model="no-such-agent", input="x")
    for wrong, param in (
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input.0.content.0.file_id",
        ),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "previous_response_id": "resp_1", "conversation": "conv_1"}, "previous_response_id"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": "x", "tool_choice": "maybe"}, "tool_choice"),
        ({"input": "x", "background": True, "store": False}, "background"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            create(model="assistant", **wrong)
        assert refused.value.param == param, wrong
    with pytest.raises(openai.NotFoundError):
        create(model="assistant", input="x", conversation=f"conv_{uuid.uuid4().hex}")


def test_an_answer_fits_the_schema_that_the_request_asks_for(openai_client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    text: Any = {"format": {"type": "json_schema", "name": "count", "schema": schema, "strict": True}}
    response = openai_client.responses.create(model="assistant", input="hello", text=text)
    assert json.loads(response.output_text) == {"n": 1}
    assert response.to_dict()["text"] == text
    text["format"]["schema"] = {"type": "object", "minProperties": 3}
    failed = openai_client.responses.create(model="assistant", input="hello", text=text)
    assert failed.status == "failed"
    assert failed.error is not None
    assert "does not fit the schema" in failed.error.message
    nested = {f"n{i}": {"anyOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(20)}
    costly: dict[str, Any] = {"$ref": "#/$defs/n0", "$defs": {**nested, "n20": {"type": "null"}}}
    for wrong, words in (({"$ref": "file:///etc/passwd"}, "refers to nothing"), (costly, "too long to check")):
        text["format"]["schema"] = wrong
        with pytest.raises(openai.BadRequestError, match=f"not a JSON Schema that can be used: .*{words}"):
            openai_client.responses.create(model="assistant", input="hello", text=text)


def test_input_tokens_are_estimated_with_the_earlier_messages(openai_client: openai.OpenAI) -> None:
    count = openai_client.responses.input_tokens.count
    alone = count(model="assistant", input="hello").input_tokens
    first = openai_client.responses.create(model="assistant", input=SUM)
    assert 0 < alone < count(model="assistant", input="hello", previous_response_id=first.id).input_tokens


async def turn(socket: Any, **body: Any) -> dict[str, Any]:
    """Send one ``response.create`` and return its last event."""
    await socket.send(json.dumps({"type": "response.create", "model": "assistant", **body}))
    while True:
        event: dict[str, Any] = json.loads(await socket.recv())
        if event["type"] == "error":
            return event
        EVENTS.validate_python(event)
        if event["type"].removeprefix("response.") in {"completed", "failed", "incomplete"}:
            return event


async def test_a_connection_continues_what_is_not_stored_until_a_turn_fails(served: Served) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{served.port}/v1/responses") as socket:
        first = (await turn(socket, input=SUM, store=False))["response"]
        assert "84" in first["output"][-1]["content"][0]["text"]
        second = (await turn(socket, input="hello", store=False, previous_response_id=first["id"]))["response"]
        assert second["previous_response_id"] == first["id"]
        answer = {"type": "function_call_output", "call_id": "none", "output": "x"}
        for given, code in (([answer], "invalid_request_error"), ("again", "previous_response_not_found")):
            refused = await turn(socket, input=given, store=False, previous_response_id=second["id"])
            assert (refused["status"], refused["error"]["code"]) == (400, code)
        stored = (await turn(socket, input="hello"))["response"]
        assert (await turn(socket, input="more", previous_response_id=stored["id"]))["response"][
            "status"
        ] == "completed"
        assert (await turn(socket, stream=True))["error"]["param"] == "stream"
        await socket.send("[]")
        assert json.loads(await socket.recv())["error"]["type"] == "invalid_request_error"


def test_a_compaction_begins_the_next_request(openai_client: openai.OpenAI) -> None:
    said: Any = [{"type": "message", "role": "user", "content": "Ship on Tuesday."}]
    compacted = openai_client.responses.compact(model="assistant", input=said)
    (item,) = compacted.output
    assert (compacted.object, item.type) == ("response.compaction", "compaction")
    sent: Any = [item.to_dict(), {"type": "message", "role": "user", "content": "hello"}]
    assert openai_client.responses.create(model="assistant", input=sent).status == "completed"
    sent[0]["encrypted_content"] = "of another server"
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.responses.create(model="assistant", input=sent)
    assert refused.value.param == "input.0.encrypted_content"


def test_a_repeated_compaction_with_a_key_is_the_first(openai_client: openai.OpenAI) -> None:
    compact: Any = functools.partial(
        openai_client.responses.compact, model="assistant", extra_headers={"Idempotency-Key": uuid.uuid4().hex}
    )
    first = compact(input="Ship on Tuesday.")
    assert compact(input="Ship on Tuesday.").to_dict() == first.to_dict()
    with pytest.raises(openai.APIStatusError, match="another body"):
        compact(input="Ship on Monday.")


def test_a_repeated_response_with_a_key_is_the_first_though_it_is_not_stored(openai_client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first, again = (
        openai_client.responses.create(model="assistant", input=SUM, store=False, extra_headers=key) for _ in range(2)
    )
    assert again.to_dict() == first.to_dict()


def test_a_repeated_request_about_a_conversation_with_its_key_is_the_first(openai_client: openai.OpenAI) -> None:
    said: Any = {"type": "message", "role": "user", "content": "My name is Ann."}
    conversations, key = openai_client.conversations, {"Idempotency-Key": uuid.uuid4().hex}
    first = conversations.create(items=[said], extra_headers=key)
    assert conversations.create(items=[said], extra_headers=key) == first
    added = conversations.items.create(first.id, items=[said, said], extra_headers=key)
    assert len(added.data) == 2
    assert conversations.items.create(first.id, items=[said, said], extra_headers=key) == added
    assert len(list(conversations.items.list(first.id))) == 3
    with pytest.raises(openai.BadRequestError):
        conversations.items.create(first.id, items=[said], extra_headers=key)


def test_what_has_no_effect_is_named(openai_client: openai.OpenAI) -> None:
    response = openai_client.responses.with_raw_response.create(
        model="assistant", input="hello", truncation="auto", include=["reasoning.encrypted_content"], temperature=0.5
    )
    assert response.headers["x-ignored-parameters"] == "temperature, truncation, include"
    functions: Any = {"functions": [{"name": "f"}], "function_call": "auto"}
    chat = openai_client.chat.completions.with_raw_response.create(
        model="assistant", messages=[{"role": "user", "content": "hello"}], store=True, metadata={"a": "b"}, user="u",
        extra_body=functions,
    )  # fmt: skip
    assert chat.headers["x-ignored-parameters"] == "functions, function_call, store, metadata, user"

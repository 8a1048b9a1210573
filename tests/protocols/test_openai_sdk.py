"""OpenAI's own client works unchanged against a real server."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from app.domain.events import Ended, MessageDelta, Retracted, RunStarted
from app.protocols.openai.chat import ChatCollector
from tests.journeys.conftest import Served

SUM: list[ChatCompletionMessageParam] = [{"role": "user", "content": "what is 12*(3+4)?"}]


TASK = "### Task:\nGenerate a title.\n### Chat History:\n<chat_history>\nwhat is 12*(3+4)?\n</chat_history>"


@pytest.fixture
def openai_client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_agents_are_models(openai_client: openai.OpenAI) -> None:
    listed = {model.id: model for model in openai_client.models.list()}
    assert openai_client.models.retrieve("assistant") == listed["assistant"]
    for unknown in ("no-such-agent", str(uuid.uuid4())):
        with pytest.raises(openai.NotFoundError) as missing:
            openai_client.models.retrieve(unknown)
        assert missing.value.code == "model_not_found"


def test_a_completion_is_the_answer_of_a_run_with_its_usage(openai_client: openai.OpenAI) -> None:
    completion = openai_client.chat.completions.create(model="assistant", messages=SUM)
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    assert "84" in (choice.message.content or "")
    assert completion.usage is not None
    assert completion.usage.total_tokens > 0


def test_a_stream_says_the_same_in_chunks(openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="assistant", messages=SUM, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = openai_client.chat.completions.create(model="assistant", messages=SUM)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_id_continues_a_thread_that_other_clients_see(openai_client: openai.OpenAI, served: Served) -> None:
    chat = {"X-OpenWebUI-Chat-Id": f"chat-{uuid.uuid4()}"}
    first = openai_client.chat.completions.with_raw_response.create(model="assistant", messages=SUM, extra_headers=chat)
    answer = first.parse().choices[0].message.content
    again: list[ChatCompletionMessageParam] = [
        *SUM,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "hello"},
    ]
    openai_client.chat.completions.create(model="assistant", messages=again, extra_headers=chat)
    values = httpx.get(f"{served.base}/threads/{first.headers['x-thread-id']}/state").json()["values"]
    assert [m["content"] for m in values["messages"] if m["type"] == "human"] == ["what is 12*(3+4)?", "hello"]


def test_errors_have_openais_shape(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.chat.completions.create(model="no-such-agent", messages=SUM)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        openai_client.chat.completions.create(model="assistant", messages=[])
    assert bad.value.param == "messages"
    known: list[ChatCompletionMessageParam] = [*SUM, {"role": "assistant", "content": "84"}]
    with pytest.raises(openai.BadRequestError, match="nothing new"):
        openai_client.chat.completions.create(
            model="assistant", messages=known, extra_headers={"X-Chat-Id": f"chat-{uuid.uuid4()}"}
        )


def test_a_completion_has_nothing_that_a_dead_owner_streamed_and_lost() -> None:
    collector = ChatCollector("chatcmpl-1", "assistant", 0)
    for event in (
        RunStarted("r", 1),
        MessageDelta(message_id="lost", node="agent", step=0, text="", reasoning="Hm"),
        MessageDelta(message_id="lost", node="agent", step=0, text="Hel"),
        RunStarted("r", 2),
        Retracted(["lost"], 0),
        MessageDelta(message_id="kept", node="agent", step=0, text="Hel"),
        MessageDelta(message_id="other", node="agent", step=0, text="Good"),
        MessageDelta(message_id="kept", node="agent", step=0, text="lo", last=True),
        MessageDelta(message_id="other", node="agent", step=0, text="bye", last=True),
        Ended("r", "success"),
    ):
        collector.add(event)
    _, body = collector.completion()
    message = body["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hello\n\nGoodbye", "refusal": None}


def test_an_idempotency_key_finds_the_run_of_its_chat_again(openai_client: openai.OpenAI) -> None:
    def completed(chat: str, key: str) -> str:
        headers = {"X-Chat-Id": chat, "Idempotency-Key": key}
        create = openai_client.chat.completions.with_raw_response.create
        return create(model="assistant", messages=SUM, extra_headers=headers).headers["x-run-id"]

    key, chat = uuid.uuid4().hex, f"chat-{uuid.uuid4()}"
    first = completed(chat, key)
    assert completed(chat, key) == first
    assert completed(f"chat-{uuid.uuid4()}", key) != first


WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("chat", [{}, {"X-Chat-Id": f"chat-{uuid.uuid4()}"}])
def test_a_tool_of_the_client_is_called_by_the_model_and_its_result_continues(
    openai_client: openai.OpenAI, served: Served, chat: dict[str, str]
) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "call weather city=Rome"}]
    create = openai_client.chat.completions.with_raw_response.create
    first = create(model="assistant", messages=messages, tools=[WEATHER], seed=7, extra_headers=chat)
    assert first.headers["x-ignored-parameters"] == "seed"
    choice = first.parse().choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Rome"}')
    if chat:
        thread = httpx.get(f"{served.base}/threads/{first.headers['x-thread-id']}").json()
        assert thread["status"] == "interrupted"
    answer: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}
    said: Any = choice.message.to_dict()
    second = create(model="assistant", messages=[*messages, said, answer], tools=[WEATHER], extra_headers=chat)
    assert "The tool weather answered: 22 degrees" in str(second.parse().choices[0].message.content)
    if chat:
        thread = httpx.get(f"{served.base}/threads/{first.headers['x-thread-id']}").json()
        assert (thread["status"], thread["interrupts"]) == ("idle", {})
        assert [m["type"] for m in thread["values"]["messages"]] == ["human", "ai", "tool", "ai"]


def test_a_stream_has_the_calls_of_the_clients_tools_and_the_choice_is_enforced(openai_client: openai.OpenAI) -> None:
    chunks = list(
        openai_client.chat.completions.create(
            model="assistant", messages=SUM, tools=[WEATHER], stream=True,
            tool_choice={"type": "function", "function": {"name": "weather"}},
        )
    )  # fmt: skip
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function is not None
    assert (calls[0].index, calls[0].function.name) == (0, "weather")
    assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"city":"text"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    none = openai_client.chat.completions.create(model="assistant", messages=SUM, tools=[WEATHER], tool_choice="none")
    assert none.choices[0].finish_reason == "stop"
    own: Any = {"type": "function", "function": {"name": "calculator"}}
    with pytest.raises(openai.BadRequestError, match="tool of agent") as clash:
        openai_client.chat.completions.create(model="assistant", messages=SUM, tools=[own])
    assert clash.value.param == "tools.0.name"


def test_tasks_of_chat_uis_call_no_tool_and_leave_no_thread(openai_client: openai.OpenAI, served: Served) -> None:
    task: list[ChatCompletionMessageParam] = [{"role": "user", "content": TASK}]
    chat = {"X-OpenWebUI-Chat-Id": f"chat-{uuid.uuid4()}"}
    create = openai_client.chat.completions.with_raw_response.create
    answer = create(model="assistant", messages=task, extra_headers=chat)
    assert "I call" not in str(answer.parse().choices[0].message.content)
    made = httpx.post(f"{served.base}/assistants", json={"graph_id": "assistant"}).json()["assistant_id"]
    by_id = create(model=made, messages=task, extra_headers=chat)
    assert "I call" not in str(by_id.parse().choices[0].message.content)
    responses = openai_client.responses.with_raw_response.create
    response = responses(model="assistant", input=TASK, extra_headers=chat)
    assert "I call" not in response.parse().output_text
    named = create(model="assistant", messages=SUM, extra_headers={**chat, "X-OpenWebUI-Task": "title_generation"})
    assert "I call" not in str(named.parse().choices[0].message.content)
    documents: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "### Task:\nRespond to the user query.\n<context></context>\nwhat is 12*(3+4)?"}
    ]
    other = {"X-Chat-Id": str(uuid.uuid4())}
    question = create(model="assistant", messages=documents, extra_headers=other)
    assert "I call" in str(question.parse().choices[0].message.content)
    assert question.headers["x-thread-id"] == other["X-Chat-Id"]
    thread = create(model="assistant", messages=SUM, extra_headers=chat).headers["x-thread-id"]
    values = httpx.get(f"{served.base}/threads/{thread}/state").json()["values"]
    assert [m["content"] for m in values["messages"] if m["type"] == "human"] == ["what is 12*(3+4)?"]

"""The Chat Completions API: request bodies, and deviations of compatible servers."""

import json
from typing import Any

import pytest

from app.base.errors import ModelRejected
from app.domain.messages import (
    AIMessage,
    HumanMessage,
    InvalidToolCall,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Usage,
)
from app.providers.llm.adapters.http_client import HttpClient
from app.providers.llm.adapters.openai_request import body_of, messages_of
from app.providers.llm.billing import ESTIMATED
from app.providers.llm.port import ModelRequest, ToolCallDelta
from app.providers.llm.profiles import OPENAI_URL, OpenAIProfile, openai_profile
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault, Replay
from tests.llm.recording import CLOCK, adapter, ask, endpoint, record_events, recorded_stream
from tests.llm.wires import OPENAI, closing, opening

PNG = "iVBORw0KGgo="
SHOWN = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


async def replay(provider: FakeProvider, http: HttpClient, name: str) -> Any:
    provider.plan(Replay(data=recorded_stream(name)))
    return await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)))


async def test_calls_without_index_or_id_and_with_object_arguments_are_parsed(
    provider: FakeProvider, http: HttpClient
) -> None:
    recording = await replay(provider, http, "calls_whole")
    assert [(name, json.loads(args)) for _, name, args in recording.calls] == [
        ("clock", {"zone": "UTC"}),
        ("calculator", {"expression": "1+1"}),
    ]
    assert len({identity for identity, _, _ in recording.calls}) == 2
    assert recording.finished.reason == "tool_calls"
    usage = recording.finished.usage
    assert usage is not None
    assert usage.input_token_details == {ESTIMATED: usage.input_tokens}, "the server reports no usage"


async def test_calls_with_the_same_index_are_distinguished_by_their_ids(
    provider: FakeProvider, http: HttpClient
) -> None:
    """The answer also ends without [DONE] and has lines ended by CR LF."""
    recording = await replay(provider, http, "calls_at_one_index")
    assert recording.calls == [("function-call-11", "clock", '{"zone":"UTC"}'), ("function-call-12", "notes", "{}")]
    assert recording.finished.usage == Usage(60, 20, 80)


async def test_a_call_with_a_late_name_starts_with_its_name(provider: FakeProvider, http: HttpClient) -> None:
    recording = await replay(provider, http, "calls_named_late")
    first = next(event for event in recording.events if isinstance(event, ToolCallDelta))
    assert first == ToolCallDelta(0, "chatcmpl-tool-9a", "calculator", '{"expression":')
    assert recording.calls == [("chatcmpl-tool-9a", "calculator", '{"expression":"2**5"}')]
    assert recording.text == "Let me look."


async def test_reasoning_tokens_are_a_detail_of_the_output(provider: FakeProvider, http: HttpClient) -> None:
    recording = await replay(provider, http, "reasoning_content")
    assert recording.finished.usage == Usage(21, 30, 51, {}, {"reasoning": 18})


@pytest.mark.parametrize(
    "said, reason",
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("pause\x1b!", "pause !")],
)
async def test_the_reason_is_one_of_ours_or_the_providers_own_printable_word(
    provider: FakeProvider, http: HttpClient, said: str, reason: str
) -> None:
    provider.plan(Replay(data=opening(OPENAI) + closing(OPENAI, said)))
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)))
    assert recording.finished.reason == reason


async def test_invalid_token_counts_are_replaced_by_estimates(provider: FakeProvider, http: HttpClient) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":null}}\n\n'
    provider.plan(Replay(data=opening(OPENAI) + usage + closing(OPENAI).replace(b'"usage"', b'"no_usage"')))
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)))
    estimated = recording.finished.usage
    assert estimated is not None
    assert (estimated.output_tokens, estimated.input_token_details) == (0, {ESTIMATED: estimated.input_tokens})
    assert estimated.input_tokens > 0


async def test_a_rejected_parameter_is_omitted_from_then_on(provider: FakeProvider, http: HttpClient) -> None:
    provider.refused_fields = {"stream_options", "max_tokens", "temperature"}
    model = adapter(OPENAI, http, endpoint(provider, OPENAI))
    recording = await record_events(model, ask(max_tokens=50, temperature=0.5))
    assert recording.text == "Hello there"
    assert len(provider.requests) == 4
    await record_events(model, ask(max_tokens=50, temperature=0.5))
    assert len(provider.requests) == 5
    last = provider.requests[-1].body
    assert last["max_completion_tokens"] == 50
    assert not {"stream_options", "max_tokens", "temperature"} & last.keys()


async def test_a_server_that_rejects_every_form_of_a_parameter_is_not_retried_forever(
    provider: FakeProvider, http: HttpClient
) -> None:
    provider.refused_fields = {"max_tokens", "max_completion_tokens"}
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)), ask(max_tokens=50))
    assert type(recording.error) is ModelRejected
    assert len(provider.requests) == 4


async def test_other_rejections_are_not_retried(provider: FakeProvider, http: HttpClient) -> None:
    provider.plan(Fault.BAD_REQUEST)
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI)), ask(max_tokens=50))
    assert type(recording.error) is ModelRejected
    assert len(provider.requests) == 1


async def test_auto_selects_the_first_listed_chat_model(provider: FakeProvider, http: HttpClient) -> None:
    model = adapter(OPENAI, http, endpoint(provider, OPENAI), "auto")
    recording = await record_events(model)
    assert recording.finished.model == "tiny-chat"
    assert provider.requests[-1].body["model"] == "tiny-chat"
    await record_events(model)
    assert [asked.path for asked in provider.requests].count("/v1/models") == 1


async def test_auto_prefers_openais_default_model_if_listed(provider: FakeProvider, http: HttpClient) -> None:
    provider.models.append("gpt-5-mini")
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI), "auto"))
    assert recording.finished.model == "gpt-5-mini"


async def test_a_server_without_a_chat_model_is_an_error(provider: FakeProvider, http: HttpClient) -> None:
    provider.models = ["text-embed-1"]
    recording = await record_events(adapter(OPENAI, http, endpoint(provider, OPENAI), "auto"))
    assert type(recording.error) is ModelRejected
    assert str(recording.error) == "openai lists no chat model"


async def test_settings_without_a_json_form_are_a_rejected_request(provider: FakeProvider, http: HttpClient) -> None:
    recording = await record_events(
        adapter(OPENAI, http, endpoint(provider, OPENAI)), ask(model_settings={"seed": object()})
    )
    assert type(recording.error) is ModelRejected
    assert provider.requests == []


def test_the_request_body_has_all_settings() -> None:
    request = ask("hi", instructions="Be brief.", tools=[CLOCK], max_tokens=9, model_settings={"seed": 1, "n": 3})
    assert body_of("m", request, OpenAIProfile()) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {"name": "clock", "description": "Tell the time.", "parameters": CLOCK.parameters},
            }
        ],
        "max_tokens": 9,
        "seed": 1,
        "n": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_settings_cannot_replace_the_conversation() -> None:
    body = body_of("m", ask("hi", model_settings={"messages": [], "model": "x", "stream": False}), OpenAIProfile())
    assert (body["model"], body["stream"], len(body["messages"])) == ("m", True, 1)


def test_a_conversation_with_tools_keeps_calls_and_answers_together() -> None:
    conversation: list[Message] = [
        SystemMessage(content="Be kind."),
        HumanMessage(content="time?"),
        AIMessage(
            content="",
            tool_calls=[ToolCall("clock", {"zone": "UTC"}, "a")],
            invalid_tool_calls=[InvalidToolCall("clock", "{zone", "b", "no JSON object")],
        ),
        ToolMessage(content="noon", tool_call_id="a"),
        ToolMessage(content=[{"type": "text", "text": "error"}], tool_call_id="b", status="error"),
        AIMessage(content=[{"type": "text", "text": "It is noon."}, {"type": "thinking", "thinking": "…"}]),
    ]
    assert messages_of("", conversation) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "time?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"UTC"}'}},
                {
                    "id": "b",
                    "type": "function",
                    "function": {"name": "clock", "arguments": '{"invalid_arguments":"{zone"}'},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
        {"role": "tool", "tool_call_id": "b", "content": "error"},
        {"role": "assistant", "content": "It is noon."},
    ]


@pytest.mark.parametrize(
    "block",
    [
        SHOWN,
        {"type": "image_url", "image_url": SHOWN["image_url"]["url"]},  # type: ignore[index]
        {"type": "image", "source_type": "base64", "mime_type": "image/png", "data": PNG},
        {"type": "image", "base64": PNG, "mime_type": "image/png"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ],
)
def test_images_are_converted_to_the_apis_format(block: dict[str, Any]) -> None:
    message = HumanMessage(content=[{"type": "text", "text": "what is it?", "id": "x"}, block])
    assert messages_of("", [message])[0]["content"] == [{"type": "text", "text": "what is it?"}, SHOWN]


def test_an_images_address_and_detail_pass_through() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "image", "source_type": "url", "url": "https://example.org/a.png"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    assert messages_of("", [HumanMessage(content=blocks)])[0]["content"] == [
        blocks[0],
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        blocks[2],
    ]


def test_images_of_tool_answers_follow_in_a_user_message() -> None:
    picture = ToolMessage(content=[{"type": "text", "text": "a map"}, SHOWN], tool_call_id="a")
    turns = messages_of("", [picture, ToolMessage(content="noon", tool_call_id="b"), HumanMessage(content="ah")])
    assert [turn["role"] for turn in turns] == ["tool", "tool", "user", "user"]
    assert turns[0]["content"] == "a map"
    assert turns[2]["content"] == [SHOWN]


@pytest.mark.parametrize(
    "url, model, limit, temperature",
    [
        (OPENAI_URL, "gpt-5-mini", "max_completion_tokens", False),
        (OPENAI_URL, "o3", "max_completion_tokens", False),
        (OPENAI_URL, "gpt-5-chat-latest", "max_completion_tokens", True),
        (OPENAI_URL, "gpt-4.1", "max_completion_tokens", True),
        ("http://localhost:11434/v1", "gpt-5-mini", "max_tokens", True),
    ],
)
def test_each_model_gets_its_supported_parameters(url: str, model: str, limit: str, temperature: bool) -> None:
    request = ModelRequest(messages=[], max_tokens=5, temperature=0.1)
    body = body_of(model, request, openai_profile(url, model))
    assert body[limit] == 5
    assert ("temperature" in body) is temperature

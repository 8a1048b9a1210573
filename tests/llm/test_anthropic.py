"""Anthropic's Messages API: request bodies, and parsing of answers."""

from typing import Any

import pytest

from app.base.errors import ModelProtocol
from app.domain.messages import AIMessage, HumanMessage, InvalidToolCall, SystemMessage, ToolCall, ToolMessage, Usage
from app.providers.llm.adapters.anthropic_request import body_of, turns_of
from app.providers.llm.adapters.http_client import HttpClient
from app.providers.llm.profiles import anthropic_profile
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Replay
from tests.llm.recording import CLOCK, adapter, ask, endpoint, record_events, recorded_stream
from tests.llm.wires import ANTHROPIC, closing, opening

PNG = "iVBORw0KGgo="
SHOWN = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


async def test_unknown_events_and_blocks_are_skipped(provider: FakeProvider, http: HttpClient) -> None:
    provider.plan(Replay(data=recorded_stream("anthropic_unknown_kinds")))
    recording = await record_events(adapter(ANTHROPIC, http, endpoint(provider, ANTHROPIC)))
    assert recording.text == "High tide is at noon."
    assert recording.calls == [("toolu_01C", "clock", "{}")]
    assert recording.finished.usage == Usage(9, 31, 40)


async def test_a_call_that_a_gateway_sends_whole_is_parsed(provider: FakeProvider, http: HttpClient) -> None:
    block = b'{"type":"tool_use","id":"t","name":"clock","input":{"zone":"UTC"}}'
    start = b'data: {"type":"content_block_start","index":0,"content_block":' + block + b"}\n\n"
    provider.plan(Replay(data=opening(ANTHROPIC) + start + closing(ANTHROPIC, "tool_use")))
    recording = await record_events(adapter(ANTHROPIC, http, endpoint(provider, ANTHROPIC)))
    assert recording.calls == [("t", "clock", '{"zone":"UTC"}')]


async def test_two_calls_with_one_index_are_an_invalid_answer(provider: FakeProvider, http: HttpClient) -> None:
    block = b'{"type":"tool_use","id":"t","name":"clock","input":{}}'
    start = b'data: {"type":"content_block_start","index":0,"content_block":' + block + b"}\n\n"
    provider.plan(Replay(data=opening(ANTHROPIC) + start + start + closing(ANTHROPIC, "tool_use")))
    recording = await record_events(adapter(ANTHROPIC, http, endpoint(provider, ANTHROPIC)))
    assert type(recording.error) is ModelProtocol


@pytest.mark.parametrize(
    "said, reason",
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
async def test_the_reason_is_one_of_ours_or_the_providers_own_word(
    provider: FakeProvider, http: HttpClient, said: str, reason: str
) -> None:
    provider.plan(Replay(data=opening(ANTHROPIC) + closing(ANTHROPIC, said)))
    recording = await record_events(adapter(ANTHROPIC, http, endpoint(provider, ANTHROPIC)))
    assert recording.finished.reason == reason


async def test_models_are_listed(provider: FakeProvider, http: HttpClient) -> None:
    model = adapter(ANTHROPIC, http, endpoint(provider, ANTHROPIC))
    assert await model.list_models() == ["text-embed-1", "tiny-chat", "large-chat"]


def test_the_request_body_has_all_settings() -> None:
    request = ask("hi", instructions="Be brief.", tools=[CLOCK], temperature=0.2, model_settings={"top_k": 3})
    assert body_of("claude-sonnet-4-5", request, anthropic_profile("claude-sonnet-4-5")) == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [{"name": "clock", "description": "Tell the time.", "input_schema": CLOCK.parameters}],
        "temperature": 0.2,
        "top_k": 3,
        "stream": True,
    }


@pytest.mark.parametrize(
    "model, max_tokens", [("claude-3-haiku", 4096), ("claude-3-5-haiku-latest", 8192), ("claude-opus-4-1", 32_000)]
)
def test_each_model_gets_a_supported_token_limit(model: str, max_tokens: int) -> None:
    assert body_of(model, ask(), anthropic_profile(model))["max_tokens"] == max_tokens
    assert body_of(model, ask(max_tokens=7), anthropic_profile(model))["max_tokens"] == 7


def test_system_messages_join_the_instructions() -> None:
    request = ask("hi", instructions="Be brief.")
    assert isinstance(request.messages, list)
    request.messages.insert(0, SystemMessage(content="Be kind."))
    body = body_of("m", request, anthropic_profile("m"))
    assert body["system"] == "Be brief.\n\nBe kind."
    assert len(body["messages"]) == 1


def test_consecutive_messages_of_one_role_are_merged_and_tools_answer_as_user() -> None:
    turns = turns_of(
        [
            HumanMessage(content="time?"),
            HumanMessage(content="and the date?"),
            AIMessage(
                content=[{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "a"}],
                tool_calls=[ToolCall("clock", {"zone": "UTC"}, "a")],
                invalid_tool_calls=[InvalidToolCall("clock", "{zone", "b", "no JSON object")],
            ),
            ToolMessage(content="noon", tool_call_id="a"),
            ToolMessage(content="broken", tool_call_id="b", status="error"),
            HumanMessage(content="thanks"),
            AIMessage(content=""),
        ]
    )
    assert turns == [
        {"role": "user", "content": [{"type": "text", "text": "time?"}, {"type": "text", "text": "and the date?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "clock", "input": {"zone": "UTC"}},
                {"type": "tool_use", "id": "b", "name": "clock", "input": {"invalid_arguments": "{zone"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "noon"}]},
                {
                    "type": "tool_result",
                    "tool_use_id": "b",
                    "content": [{"type": "text", "text": "broken"}],
                    "is_error": True,
                },
                {"type": "text", "text": "thanks"},
            ],
        },
    ]


@pytest.mark.parametrize(
    "block",
    [
        SHOWN,
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{PNG}"},
        {"type": "image", "source_type": "base64", "mime_type": "image/png", "data": PNG},
        {"type": "image", "base64": PNG, "mime_type": "image/png"},
    ],
)
def test_images_are_converted_to_the_apis_format(block: dict[str, Any]) -> None:
    said = HumanMessage(content=[{"type": "text", "text": "what is it?"}, block])
    answered = ToolMessage(content=[block], tool_call_id="a")
    content = turns_of([said, answered])[0]["content"]
    assert content[:2] == [{"type": "text", "text": "what is it?"}, SHOWN]
    assert content[2]["content"] == [SHOWN]


def test_image_urls_and_other_blocks_pass_through() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}, "index": 0},
    ]
    assert turns_of([HumanMessage(content=blocks)])[0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        blocks[1],
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
    ]

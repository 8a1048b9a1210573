"""Conformance suite of the model port, for recorded streams of every vendor and for the scripted double."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import msgspec
import pytest

from app.base.errors import ModelUnavailable
from app.domain.messages import ToolCall, Usage
from app.providers.llm.adapters.http_client import HttpClient
from app.providers.llm.port import Finished, Model, ReasoningDelta, TextDelta, ToolCallDelta
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault, Replay
from tests.llm.recording import HTTP_VENDORS, adapter, ask, endpoint, record_events, recorded_stream
from tests.llm.scripted_model import ScriptedModel, ScriptTurn
from tests.llm.wires import Say

HARBOUR = "The harbour café opens at 8:30 — bring a ☂️."
PLACE, SUM = {"zone": "Europe/Lisbon"}, {"expression": "12*(3+4)"}

SCRIPTS: dict[str, ScriptTurn] = {
    "text": [
        "The harbour café opens",
        " at 8:30 — bring a ☂️.",
        Finished(reason="stop", model="tiny-chat", vendor="scripted", usage=Usage(412, 14, 426, {"cache_read": 400})),
    ],
    "tools": ["I look at both.", ToolCall("clock", PLACE, "a"), ToolCall("calculator", SUM, "b")],
    "thinking": [ReasoningDelta("Seven is prime, nine is not."), "7 is the one."],
}
RECORDED = {
    ("openai", "text"): "openai_text",
    ("openai", "tools"): "openai_tools",
    ("openai", "thinking"): "reasoning_content",
    ("anthropic", "text"): "anthropic_text",
    ("anthropic", "tools"): "anthropic_tools",
    ("anthropic", "thinking"): "anthropic_thinking",
}

Cast = Callable[..., Model]


@pytest.fixture(params=["openai", "anthropic", "scripted"])
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def play(vendor: str, provider: FakeProvider, patient_http: HttpClient) -> Cast:
    """Build a model that gives the named answer; ``piece``: size of the network chunks in bytes."""

    def cast_it(name: str, piece: int | None = None) -> Model:
        if vendor == "scripted":
            return ScriptedModel([SCRIPTS[name]], name="tiny-chat")
        provider.plan(Replay(data=recorded_stream(RECORDED[vendor, name]), piece=piece))
        return adapter(vendor, patient_http, endpoint(provider, vendor))

    return cast_it


@pytest.mark.parametrize("piece", [None, 1, 7, 64])
async def test_text_arrives_whole_however_the_network_splits_it(play: Cast, piece: int | None) -> None:
    recording = await record_events(play("text", piece))
    assert recording.finished.reason == "stop"
    assert recording.text == HARBOUR


async def test_usage_counts_cached_input_as_input(play: Cast) -> None:
    usage = (await record_events(play("text"))).finished.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (412, 14, 426)
    assert usage.input_token_details["cache_read"] in {384, 400}


@pytest.mark.parametrize("piece", [None, 5])
async def test_parallel_calls_keep_their_order_and_their_own_arguments(play: Cast, piece: int | None) -> None:
    recording = await record_events(play("tools", piece))
    assert [(name, json.loads(args)) for _, name, args in recording.calls] == [("clock", PLACE), ("calculator", SUM)]
    assert len({identity for identity, _, _ in recording.calls}) == 2
    assert recording.finished.reason == "tool_calls"


async def test_the_first_piece_of_a_call_names_it_and_indexes_are_dense(play: Cast) -> None:
    seen: list[int] = []
    for event in (await record_events(play("tools"))).events:
        if isinstance(event, ToolCallDelta) and event.index not in seen:
            assert event.id
            assert event.name
            seen.append(event.index)
    assert seen == [0, 1]


async def test_reasoning_is_separate_from_the_answer(play: Cast) -> None:
    recording = await record_events(play("thinking"))
    assert (recording.reasoning.rstrip("."), recording.text) == ("Seven is prime, nine is not", "7 is the one.")


@pytest.mark.parametrize("name", ["text", "tools", "thinking"])
async def test_only_the_last_event_is_finished_and_names_the_model(play: Cast, vendor: str, name: str) -> None:
    recording = await record_events(play(name))
    assert [isinstance(event, Finished) for event in recording.events].count(True) == 1
    assert (recording.finished.vendor, recording.finished.model) == (vendor, "tiny-chat")


@pytest.mark.parametrize("name", ["text", "tools", "thinking"])
async def test_no_piece_of_text_or_reasoning_is_empty(play: Cast, name: str) -> None:
    for event in (await record_events(play(name))).events:
        if isinstance(event, TextDelta | ReasoningDelta):
            assert event.text


async def test_events_can_be_stored_and_read_back(play: Cast) -> None:
    for event in (await record_events(play("tools"))).events:
        assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event


async def test_an_answer_can_be_left_early(play: Cast) -> None:
    recording = await record_events(play("text"), limit=1)
    assert len(recording.events) == 1


async def test_a_failure_is_a_typed_error(vendor: str, provider: FakeProvider, patient_http: HttpClient) -> None:
    provider.plan(Fault.SERVER_ERROR)
    model: Model = ScriptedModel([[ModelUnavailable("it is down")]])
    if vendor != "scripted":
        model = adapter(vendor, patient_http, endpoint(provider, vendor))
    recording = await record_events(model)
    assert type(recording.error) is ModelUnavailable
    assert recording.events == []


@pytest.mark.parametrize("vendor", HTTP_VENDORS, indirect=True)
async def test_concurrent_calls_do_not_mix(vendor: str, provider: FakeProvider, patient_http: HttpClient) -> None:
    texts = [f"answer {number} " * (number + 1) for number in range(20)]
    model = adapter(vendor, patient_http, endpoint(provider, vendor))
    provider.plan(*(Say(text=text, piece=17) for text in texts))
    answers = await asyncio.gather(*(record_events(model) for _ in texts))
    assert sorted(recording.text for recording in answers) == sorted(texts)


@pytest.mark.parametrize("vendor", HTTP_VENDORS, indirect=True)
async def test_leaving_early_ends_the_providers_work(
    vendor: str, provider: FakeProvider, patient_http: HttpClient, until: Callable[..., Awaitable[None]]
) -> None:
    provider.plan(Fault.HUGE_TOTAL)
    model = adapter(vendor, patient_http, endpoint(provider, vendor))
    async with aclosing(cast("Any", model.stream(ask()))) as events:
        await anext(events)
        assert provider.open == 1
    await until(lambda: provider.open == 0)


@pytest.mark.parametrize("vendor", HTTP_VENDORS, indirect=True)
async def test_cancelling_ends_the_providers_work(
    vendor: str, provider: FakeProvider, patient_http: HttpClient, until: Callable[..., Awaitable[None]]
) -> None:
    provider.plan(Fault.HUGE_TOTAL)
    task = asyncio.ensure_future(record_events(adapter(vendor, patient_http, endpoint(provider, vendor))))
    await until(lambda: provider.open == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: provider.open == 0)

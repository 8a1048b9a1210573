"""Response cache: replay per tenant, and single flight for identical concurrent requests."""

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import pytest

from app.base.errors import ModelUnavailable
from app.domain.messages import AIMessage, HumanMessage, Message, SystemMessage, ToolCall, ToolMessage, Usage
from app.infra.cache.memory_cache import LocalCache
from app.infra.cache.namespaces import CacheNamespace
from app.infra.telemetry.meters import Meters
from app.providers.llm.cached_answer import FROM_CACHE, cache_key_parts, pack
from app.providers.llm.failover import FailoverModel, ModelLink, RetryRules
from app.providers.llm.port import Finished, ModelRequest, ReasoningDelta, TextDelta, ToolCallDelta, ToolSpec
from app.providers.llm.response_cache import CachedModel, ResponseCache
from app.providers.llm.vendor_health import Vendor
from tests.llm.recording import CLOCK, Recording, ask, record_events
from tests.llm.scripted_model import ScriptedModel, ScriptTurn

ONE, OTHER = str(UUID(int=1)), str(UUID(int=2))
USAGE = Usage(10, 5, 15)


class Desk:
    """An in-memory response cache, and a clock set by tests."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cache = LocalCache(clock=lambda: self.now)
        self.meters = Meters()
        self.flights = ResponseCache(
            CacheNamespace("answers", self.cache, self.meters, 60), self.meters, clock=lambda: self.now
        )

    def over(self, model: Any, *identity: str, seconds: float = 60) -> CachedModel:
        return CachedModel(model, self.flights, lambda: list(identity or ["test"]), seconds)

    def count(self, outcome: str) -> float:
        return self.meters.cache_requests.series.get(("answers", outcome), 0)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def question(text: str = "hi", tenant: str = ONE, **rest: Any) -> ModelRequest:
    return ask(text, tenant=tenant, **rest)


def finished(**changes: Any) -> Finished:
    return msgspec.structs.replace(Finished(reason="stop", model="test", vendor="scripted", usage=USAGE), **changes)


async def test_an_identical_request_is_answered_from_the_cache(desk: Desk) -> None:
    model = ScriptedModel([[ReasoningDelta("hm"), "one ", "two ", "three", finished()]])
    remembered = desk.over(model)
    first, second = await record_events(remembered, question()), await record_events(remembered, question())
    assert (first.text, first.reasoning) == (second.text, second.reasoning) == ("one two three", "hm")
    assert len(model.requests) == 1
    assert first.finished == finished()
    assert (desk.count("miss"), desk.count("hit")) == (1, 1)


async def test_a_cached_answer_is_marked_and_free(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel([["yes", finished()]]))
    await record_events(remembered, question())
    end = (await record_events(remembered, question())).finished
    assert end.cached
    assert end.usage == Usage(0, 0, 0, {FROM_CACHE: 10}, {FROM_CACHE: 5})
    assert desk.meters.cache_tokens.series == {("scripted", "test", "input"): 10, ("scripted", "test", "output"): 5}


async def test_replayed_tool_calls_have_new_ids(desk: Desk) -> None:
    model = ScriptedModel([[ToolCall("clock", {"zone": "UTC"}, "c1"), ToolCall("clock", {}, "c2")]])
    remembered = desk.over(model)
    recording = [await record_events(remembered, question(tools=[CLOCK])) for _ in range(3)]
    assert [[(name, args) for _, name, args in one.calls] for one in recording] == [
        [("clock", '{"zone":"UTC"}'), ("clock", "{}")]
    ] * 3
    ids = [identity for one in recording for identity, _, _ in one.calls]
    assert len(set(ids)) == 6
    assert recording[0].finished.reason == recording[2].finished.reason == "tool_calls"


async def test_answers_are_not_shared_between_tenants(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel(["for one", "for the other"]))
    assert (await record_events(remembered, question())).text == "for one"
    assert (await record_events(remembered, question(tenant=OTHER))).text == "for the other"
    assert (await record_events(remembered, question())).text == "for one"


async def test_a_request_without_tenant_is_not_cached(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel(["a", "b"]))
    assert [(await record_events(remembered, question(tenant=""))).text for _ in range(2)] == ["a", "b"]
    assert desk.cache.size == 0


OTHERS: list[ModelRequest] = [
    question("another"),
    question(instructions="be brief"),
    question(tools=[CLOCK]),
    question(tools=[ToolSpec("clock", "Another word.", CLOCK.parameters)]),
    question(tools=[ToolSpec("clock", CLOCK.description, {"type": "object", "properties": {"zone": {}}})]),
    question(temperature=0.5),
    question(temperature=0),
    question(max_tokens=7),
    question(model_settings={"top_p": 0.1}),
    ModelRequest(messages=[SystemMessage(content="hi")], tenant=ONE),
    ModelRequest(messages=[HumanMessage(content="hi"), AIMessage(content="")], tenant=ONE),
    ModelRequest(messages=[HumanMessage(content=[{"type": "text", "text": "hi"}])], tenant=ONE),
]


async def test_a_different_request_misses_the_cache(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel([str(number) for number in range(len(OTHERS) + 1)]))
    said = [(await record_events(remembered, one)).text for one in [question(), *OTHERS, question()]]
    assert said == [*(str(number) for number in range(len(OTHERS) + 1)), "0"]


async def test_another_model_or_server_misses_the_cache(desk: Desk) -> None:
    names = [["openai:a", "https://here"], ["openai:b", "https://here"], ["openai:a", "https://there"]]
    said = [
        (await record_events(desk.over(ScriptedModel([str(n)]), *name), question())).text
        for n, name in enumerate(names)
    ]
    assert said == ["0", "1", "2"]


async def test_nothing_is_cached_while_the_model_is_unresolved(desk: Desk) -> None:
    remembered = CachedModel(ScriptedModel("ab"), desk.flights, list, 60)
    assert [(await record_events(remembered, question())).text for _ in range(2)] == ["a", "b"]


def conversation(message_id: str, call_id: str, answer: str = "noon") -> list[Message]:
    call = ToolCall("clock", {}, call_id)
    return [
        HumanMessage(content="hi", id=f"h{message_id}"),
        AIMessage(content="", id=message_id, tool_calls=[call], usage_metadata=USAGE, response_metadata={"a": call_id}),
        ToolMessage(content=answer, tool_call_id=call_id, id=f"t{message_id}", artifact=message_id),
    ]


async def test_message_and_call_ids_do_not_change_the_cache_key(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel(["It is noon.", "It is one."]))
    for message_id, call_id in (("1", "c1"), ("2", "c2")):
        asked = ModelRequest(messages=conversation(message_id, call_id), tenant=ONE)
        assert (await record_events(remembered, asked)).text == "It is noon."
    asked = ModelRequest(messages=conversation("3", "c3", "one"), tenant=ONE)
    assert (await record_events(remembered, asked)).text == "It is one."


def test_the_pairing_of_calls_and_answers_changes_the_cache_key() -> None:
    calls = AIMessage(content="", tool_calls=[ToolCall("clock", {}, "a"), ToolCall("clock", {}, "b")])
    right = [ToolMessage(content="1", tool_call_id="a"), ToolMessage(content="2", tool_call_id="b")]
    wrong = [ToolMessage(content="1", tool_call_id="b"), ToolMessage(content="2", tool_call_id="a")]
    assert cache_key_parts(ModelRequest(messages=[calls, *right])) != cache_key_parts(
        ModelRequest(messages=[calls, *wrong])
    )


NOT_KEPT: list[ScriptTurn] = [
    ["half", finished(reason="length")],
    ["bad", finished(reason="content_filter")],
    ["odd", finished(reason="who knows")],
    [finished()],
    [ReasoningDelta("hm"), finished()],
    [ToolCallDelta(0, "c", "clock", '{"zone": '), finished(reason="tool_calls")],
    [ToolCallDelta(0, "c", "clock", "[]"), finished(reason="tool_calls")],
    [ToolCallDelta(0, "c", None, "{}"), finished(reason="tool_calls")],
    ["from a fallback", finished(instead=True)],
    ["out of a cache", finished(cached=True)],
]


@pytest.mark.parametrize("turn", NOT_KEPT)
async def test_an_incomplete_or_unusable_answer_is_not_cached(desk: Desk, turn: ScriptTurn) -> None:
    remembered = desk.over(ScriptedModel([turn, "better"]))
    await record_events(remembered, question())
    assert (await record_events(remembered, question())).text == "better"


async def test_an_error_and_the_events_before_it_are_not_cached(desk: Desk) -> None:
    model = ScriptedModel([[ModelUnavailable("down")], ["half of", ModelUnavailable("cut")], "all of it"])
    remembered = desk.over(model)
    first, second = await record_events(remembered, question()), await record_events(remembered, question())
    assert isinstance(first.error, ModelUnavailable)
    assert (second.text, str(second.error)) == ("half of", "cut")
    assert (await record_events(remembered, question())).text == "all of it"
    assert desk.cache.size > 0


async def test_a_fallbacks_answer_is_marked_and_not_cached(desk: Desk) -> None:
    one = ScriptedModel([[ModelUnavailable("down")], "the first"], name="one", vendor="first")
    two = ScriptedModel(["the second"], name="two", vendor="second")
    links = [ModelLink(model, Vendor(model.vendor)) for model in (one, two)]
    remembered = desk.over(FailoverModel(links, RetryRules(tries=1)))
    first = await record_events(remembered, question())
    assert (first.text, first.finished.instead) == ("the second", True)
    second = await record_events(remembered, question())
    assert (second.text, second.finished.instead) == ("the first", False)


async def test_an_answer_expires_after_its_ttl_or_a_shorter_one_of_a_later_request(desk: Desk) -> None:
    model = ScriptedModel(["old", "new", "newest"])
    assert (await record_events(desk.over(model, seconds=100), question())).text == "old"
    desk.now += 50
    assert (await record_events(desk.over(model, seconds=100), question())).text == "old"
    assert (await record_events(desk.over(model, seconds=20), question())).text == "new"
    desk.now += 21
    assert (await record_events(desk.over(model, seconds=20), question())).text == "newest"


@pytest.mark.parametrize("body", [b"", b"\x93", pack([TextDelta("x")], 1000.0), pack([finished(), finished()], 1000.0)])
async def test_invalid_cache_entries_are_ignored(desk: Desk, body: bytes) -> None:
    key = desk.flights.cache.key(UUID(ONE), ["test"], cache_key_parts(question()))
    await desk.flights.cache.save({key: body})
    assert (await record_events(desk.over(ScriptedModel(["true"])), question())).text == "true"
    assert desk.count("unusable") == 1


async def several(remembered: CachedModel, count: int) -> list[asyncio.Task[Recording]]:
    """Start ``count`` identical requests."""
    asking = [asyncio.ensure_future(record_events(remembered, question())) for _ in range(count)]
    for _ in range(20):
        await asyncio.sleep(0)
    return asking


async def test_concurrent_requests_make_one_call_and_one_is_charged(desk: Desk) -> None:
    gate = asyncio.Event()
    model = ScriptedModel([["one ", gate, "two", finished()]])
    asking = await several(desk.over(model), 5)
    gate.set()
    recording = await asyncio.gather(*asking)
    assert [one.text for one in recording] == ["one two"] * 5
    assert len(model.requests) == 1
    assert sorted(one.finished.cached for one in recording) == [False, True, True, True, True]
    assert sum(one.finished.usage.total_tokens for one in recording if one.finished.usage) == USAGE.total_tokens
    assert desk.count("shared") == 4


async def test_deltas_reach_every_reader_as_they_arrive(desk: Desk) -> None:
    gate = asyncio.Event()
    remembered = desk.over(ScriptedModel([["one ", gate, "two"]]))
    (first,) = await several(remembered, 1)
    second = await record_events(remembered, question(), limit=1)
    assert second.text == "one "
    gate.set()
    assert (await first).text == "one two"


async def test_the_first_caller_may_cancel_while_others_read(desk: Desk) -> None:
    gate = asyncio.Event()
    model = ScriptedModel([["one ", gate, "two", finished()]])
    first, second, third = await several(desk.over(model), 3)
    first.cancel()
    await asyncio.wait([first])
    gate.set()
    recording = [await second, await third]
    assert [one.text for one in recording] == ["one two"] * 2
    assert sorted(one.finished.cached for one in recording) == [False, True], "one reader is charged"
    assert len(model.requests) == 1


async def test_when_the_last_reader_leaves_the_call_is_cancelled_and_not_cached(desk: Desk) -> None:
    ended = asyncio.Event()

    class Watched(ScriptedModel):
        async def stream(self, request: ModelRequest) -> Any:
            try:
                async for event in super().stream(request):
                    yield event
            finally:
                ended.set()

    model = Watched([["one ", asyncio.Event()], "complete"])
    remembered = desk.over(model)
    asking = await several(remembered, 3)
    for one in asking:
        one.cancel()
    await asyncio.wait(asking)
    async with asyncio.timeout(5):
        await ended.wait()
    assert (await record_events(remembered, question())).text == "complete"


async def test_a_failure_reaches_all_readers_and_the_next_request_calls_again(desk: Desk) -> None:
    gate = asyncio.Event()
    model = ScriptedModel([["one ", gate, ModelUnavailable("cut")], "complete"])
    remembered = desk.over(model)
    asking = await several(remembered, 3)
    gate.set()
    assert [str(one.error) for one in await asyncio.gather(*asking)] == ["cut"] * 3
    assert (await record_events(remembered, question())).text == "complete"


async def test_small_deltas_of_a_long_answer_are_joined(desk: Desk) -> None:
    words = [f"word{number} " for number in range(5000)]
    remembered = desk.over(ScriptedModel([words]))
    first, second = await record_events(remembered, question()), await record_events(remembered, question())
    assert first.text == second.text == "".join(words)
    assert len(second.events) < len(first.events) / 10

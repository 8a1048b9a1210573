"""Answers that are kept: said again to whoever of the same tenant asks the same, and asked once for several at once."""

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
from app.providers.llm.response_cache import CachedModel, SingleFlight
from app.providers.llm.scripted import ScriptedModel, ScriptTurn
from app.providers.llm.vendor_health import Vendor
from tests.llm.recording import CLOCK, Recording, ask, record_events

ONE, OTHER = str(UUID(int=1)), str(UUID(int=2))
USAGE = Usage(10, 5, 15)


class Desk:
    """A cache of answers in memory, and a clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cache = LocalCache(clock=lambda: self.now)
        self.meters = Meters()
        self.flights = SingleFlight(
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


async def test_the_same_question_is_answered_again_without_asking(desk: Desk) -> None:
    model = ScriptedModel([[ReasoningDelta("hm"), "one ", "two ", "three", finished()]])
    remembered = desk.over(model)
    first, second = await record_events(remembered, question()), await record_events(remembered, question())
    assert (first.text, first.reasoning) == (second.text, second.reasoning) == ("one two three", "hm")
    assert len(model.requests) == 1
    assert first.finished == finished()
    assert (desk.count("miss"), desk.count("hit")) == (1, 1)


async def test_what_is_said_again_is_marked_and_costs_nothing(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel([["yes", finished()]]))
    await record_events(remembered, question())
    end = (await record_events(remembered, question())).finished
    assert end.cached
    assert end.usage == Usage(0, 0, 0, {FROM_CACHE: 10}, {FROM_CACHE: 5})
    assert desk.meters.cache_tokens.series == {("scripted", "test", "input"): 10, ("scripted", "test", "output"): 5}


async def test_calls_of_tools_have_new_ids_each_time(desk: Desk) -> None:
    model = ScriptedModel([[ToolCall("clock", {"zone": "UTC"}, "c1"), ToolCall("clock", {}, "c2")]])
    remembered = desk.over(model)
    recording = [await record_events(remembered, question(tools=[CLOCK])) for _ in range(3)]
    assert [[(name, args) for _, name, args in one.calls] for one in recording] == [
        [("clock", '{"zone":"UTC"}'), ("clock", "{}")]
    ] * 3
    ids = [identity for one in recording for identity, _, _ in one.calls]
    assert len(set(ids)) == 6
    assert recording[0].finished.reason == recording[2].finished.reason == "tool_calls"


async def test_another_tenant_is_answered_anew(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel(["for one", "for the other"]))
    assert (await record_events(remembered, question())).text == "for one"
    assert (await record_events(remembered, question(tenant=OTHER))).text == "for the other"
    assert (await record_events(remembered, question())).text == "for one"


async def test_a_question_of_nobody_is_not_kept(desk: Desk) -> None:
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


async def test_whatever_a_model_is_asked_differently_is_asked_anew(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel([str(number) for number in range(len(OTHERS) + 1)]))
    said = [(await record_events(remembered, one)).text for one in [question(), *OTHERS, question()]]
    assert said == [*(str(number) for number in range(len(OTHERS) + 1)), "0"]


async def test_another_model_or_server_is_asked_anew(desk: Desk) -> None:
    names = [["openai:a", "https://here"], ["openai:b", "https://here"], ["openai:a", "https://there"]]
    said = [
        (await record_events(desk.over(ScriptedModel([str(n)]), *name), question())).text
        for n, name in enumerate(names)
    ]
    assert said == ["0", "1", "2"]


async def test_while_it_is_not_known_which_model_answers_nothing_is_kept(desk: Desk) -> None:
    remembered = CachedModel(ScriptedModel("ab"), desk.flights, list, 60)
    assert [(await record_events(remembered, question())).text for _ in range(2)] == ["a", "b"]


def conversation(message_id: str, call_id: str, answer: str = "noon") -> list[Message]:
    call = ToolCall("clock", {}, call_id)
    return [
        HumanMessage(content="hi", id=f"h{message_id}"),
        AIMessage(content="", id=message_id, tool_calls=[call], usage_metadata=USAGE, response_metadata={"a": call_id}),
        ToolMessage(content=answer, tool_call_id=call_id, id=f"t{message_id}", artifact=message_id),
    ]


async def test_a_conversation_is_the_same_whatever_the_ids_of_its_messages_and_calls_are(desk: Desk) -> None:
    remembered = desk.over(ScriptedModel(["It is noon.", "It is one."]))
    for message_id, call_id in (("1", "c1"), ("2", "c2")):
        asked = ModelRequest(messages=conversation(message_id, call_id), tenant=ONE)
        assert (await record_events(remembered, asked)).text == "It is noon."
    asked = ModelRequest(messages=conversation("3", "c3", "one"), tenant=ONE)
    assert (await record_events(remembered, asked)).text == "It is one."


def test_which_answer_belongs_to_which_call_counts() -> None:
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
async def test_what_is_no_whole_and_usable_answer_of_its_model_is_not_kept(desk: Desk, turn: ScriptTurn) -> None:
    remembered = desk.over(ScriptedModel([turn, "better"]))
    await record_events(remembered, question())
    assert (await record_events(remembered, question())).text == "better"


async def test_an_error_is_not_kept_and_neither_is_what_was_said_before_it(desk: Desk) -> None:
    model = ScriptedModel([[ModelUnavailable("down")], ["half of", ModelUnavailable("cut")], "all of it"])
    remembered = desk.over(model)
    first, second = await record_events(remembered, question()), await record_events(remembered, question())
    assert isinstance(first.error, ModelUnavailable)
    assert (second.text, str(second.error)) == ("half of", "cut")
    assert (await record_events(remembered, question())).text == "all of it"
    assert desk.cache.size > 0


async def test_a_fallback_s_answer_is_marked_by_the_chain_and_not_kept(desk: Desk) -> None:
    one = ScriptedModel([[ModelUnavailable("down")], "the first"], name="one", vendor="first")
    two = ScriptedModel(["the second"], name="two", vendor="second")
    links = [ModelLink(model, Vendor(model.vendor)) for model in (one, two)]
    remembered = desk.over(FailoverModel(links, RetryRules(tries=1)))
    first = await record_events(remembered, question())
    assert (first.text, first.finished.instead) == ("the second", True)
    second = await record_events(remembered, question())
    assert (second.text, second.finished.instead) == ("the first", False)


async def test_an_answer_is_good_for_its_time_and_for_the_shorter_one_that_is_asked_for_later(desk: Desk) -> None:
    model = ScriptedModel(["old", "new", "newest"])
    assert (await record_events(desk.over(model, seconds=100), question())).text == "old"
    desk.now += 50
    assert (await record_events(desk.over(model, seconds=100), question())).text == "old"
    assert (await record_events(desk.over(model, seconds=20), question())).text == "new"
    desk.now += 21
    assert (await record_events(desk.over(model, seconds=20), question())).text == "newest"


@pytest.mark.parametrize("body", [b"", b"\x93", pack([TextDelta("x")], 1000.0), pack([finished(), finished()], 1000.0)])
async def test_bytes_that_are_no_answer_are_as_if_they_were_not(desk: Desk, body: bytes) -> None:
    key = desk.flights.cache.key(UUID(ONE), ["test"], cache_key_parts(question()))
    await desk.flights.cache.save({key: body})
    assert (await record_events(desk.over(ScriptedModel(["true"])), question())).text == "true"
    assert desk.count("unusable") == 1


async def several(remembered: CachedModel, count: int) -> list[asyncio.Task[Recording]]:
    """So many askers of the same, all of whom have begun to ask."""
    asking = [asyncio.ensure_future(record_events(remembered, question())) for _ in range(count)]
    for _ in range(20):
        await asyncio.sleep(0)
    return asking


async def test_askers_at_the_same_time_make_one_call_and_one_of_them_pays(desk: Desk) -> None:
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


async def test_pieces_reach_every_asker_as_they_come(desk: Desk) -> None:
    gate = asyncio.Event()
    remembered = desk.over(ScriptedModel([["one ", gate, "two"]]))
    (first,) = await several(remembered, 1)
    second = await record_events(remembered, question(), limit=1)
    assert second.text == "one "
    gate.set()
    assert (await first).text == "one two"


async def test_who_asked_first_may_be_cancelled_while_others_listen(desk: Desk) -> None:
    gate = asyncio.Event()
    model = ScriptedModel([["one ", gate, "two", finished()]])
    first, second, third = await several(desk.over(model), 3)
    first.cancel()
    await asyncio.wait([first])
    gate.set()
    recording = [await second, await third]
    assert [one.text for one in recording] == ["one two"] * 2
    assert sorted(one.finished.cached for one in recording) == [False, True], "somebody pays"
    assert len(model.requests) == 1


async def test_when_nobody_listens_any_more_the_call_ends_and_nothing_is_kept(desk: Desk) -> None:
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


async def test_a_failure_reaches_all_who_asked_and_the_next_asks_anew(desk: Desk) -> None:
    gate = asyncio.Event()
    model = ScriptedModel([["one ", gate, ModelUnavailable("cut")], "complete"])
    remembered = desk.over(model)
    asking = await several(remembered, 3)
    gate.set()
    assert [str(one.error) for one in await asyncio.gather(*asking)] == ["cut"] * 3
    assert (await record_events(remembered, question())).text == "complete"


async def test_a_long_answer_is_kept_in_few_pieces(desk: Desk) -> None:
    words = [f"word{number} " for number in range(5000)]
    remembered = desk.over(ScriptedModel([words]))
    first, second = await record_events(remembered, question()), await record_events(remembered, question())
    assert first.text == second.text == "".join(words)
    assert len(second.events) < len(first.events) / 10

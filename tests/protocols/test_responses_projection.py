"""Events of a run as streaming events of a response: what is lost, cited, asked and left open."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import openai
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ParsedResponse, ResponseCompletedEvent, ResponseStreamEvent
from pydantic import TypeAdapter

from app.agents.port import ModelOptions
from app.domain.events import (
    Ended,
    Event,
    Failed,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
)
from app.engine.execution.questions import OpenQuestion
from app.protocols.openai.responses.inbound import answer_of
from app.protocols.openai.responses.projection import ResponseCollector, ResponseProjection
from app.protocols.openai.responses.response import ResponseHead
from app.protocols.openai.responses.structs import StoredSettings
from app.protocols.projection import EPOCH_NUMBERS

RUN = "01a206d2-02c7-7701-809a-5c1fb81f0fcb"
STEP = "01a206d2-1000-7701-809a-5c1fb81f0fcb"
STEP_AT = 1795410759
"""When ``STEP`` was made, which is after ``RUN``."""

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
HEAD = ResponseHead("resp_1", UUID(RUN), UUID(int=1), 1, StoredSettings(model="assistant"), ModelOptions())


def delta(text: str = "", message: str = "m", **rest: Any) -> MessageDelta:
    return MessageDelta(message_id=message, node="agent", step=0, text=text, **rest)


def committed(*messages: dict[str, Any]) -> StepCommitted:
    return StepCommitted(1, STEP, msgspec.Raw(msgspec.json.encode({"agent": {"messages": list(messages)}})), "agent")


def projected(*events: Event) -> list[dict[str, Any]]:
    found = list(_projected(events))
    collector = ResponseCollector(HEAD)
    collector.add(events)
    assert msgspec.to_builtins(collector.response) == found[-1]["response"]
    return found


def _projected(events: tuple[Event, ...]) -> Iterator[dict[str, Any]]:
    projection = ResponseProjection(HEAD)
    for event in events:
        for frame in projection.project(event):
            data = frame.data.partition(b"data: ")[2].strip()
            if data != b"[DONE]":
                found = msgspec.json.decode(data)
                assert found["sequence_number"] == frame.number
                yield found


AI = {"type": "ai", "id": "m2", "content": "Hello"}


def of_the_sdk(events: list[dict[str, Any]]) -> ParsedResponse[object]:
    """Return the response that OpenAI's own client builds from streaming events."""
    state: ResponseStreamState[object] = ResponseStreamState(input_tools=[], text_format=openai.omit)
    built = [one for event in events for one in state.handle_event(EVENTS.validate_python(event))]
    assert isinstance(built[-1], ResponseCompletedEvent)
    return built[-1].response


def positions_of(events: list[dict[str, Any]], kind: str) -> list[int]:
    return [event["output_index"] for event in events if event["type"] == f"response.output_item.{kind}"]


def test_what_a_dead_owner_said_is_replaced_and_the_numbers_are_those_of_a_replay() -> None:
    end: list[Event] = [
        RunStarted(RUN, 2),
        Retracted(["m"], epoch=2),
        delta("Hello", "m2"),
        delta(last=True, message="m2"),
        committed(AI),
    ]
    said = {**AI, "id": "m0", "content": "First"}
    begun: list[Event] = [RunStarted(RUN, 1), delta("First", "m0"), delta(last=True, message="m0"), committed(said)]
    lost = (delta(reasoning="Hm", message="m"), delta("Hel", "m"))
    live = projected(*begun, *lost, *end, Ended(RUN, "success"))
    replay = projected(*begun, *end, Ended(RUN, "success"))
    after = [event for event in live if event["sequence_number"] > EPOCH_NUMBERS]
    assert after == [event for event in replay if event["sequence_number"] > EPOCH_NUMBERS]
    assert "response.output_item.added" in [event["type"] for event in after]
    for events in (live, replay):
        added = positions_of(events, "added")
        assert added == list(range(len(added)))  # without holes: OpenAI's client for JavaScript refuses them
        assert sorted(positions_of(events, "done")) == added
        assert [item.to_dict()["id"] for item in of_the_sdk(events).output] == ["msg_m0", "msg_m2"]
        assert of_the_sdk(events).output_text == "FirstHello"
    broken = [event["item"] for event in live if event["type"] == "response.output_item.done"][2]
    assert (broken["id"], broken["status"]) == ("msg_m", "incomplete")


def test_reasoning_is_a_summary_and_citations_are_annotations() -> None:
    cited = {"type": "citation", "url": "https://example.com", "title": "Page", "start_index": 0, "end_index": 5}
    said = {**AI, "content": [{"type": "text", "text": "Hello", "annotations": [cited]}]}
    events = projected(
        RunStarted(RUN, 1), delta(reasoning="Hm", message="m2"), delta("Hello", "m2"), delta(last=True, message="m2"),
        committed(said), Ended(RUN, "success"),
    )  # fmt: skip
    reasoning, message = events[-1]["response"]["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm"}]
    (annotation,) = message["content"][0]["annotations"]
    assert (annotation["type"], annotation["url"]) == ("url_citation", "https://example.com")
    kinds = [event["type"].removeprefix("response.") for event in events]
    last = ["output_text.annotation.added", "content_part.done", "output_item.done", "completed"]
    assert kinds[-4:] == last
    assert events[-2]["item"] == message


def test_a_question_is_an_approval_request_and_a_lost_call_is_incomplete() -> None:
    call = {"id": "c1", "name": "look", "args": {}}
    question = b'[{"id":"q","value":{"ask":"Which?"}}]'
    events = projected(
        RunStarted(RUN, 1), committed({**AI, "tool_calls": [call]}), Interrupted("c", msgspec.Raw(question)),
        Ended(RUN, "interrupted"),
    )  # fmt: skip
    response = events[-1]["response"]
    assert (response["status"], response["completed_at"]) == ("completed", STEP_AT)
    assert [(item["type"], item.get("status")) for item in response["output"]] == [
        ("message", "completed"), ("mcp_call", "incomplete"), ("mcp_approval_request", None),
    ]  # fmt: skip
    assert response["output"][2]["arguments"] == '{"question":{"ask":"Which?"}}'


def test_a_run_ends_as_failed_incomplete_or_cancelled() -> None:
    started = RunStarted(RUN, 1)
    failed = projected(started, Failed("ModelTimeout", "It took too long."), Ended(RUN, "error"))[-1]
    assert (failed["type"], failed["response"]["error"]["code"]) == ("response.failed", "ModelTimeout")
    spent = projected(started, Failed("TokenLimit", "Too many."), Ended(RUN, "error"))[-1]["response"]
    assert (spent["status"], spent["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    cut = {**AI, "response_metadata": {"finish_reason": "length"}}
    short = projected(started, committed(cut), Ended(RUN, "success"))[-1]
    assert (short["type"], short["response"]["incomplete_details"]["reason"]) == (
        "response.incomplete", "max_output_tokens",
    )  # fmt: skip
    assert short["response"]["completed_at"] is None
    assert projected(started, Ended(RUN, "interrupted"))[-1]["response"]["status"] == "cancelled"


def test_a_result_without_its_call_has_what_is_known() -> None:
    tool = {"type": "tool", "id": "t", "tool_call_id": "c1", "name": "look", "content": "no", "status": "error"}
    added = MessageAdded("tools", 1, msgspec.Raw(msgspec.json.encode(tool)))
    (item,) = projected(RunStarted(RUN, 1), added, Ended(RUN, "success"))[-1]["response"]["output"]
    assert (item["name"], item["status"], item["output"]) == ("look", "failed", None)
    assert item["error"]["content"] == [{"type": "text", "text": "no"}]


def test_an_approval_response_answers_every_kind_of_question() -> None:
    question = OpenQuestion(id="q", key="q", kind="question")
    assert answer_of(question, {"approve": True}) is True
    assert answer_of(question, {"approve": True, "reason": '{"city": "Rome"}'}) == {"city": "Rome"}
    assert answer_of(question, {"approve": True, "reason": "in Rome"}) == "in Rome"
    approval = OpenQuestion(id="q", key="q", kind="approval")
    assert answer_of(approval, {"approve": False, "reason": "no"}) == {
        "decisions": [{"type": "reject", "message": "no"}]
    }
    review = OpenQuestion(id="q", key="q", kind="review")
    assert answer_of(review, {"approve": True}) == {"action": "retry"}
    assert answer_of(review, {"approve": False, "reason": "lost"}) == {"action": "failed", "result": "lost"}

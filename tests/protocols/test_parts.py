"""What a run says, assembled from its events."""

from collections.abc import Mapping

import msgspec

from app.domain.events import (
    Ended,
    Event,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
)
from app.domain.messages import Usage
from app.protocols import parts
from app.protocols.parts import PartAssembler
from app.protocols.states import RunState

RUN = "01a206d2-02c7-7701-809a-5c1fb81f0fcb"


def said(*events: Event) -> list[parts.Part]:
    assembler = PartAssembler()
    return [part for event in events for part in assembler.parts(event)]


def delta(text: str = "", **rest: object) -> MessageDelta:
    return MessageDelta(message_id="m", node="agent", step=0, text=text, **rest)  # type: ignore[arg-type]


def committed(*messages: Mapping[str, object]) -> StepCommitted:
    return StepCommitted(1, "c", msgspec.Raw(msgspec.json.encode({"agent": {"messages": list(messages)}})), "agent")


AI = {"type": "ai", "id": "m", "content": "Hello you", "usage_metadata": {"input_tokens": 3, "output_tokens": 2}}


def test_chunks_begin_and_end_a_text_and_a_commit_says_it_is_durable() -> None:
    found = said(
        RunStarted(RUN, 1), delta("Hello "), delta("you"), delta(last=True), committed(AI), Ended(RUN, "success")
    )
    assert found[:5] == [
        parts.RunBegins(RUN, 1),
        parts.TextStart("m"),
        parts.TextDelta("m", "Hello "),
        parts.TextDelta("m", "you"),
        parts.TextEnd("m", "Hello you"),
    ]
    usage = Usage(input_tokens=3, output_tokens=2)
    assert isinstance(found[5], parts.MessageDone)
    assert found[5].usage == usage
    assert isinstance(found[6], parts.StepDone)
    assert found[7:] == [parts.RunEnds(RUN, RunState.SUCCESS, usage)]


def test_a_message_without_chunks_is_said_whole_and_once() -> None:
    message = msgspec.Raw(msgspec.json.encode({"type": "tool", "id": "t", "tool_call_id": "c1", "content": "4"}))
    tool = {"type": "tool", "id": "t", "tool_call_id": "c1", "content": "4"}
    found = said(committed(AI), MessageAdded("tools", 1, message), committed(tool))
    assert [type(part).__name__ for part in found] == [
        "TextStart", "TextDelta", "TextEnd", "MessageDone", "StepDone", "ToolResult", "StepDone",
    ]  # fmt: skip


def test_reasoning_text_and_parallel_calls_follow_each_other() -> None:
    found = said(
        delta(reasoning="Hm"),
        delta("So"),
        delta(tool_call={"index": 0, "id": "c1", "name": "add", "args": '{"a"'}),
        delta(tool_call={"index": 1, "id": "c2", "name": "sub", "args": ""}),
        delta(tool_call={"index": 0, "id": None, "name": None, "args": ":1}"}),
        delta(last=True),
    )
    assert found == [
        parts.ReasoningStart("m"),
        parts.ReasoningDelta("m", "Hm"),
        parts.ReasoningEnd("m", "Hm"),
        parts.TextStart("m"),
        parts.TextDelta("m", "So"),
        parts.TextEnd("m", "So"),
        parts.ToolCallStart("m", "c1", "add"),
        parts.ToolCallDelta("c1", '{"a"'),
        parts.ToolCallStart("m", "c2", "sub"),
        parts.ToolCallDelta("c1", ":1}"),
        parts.ToolCallEnd("m", "c1", "add", '{"a":1}'),
        parts.ToolCallEnd("m", "c2", "sub", ""),
    ]


def test_what_was_streamed_and_not_committed_is_retracted() -> None:
    found = said(delta("half"), RunStarted(RUN, 2), Retracted(message_ids=["m", "never said"], step=0))
    assert found[-2:] == [parts.TextEnd("m", "half"), parts.MessagesRetracted(("m",))]


def test_a_run_that_asks_and_one_that_was_cancelled_end_differently() -> None:
    asked = Interrupted("c", msgspec.Raw(b'[{"id":"i","value":"Sure?","response_schema":null}]'))
    assert said(asked, Ended(RUN, "interrupted"))[-1] == parts.RunEnds(RUN, RunState.ASKING, Usage())
    assert said(Ended(RUN, "interrupted"))[-1] == parts.RunEnds(RUN, RunState.CANCELLED, Usage())


def test_what_a_subgraph_streams_is_for_protocols_that_show_subgraphs() -> None:
    inner = {"type": "tool", "id": "t", "tool_call_id": "c", "name": "look", "content": "found"}
    events: list[Event] = [
        delta("Hello ", namespace="child:1"),
        delta("you", namespace="child:1", last=True),
        MessageAdded("tools", 1, msgspec.Raw(msgspec.json.encode(inner)), "child:1"),
    ]
    assert said(*events) == []
    assert [part.text for part in said(*events, committed(AI)) if isinstance(part, parts.TextEnd)] == ["Hello you"]
    assembler = PartAssembler(subgraphs=True)
    shown = [part for event in events for part in assembler.parts(event)]
    assert [type(part) for part in shown] == [
        parts.TextStart, parts.TextDelta, parts.TextDelta, parts.TextEnd, parts.ToolResult,
    ]  # fmt: skip

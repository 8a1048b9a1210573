"""The projection of runs onto protocol v2: subgraphs, what is withdrawn, and messages of every shape."""

import json
from typing import Any

import msgspec

from app.domain.events import (
    Ended,
    Event,
    Failed,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
    SubgraphOutput,
)
from app.protocols.langgraph_v2.channels import Subscription, Topic
from app.protocols.langgraph_v2.projection import ThreadProjection, first_seq

RUN = "01a206d2-02c7-7701-809a-5c1fb81f0fcb"
CHECKPOINT = "01a206d2-02c7-7701-809a-5c1fb81f0fcc"


def projected(*events: Event) -> list[Any]:
    """Return the events that the projection gives, without those whose data is read later."""
    projection = ThreadProjection(3)
    frames = [frame for event in events for frame in projection.project(event) if frame.late is None]
    return [json.loads(frame.data.split(b"data: ", 1)[1].split(b"\r\n")[0]) for frame in frames]


def text(said: str, message_id: str = "m", **rest: Any) -> MessageDelta:
    return MessageDelta(message_id=message_id, node="agent", step=0, text=said, **rest)


def committed(*messages: dict[str, Any]) -> StepCommitted:
    update = {"agent": {"messages": list(messages)}}
    return StepCommitted(1, CHECKPOINT, msgspec.Raw(msgspec.json.encode(update)), "agent")


def test_numbers_are_those_of_a_replay_which_has_nothing_of_what_is_withdrawn() -> None:
    end: list[Event] = [
        text("half", "n"),
        committed({"type": "ai", "id": "n", "content": "half"}),
        Ended(RUN, "success"),
    ]
    lost: list[Event] = [text("ha"), text("deep", "d", namespace="child:1")]
    again: list[Event] = [RunStarted(RUN, 2), Retracted(["m", "d"], 0)]
    live = projected(RunStarted(RUN, 1), *lost, *again, *end)
    replay = projected(RunStarted(RUN, 1), *again, *end)
    assert [event for event in live if event in replay] == replay
    withdrawn = [event["params"]["data"] for event in live if event not in replay]
    assert [data["event"] for data in withdrawn if data["event"] in {"error", "failed"}] == ["error", "failed"]
    assert [event["seq"] for event in live] == sorted({event["seq"] for event in live})
    assert live[0]["seq"] == first_seq(3) + 1


def test_subgraphs_have_namespaces_and_a_lifecycle_of_their_own() -> None:
    call = {"type": "ai", "id": "d", "content": "", "tool_calls": [{"id": "c", "name": "look", "args": {"a": 1}}]}
    result = {"type": "tool", "id": "t", "tool_call_id": "c", "name": "look", "content": "seen", "status": "success"}
    inner = SubgraphOutput(
        "updates", "child:1|inner:2", msgspec.Raw(json.dumps({"model": {"messages": [call, result]}}))
    )
    events = projected(
        RunStarted(RUN, 1),
        text("deep", "d", namespace="child:1|inner:2", last=True),
        inner,
        SubgraphOutput("custom", "child:1", msgspec.Raw(b'{"name":"progress","at":1}')),
        committed(),
        Ended(RUN, "success"),
    )
    seen = [(event["method"], "/".join(event["params"]["namespace"]), event["params"]["data"]) for event in events]
    assert [(where, data["event"]) for method, where, data in seen if method == "lifecycle"] == [
        ("", "running"), ("child:1", "started"), ("child:1/inner:2", "started"), ("child:1/inner:2", "completed"),
        ("child:1", "completed"), ("", "completed"),
    ]  # fmt: skip
    assert {where for method, where, _ in seen if method in {"messages", "tools"}} == {"child:1/inner:2"}
    tools = [data for method, _, data in seen if method == "tools"]
    assert (tools[0]["input"], tools[1]["output"]["content"]) == ({"a": 1}, "seen")
    assert ("custom", "child:1", {"name": "progress", "at": 1}) in seen
    assert [data["node"] for method, where, data in seen if method == "updates" and where] == ["model"]


def test_reasoning_calls_and_whole_messages_are_content_blocks() -> None:
    bad = {"index": 0, "id": "c", "name": "look", "args": "{oops"}
    failed = {"type": "tool", "id": "t", "tool_call_id": "c", "name": "look", "content": "broken", "status": "error"}
    events = projected(
        MessageDelta("m", "agent", 0, reasoning="hm"),
        text("So"),
        MessageDelta("m", "agent", 0, tool_call=bad, last=True),
        committed({"type": "ai", "id": "m", "content": "So", "tool_calls": []}),
        MessageAdded("tools", 1, msgspec.Raw(json.dumps(failed))),
        committed({"type": "ai", "id": "w", "content": "whole"}, {"type": "ai", "id": "e", "content": ""}),
        text("cut", "x"),
        Failed("ValueError", "No."),
        Ended(RUN, "error"),
    )
    messages = [event["params"]["data"] for event in events if event["method"] == "messages"]
    assert [data["content"] for data in messages if data["event"] == "content-block-finish" and data["id"] == "m"] == [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "So"},
        {"type": "invalid_tool_call", "id": "c", "name": "look", "args": "{oops",
         "error": "The arguments are not a JSON object."},
    ]  # fmt: skip
    assert [data["index"] for data in messages if data["event"] == "content-block-start"] == [0, 1, 2, 0, 0]
    assert [data["id"] for data in messages if data["event"] == "message-finish"] == ["m", "w", "x"]
    tools = [event["params"]["data"] for event in events if event["method"] == "tools"]
    assert [(data["event"], data.get("message")) for data in tools] == [
        ("tool-started", None),
        ("tool-error", "broken"),
    ]
    assert events[-1]["params"]["data"]["error"] == "No."
    assert projected(Ended(RUN, "interrupted"))[0]["params"]["data"]["error"] == "The run was cancelled."


def test_namespaces_are_selected_by_prefix_name_and_depth() -> None:
    deep = Topic("messages", ("child:1", "inner:2"))

    def wants(topic: Topic, *channels: str, **rest: Any) -> bool:
        return Subscription(channels, rest.get("namespaces"), rest.get("depth")).wants(topic)

    assert wants(deep, "messages")
    assert not wants(deep, "values")
    assert not wants(deep, "messages", depth=1)
    assert wants(deep, "messages", namespaces=[["child"]])
    assert wants(deep, "messages", namespaces=[["child:1"]], depth=1)
    assert not wants(deep, "messages", namespaces=[["child:1"]], depth=0)
    assert not wants(deep, "messages", namespaces=[["child:2"], ["other"]])
    assert wants(Topic("custom", (), "a"), "custom:a")
    assert wants(Topic("custom", (), "a"), "custom")
    assert not wants(Topic("custom", (), "b"), "custom:a")

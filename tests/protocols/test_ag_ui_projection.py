"""A run's events as AG-UI's events: pure, valid, and the same for every reader."""

import asyncio
import json
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.events import (
    Custom,
    Ended,
    Event,
    Failed,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
    SubgraphOutput,
)
from app.protocols.ag_ui.json_patch import diff
from app.protocols.ag_ui.projection import AGUIProjection, RunOnWire
from tests.protocols.ag_ui_streams import Events, checked, text_of, types_of

RUN = UUID("01a206d2-02c7-7701-809a-5c1fb81f0fcb")
FIRST, SECOND = str(UUID(int=1)), str(UUID(int=2))
HUMAN = {"type": "human", "id": "u", "content": "Hi"}
ASKED = {"id": "u", "role": "user", "content": "Hi"}


class Values:
    """Values before the run, and at its checkpoints."""

    def __init__(self, before: Any, at: dict[str, Any]) -> None:
        self._before, self._at = before, at

    async def before(self) -> bytes | None:
        return None if self._before is None else json.dumps(self._before).encode()

    async def at(self, checkpoint_id: UUID) -> bytes | None:
        found = self._at.get(str(checkpoint_id))
        return None if found is None else json.dumps(found).encode()


def projected(
    *events: Event, before: Any = None, at: dict[str, Any] | None = None, **options: Any
) -> tuple[list[bytes], Events]:
    """Return the frames of a run and its events; ``before``, ``at``: the thread's values."""

    async def project() -> list[bytes]:
        projection = AGUIProjection(RunOnWire(RUN, "t", "r", given=[ASKED], **options), Values(before, at or {}))
        frames: list[bytes] = []
        for event in events:
            if type(event) in projection.awaited:
                await projection.prepare(event)
            frames += [frame.data for frame in projection.project(event)]
        return frames

    frames = asyncio.run(project())
    return frames, checked(b"".join(frames))


def delta(text: str = "", message_id: str = "m", **rest: Any) -> MessageDelta:
    return MessageDelta(message_id=message_id, node="agent", step=0, text=text, **rest)


def committed(checkpoint_id: str, node: str = "agent", **update: Any) -> StepCommitted:
    return StepCommitted(1, checkpoint_id, msgspec.Raw(json.dumps({node: update})), node)


def test_reasoning_text_and_a_call_with_its_result_are_opened_and_closed_in_order() -> None:
    call = {"index": 0, "id": "c1", "name": "clock", "args": ""}
    answer = {"type": "ai", "id": "m", "content": "So", "usage_metadata": {"input_tokens": 3, "output_tokens": 2,
              "total_tokens": 5}}  # fmt: skip
    result = {
        "type": "tool",
        "id": "t",
        "tool_call_id": "c1",
        "name": "clock",
        "content": [{"type": "text", "text": "noon"}],
    }
    _, events = projected(
        RunStarted(str(RUN), 1),
        delta(reasoning="Hm"),
        delta("So"),
        delta(tool_call=call, last=True),
        committed(FIRST, messages=[HUMAN, answer]),
        Custom(msgspec.Raw(b'{"done":1}')),
        committed(SECOND, "tools", messages=[result]),
        Ended(str(RUN), "success"),
    )
    assert types_of(events) == [
        "RUN_STARTED", "STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "STEP_STARTED", "REASONING_START",
        "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END", "REASONING_END",
        "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "TOOL_CALL_START", "TOOL_CALL_ARGS",
        "TOOL_CALL_END", "STEP_FINISHED", "CUSTOM", "STEP_STARTED", "TOOL_CALL_RESULT", "STEP_FINISHED",
        "RUN_FINISHED",
    ]  # fmt: skip
    by_type = {event["type"]: event for event in events}
    assert by_type["TOOL_CALL_ARGS"]["delta"] == "{}"
    assert by_type["TOOL_CALL_RESULT"]["content"] == "noon"
    assert by_type["MESSAGES_SNAPSHOT"]["messages"] == [ASKED]
    assert by_type["RUN_FINISHED"]["outcome"] == {"type": "success"}
    assert by_type["RUN_FINISHED"]["usage"] == [{"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}]


def test_the_state_is_a_snapshot_and_then_deltas_of_what_steps_change() -> None:
    _, events = projected(
        RunStarted(str(RUN), 1),
        committed(FIRST, plan="b"),
        committed(SECOND, messages=[]),
        Ended(str(RUN), "success"),
        before={"plan": ["a"], "long": "x" * 200},
        at={FIRST: {"messages": [HUMAN], "plan": ["a", "b"], "long": "x" * 200}},
    )
    assert [event for event in events if event["type"].startswith("STATE")] == [
        {"type": "STATE_SNAPSHOT", "snapshot": {"plan": ["a"], "long": "x" * 200}},
        {"type": "STATE_DELTA", "delta": [{"op": "add", "path": "/plan/-", "value": "b"}]},
    ]


def test_an_input_whose_messages_have_no_ids_shows_after_the_first_step() -> None:
    cron = {"type": "human", "id": "made", "content": "Daily"}
    _, events = projected(
        RunStarted(str(RUN), 1),
        committed(FIRST, messages=[]),
        committed(SECOND, messages=[]),
        Ended(str(RUN), "success"),
        before={"messages": []},
        at={FIRST: {"messages": [HUMAN, cron], "topic": 1}},
        hidden=True,
    )
    snapshots = [event["messages"] for event in events if event["type"] == "MESSAGES_SNAPSHOT"]
    assert snapshots == [[ASKED], [ASKED, {"id": "made", "role": "user", "content": "Daily"}]]
    assert [event for event in events if event["type"] == "STATE_DELTA"] == []
    assert [event["snapshot"] for event in events if event["type"] == "STATE_SNAPSHOT"] == [{}, {"topic": 1}]


def test_what_a_dead_owner_streamed_is_taken_back_and_later_events_are_the_same_in_a_replay() -> None:
    later = (
        RunStarted(str(RUN), 2),
        Retracted(["m"], 0, 2),
        delta("half", "n", last=True),
        committed(SECOND, messages=[]),
        Ended(str(RUN), "success"),
    )
    earlier = {"type": "human", "id": "e", "content": "Earlier"}
    live, events = projected(RunStarted(str(RUN), 1), delta("ha"), *later, before={"messages": [earlier]})
    replay, _ = projected(RunStarted(str(RUN), 1), *later, before={"messages": [earlier]})
    taken_back = [event["messages"] for event in events if event["type"] == "MESSAGES_SNAPSHOT"]
    assert taken_back == [[{"id": "e", "role": "user", "content": "Earlier"}, ASKED]] * 2
    at = next(at for at, frame in enumerate(replay) if int(frame.split(b"\n")[0].split(b":")[2]) > 1 << 20)
    assert live[-len(replay[at:]) :] == replay[at:]
    assert text_of(events) == "hahalf"


def test_questions_failures_and_cancellations_end_a_run_differently() -> None:
    approval = {"id": "i1", "value": {"type": "tool_approval", "tool": "pay", "call_id": "c1", "action_requests": [
                {"name": "pay", "description": "Pay?"}]}}  # fmt: skip
    form = {"id": "i2", "value": "Which?", "response_schema": {"type": "string"}}
    _, asked = projected(
        RunStarted(str(RUN), 1),
        Interrupted(FIRST, msgspec.Raw(json.dumps([approval, form]))),
        Ended(str(RUN), "interrupted"),
        at={FIRST: {"messages": [HUMAN], "plan": 1}},
    )
    assert types_of(asked) == [
        "RUN_STARTED", "STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "RUN_FINISHED",
    ]  # fmt: skip
    first, second = asked[-1]["outcome"]["interrupts"]
    assert (first["reason"], first["toolCallId"], first["message"]) == ("tool_call", "c1", "Pay?")
    assert first["responseSchema"]["required"] == ["approved"]
    assert (second["reason"], second["responseSchema"]) == ("input_required", {"type": "string"})
    _, failed = projected(RunStarted(str(RUN), 1), delta("So"), Failed("ValueError", "No."), Ended(str(RUN), "error"))
    assert failed[-1] == {"type": "RUN_ERROR", "message": "No.", "code": "ValueError"}
    _, late = projected(RunStarted(str(RUN), 1), Ended(str(RUN), "timeout"))
    assert late[-1]["code"] == "timeout"
    _, cancelled = projected(Ended(str(RUN), "interrupted"))
    assert types_of(cancelled) == ["RUN_STARTED", "RUN_FINISHED"]
    assert cancelled[-1]["outcome"] == {"type": "cancelled"}
    _, legacy = projected(Ended(str(RUN), "interrupted"), legacy=True)
    assert "outcome" not in legacy[-1]  # an unknown outcome is an error for clients before 1.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "a/b", "~"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "a/b", "~1", ""]), inner, max_size=3)
    ),
    max_leaves=12,
)


def patched(value: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply a patch as RFC 6902 says."""
    for operation in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        if not parts:
            value = operation["value"]
            continue
        target = value
        for part in parts[:-1]:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if operation["op"] == "remove":
            del target[parts[-1]]
        elif parts[-1] == "-":
            target.append(operation["value"])
        else:
            assert operation["op"] == ("replace" if parts[-1] in target else "add")
            target[parts[-1]] = operation["value"]
    return value


@settings(max_examples=150, deadline=None)
@given(old=json_values, new=json_values)
def test_a_patch_makes_the_new_value_of_the_old_one(old: Any, new: Any) -> None:
    made = patched(json.loads(json.dumps(old)), list(diff(old, new)))
    assert json.dumps(made, sort_keys=True) == json.dumps(new, sort_keys=True)


def test_subgraphs_are_sub_agents_whose_events_carry_their_id() -> None:
    inner = {"type": "tool", "id": "t", "tool_call_id": "c1", "name": "look", "content": "found"}
    call = {"index": 0, "id": "c1", "name": "look", "args": "{}"}
    path = "plan:1|search:2"
    said: list[Event] = [
        RunStarted(str(RUN), 1),
        delta("Hm", namespace=path),
        delta(tool_call=call, namespace=path, last=True),
        MessageAdded("tools", 1, msgspec.Raw(json.dumps(inner)), path),
        SubgraphOutput("values", "plan:1", msgspec.Raw(b"{}")),
    ]
    _, events = projected(*said, committed(FIRST, "plan", text="x"), Ended(str(RUN), "success"))
    started = [event for event in events if event["type"] == "SUBAGENT_STARTED"]
    assert [(one["subagentRunId"], one["name"], one.get("parentSubagentRunId")) for one in started] == [
        ("plan:1", "plan", None), (path, "search", "plan:1"),
    ]  # fmt: skip
    own = [event for event in events if event["type"].startswith(("TEXT_", "TOOL_"))]
    assert {event["subagentRunId"] for event in own} == {path}
    finished = [event for event in events if event["type"] == "SUBAGENT_FINISHED"]
    assert [(one["subagentRunId"], one["outcome"]["type"]) for one in finished] == [
        (path, "success"), ("plan:1", "success"),
    ]  # fmt: skip
    asked = [{"id": "i", "value": "Which?"}]
    _, waiting = projected(*said, Interrupted(FIRST, msgspec.Raw(json.dumps(asked))), Ended(str(RUN), "interrupted"))
    assert [event["outcome"] for event in waiting if event["type"] == "SUBAGENT_FINISHED"] == [
        {"type": "suspended", "interruptIds": ["i"]}
    ] * 2
    _, failed = projected(*said, Failed("ValueError", "No."), Ended(str(RUN), "error"))
    assert [(e["message"], e["code"]) for e in failed if e["type"] == "SUBAGENT_ERROR"] == [("No.", "ValueError")] * 2
    frames, legacy = projected(*said, Ended(str(RUN), "success"), legacy=True)
    assert not [event for event in legacy if "subagentRunId" in event]
    lost, _ = projected(
        *said, RunStarted(str(RUN), 2), Retracted(["m"], 0, 2), delta("So", "n"), Ended(str(RUN), "success")
    )
    again, _ = projected(
        RunStarted(str(RUN), 1), RunStarted(str(RUN), 2), Retracted(["m"], 0, 2), delta("So", "n"),
        Ended(str(RUN), "success"),
    )  # fmt: skip
    assert frames
    assert lost[-4:] == again[-4:]


def test_a_tool_that_is_an_agent_is_a_sub_agent_from_its_call_to_its_result() -> None:
    call = {"index": 0, "id": "c1", "name": "friend", "args": "{}"}
    answer = {"type": "ai", "id": "m", "content": "", "tool_calls": [{"id": "c1", "name": "friend", "args": {}}]}
    result = {"type": "tool", "id": "t", "tool_call_id": "c1", "name": "friend", "content": "no", "status": "error"}
    asked: list[Event] = [
        RunStarted(str(RUN), 1),
        delta(tool_call=call, last=True),
        committed(FIRST, messages=[HUMAN, answer]),
    ]
    question = Interrupted(FIRST, msgspec.Raw(json.dumps([{"id": "i", "value": "Which?"}])))
    peers = frozenset({"friend"})
    _, waiting = projected(*asked, question, Ended(str(RUN), "interrupted"), peers=peers)
    own = [event for event in waiting if event["type"].startswith("SUBAGENT")]
    assert [event["type"] for event in own] == ["SUBAGENT_STARTED", "SUBAGENT_FINISHED"]
    assert (own[0]["subagentRunId"], own[0]["parentToolCallId"], own[1]["outcome"]["type"]) == ("c1", "c1", "suspended")
    end: list[Event] = [committed(SECOND, "tools", messages=[result]), Ended(str(RUN), "success")]
    for events in ([*asked, *end], [RunStarted(str(RUN), 1), *end]):  # at once, and in the run that has the answer
        _, found = projected(*events, peers=peers, before=None if len(events) > 3 else {"messages": [HUMAN, answer]})
        assert [one["type"] for one in found if one["type"].startswith("SUBAGENT")] == [
            "SUBAGENT_STARTED", "SUBAGENT_ERROR",
        ]  # fmt: skip

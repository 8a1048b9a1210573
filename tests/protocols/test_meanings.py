"""The table "one run on every wire" is complete, and it is what the projections do."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest

import app.protocols
from app.agents.port import ModelOptions
from app.domain.events import (
    Custom,
    Ended,
    Event,
    Failed,
    InputApplied,
    Interrupted,
    MessageAdded,
    MessageDelta,
    Retracted,
    RunStarted,
    StepCommitted,
    SubgraphOutput,
)
from app.protocols.a2a.projection import TaskProjection
from app.protocols.ag_ui.projection import AGUIProjection, RunOnWire
from app.protocols.ai_sdk.projection import UIMessageProjection
from app.protocols.langgraph_v2.projection import ThreadProjection
from app.protocols.mcp.results import ResultCollector
from app.protocols.meanings import PIECES, WIRES, Piece
from app.protocols.openai.chat import ChatProjection
from app.protocols.openai.responses.projection import ResponseProjection
from app.protocols.openai.responses.response import ResponseHead
from app.protocols.openai.responses.structs import StoredSettings
from app.protocols.projection import PreparedProjection, ProjectedFrame, Projection
from app.protocols.states import RunState
from docs.wires import PAGE, render

RUN = UUID("01a206d2-02c7-7701-809a-5c1fb81f0fcb")
CHECKPOINT = str(UUID(int=1))


class _NoValues:
    """A thread without values."""

    async def before(self) -> bytes | None:
        return None

    async def at(self, checkpoint_id: UUID) -> bytes | None:
        return b"{}"


Frames = Sequence[ProjectedFrame]
Speaker = Callable[[Sequence[Event]], list[str]]
"""Returns the kinds of what a protocol sends for the last of some events."""


def projected(make: Callable[[], Projection], events: Sequence[Event]) -> Frames:
    """Return the frames of the last event."""

    async def project() -> Frames:
        projection, frames = make(), []
        for event in events:
            if isinstance(projection, PreparedProjection) and type(event) in projection.awaited:
                await projection.prepare(event)
            frames = list(projection.project(event))
        return frames

    return asyncio.run(project())


def data_of(frames: Frames) -> list[Any]:
    lines = b"".join(frame.data for frame in frames).decode().split("\n")
    found = [line[6:] for line in lines if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


def chat(events: Sequence[Event]) -> list[str]:
    def kind(chunk: Any) -> str:
        if chunk == "[DONE]" or "error" in chunk:
            return "[DONE]" if chunk == "[DONE]" else "error"
        (choice,) = chunk["choices"]
        finish = choice["finish_reason"]
        return f"finish_reason {finish}" if finish else f"delta.{next(iter(choice['delta']))}"

    return [kind(chunk) for chunk in data_of(projected(lambda: ChatProjection("c", "m", 0), events))]


def ai_sdk(events: Sequence[Event]) -> list[str]:
    def kind(chunk: Any) -> str:
        if chunk == "[DONE]":
            return "[DONE]"
        return f"finish {chunk['finishReason']}" if chunk["type"] == "finish" else str(chunk["type"])

    return [kind(chunk) for chunk in data_of(projected(lambda: UIMessageProjection("msg"), events))]


def ag_ui(events: Sequence[Event]) -> list[str]:
    def kind(event: Any) -> str:
        return f"{event['type']} {event['outcome']['type']}" if "outcome" in event else str(event["type"])

    frames = projected(lambda: AGUIProjection(RunOnWire(RUN, "t", "r"), _NoValues()), events)
    return [kind(event) for event in data_of(frames)]


def langgraph_v2(events: Sequence[Event]) -> list[str]:
    def kind(frame: ProjectedFrame) -> str:
        name, data = frame.data.split(b"\r\n")[:2]
        said = re.search(rb'"data":\{"event":"([a-z-]+)"', data)
        return (name[7:] + (b" " + said[1] if said else b"")).decode()

    return [kind(frame) for frame in projected(lambda: ThreadProjection(1), events)]


def mcp(events: Sequence[Event]) -> list[str]:
    collector, sent = ResultCollector(structured=False), []
    for event in events:
        sent = ["notifications/progress" for _ in collector.add(event)]
    if collector.ended is None:
        return sent
    if collector.questions:
        return [*sent, "input_required"]
    return [*sent, "result isError" if collector.result({})["isError"] else "result"]


def responses(events: Sequence[Event]) -> list[str]:
    head = ResponseHead("resp", RUN, UUID(int=1), 1, StoredSettings(model="assistant"), ModelOptions())
    sent = data_of(projected(lambda: ResponseProjection(head), events))
    return ["[DONE]" if event == "[DONE]" else str(event["type"]) for event in sent]


def a2a(events: Sequence[Event]) -> list[str]:
    def kind(update: Any) -> str:
        return str(update["statusUpdate"]["status"]["state"]) if "statusUpdate" in update else "artifactUpdate"

    return [kind(update) for update in data_of(projected(lambda: TaskProjection("t", "c"), events))]


SPEAKERS: dict[str, Speaker] = {
    "a2a": a2a, "ag_ui": ag_ui, "ai_sdk": ai_sdk, "langgraph_v2": langgraph_v2, "mcp": mcp, "openai.chat": chat,
    "openai.responses": responses,
}  # fmt: skip


def delta(text: str = "", **rest: Any) -> MessageDelta:
    return MessageDelta(message_id="m", node="agent", step=0, text=text, **rest)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value))


STARTED = RunStarted(str(RUN), 1)
CALL = delta(tool_call={"index": 0, "id": "c", "name": "add", "args": "{}"})
QUESTION = {"id": "i", "value": {"type": "tool_approval", "tool": "pay", "call_id": "c"}}
RESULT = {"type": "tool", "id": "t", "tool_call_id": "c", "name": "add", "content": "2"}

STEP = StepCommitted(1, CHECKPOINT, raw({"agent": {"messages": [{"type": "ai", "id": "m", "content": "So"}]}}), "agent")

ASKS = {"type": "ai", "id": "m", "content": "", "tool_calls": [{"id": "c", "name": "add", "args": {}}]}
CALLED = StepCommitted(1, CHECKPOINT, raw({"agent": {"messages": [ASKS]}}), "agent")

SAMPLES: dict[Piece, tuple[list[Event], Event]] = {
    Piece.START: ([], STARTED),
    Piece.INPUT: ([STARTED], InputApplied(CHECKPOINT)),
    Piece.TEXT: ([STARTED], delta("So")),
    Piece.REASONING: ([STARTED], delta(reasoning="Hm")),
    Piece.TOOL_CALL: ([STARTED], CALL),
    Piece.MESSAGE_END: ([STARTED, delta("So")], delta(last=True)),
    Piece.TOOL_RESULT: ([STARTED, CALLED], MessageAdded("tools", 1, raw(RESULT))),
    Piece.CUSTOM: ([STARTED], Custom(raw(1))),
    Piece.STEP: ([STARTED, delta("So", last=True)], STEP),
    Piece.SUBGRAPH: ([STARTED], SubgraphOutput("values", "inner", raw({}))),
    Piece.QUESTION: ([STARTED], Interrupted(CHECKPOINT, raw([QUESTION]))),
    Piece.RETRACTED: ([STARTED, delta("So"), RunStarted(str(RUN), 2)], Retracted(["m"], 0)),
    Piece.FAILURE: ([STARTED], Failed("ValueError", "No.")),
    Piece.END: ([STARTED], Ended(str(RUN), "success")),
}
"""What came before, and the event."""

ENDINGS: dict[RunState, list[Event]] = {
    RunState.QUEUED: [],
    RunState.RUNNING: [STARTED],
    RunState.ASKING: [
        STARTED,
        Interrupted(CHECKPOINT, raw([{"id": "i", "value": "Which?"}])),
        Ended(str(RUN), "interrupted"),
    ],
    RunState.SUCCESS: [STARTED, Ended(str(RUN), "success")],
    RunState.ERROR: [STARTED, Failed("ValueError", "No."), Ended(str(RUN), "error")],
    RunState.TIMEOUT: [STARTED, Ended(str(RUN), "timeout")],
    RunState.CANCELLED: [STARTED, Ended(str(RUN), "interrupted")],
}


def test_every_state_event_and_protocol_has_its_cell() -> None:
    assert PIECES.keys() == set(get_args(Event)), "an event of runs is not in app/protocols/meanings.py"
    assert {piece for pieces in PIECES.values() for piece in pieces} == set(Piece)
    folder = Path(app.protocols.__file__).parent
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert {name.split(".")[0] for name in WIRES} == packages, "a protocol has no column in app/protocols/meanings.py"
    assert SPEAKERS.keys() == WIRES.keys()
    for name, wire in WIRES.items():
        assert wire.states.keys() == set(RunState), name
        assert wire.pieces.keys() == set(Piece), name
        cells = [*wire.states.values(), *wire.pieces.values()]
        assert all(bool(cell.sends) != bool(cell.why) for cell in cells), (
            f"{name}: a cell says neither what nor why not"
        )


def test_each_piece_is_in_an_event_of_its_kind() -> None:
    assert SAMPLES.keys() == set(Piece)
    assert ENDINGS.keys() == set(RunState)
    assert all(piece in PIECES[type(event)] for piece, (_, event) in SAMPLES.items())


@pytest.mark.parametrize("name", WIRES)
def test_a_protocol_sends_what_the_table_says(name: str) -> None:
    wire, speaker = WIRES[name], SPEAKERS[name]
    sent = {piece: tuple(speaker([*before, event])) for piece, (before, event) in SAMPLES.items()}
    assert sent == {piece: meaning.sends for piece, meaning in wire.pieces.items()}
    reached = {state: tuple(speaker(events)) for state, events in ENDINGS.items()}
    assert reached == {state: meaning.sends for state, meaning in wire.states.items()}


def test_the_page_shows_the_table() -> None:
    """docs/reference/wires.md is what `make docs-wires` writes."""
    assert PAGE.read_text() == render()

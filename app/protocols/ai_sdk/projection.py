"""Project a run onto the chunks of one UI message: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

Each step of the run is a step of the message. What an earlier owner streamed and did not commit is taken back by
``reset-step``; numbers of chunks then jump, so that they stay the same for every reader.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from app.base.json_scan import UNREADABLE_JSON
from app.domain.events import Event
from app.protocols import parts
from app.protocols.parts import Part, PartAssembler
from app.protocols.projection import FrameNumbers, ProjectedFrame
from app.protocols.questions import calls_of, kind_of
from app.protocols.states import RunState

FINISH_REASONS = {RunState.SUCCESS: "stop", RunState.ASKING: "tool-calls", RunState.TIMEOUT: "length"}
"""``finishReason`` by the state that a run ends with: ``error`` if it failed; a cancelled one ends with ``abort``."""

DONE = b"data: [DONE]\n\n"

STOPPING = (
    b'retry: 1000\ndata: {"type":"error",'
    b'"errorText":"The server is stopping; the run goes on. Resume the stream to follow it."}\n\n'
)
"""The last chunk from a server that stops: without an error, clients take a stream that ends for the whole answer."""

_encode = msgspec.json.Encoder().encode


class UIMessageProjection:
    """Chunks of one UI message. Implements ``app.protocols.projection.Projection``."""

    stopping = STOPPING

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._assembler = PartAssembler()
        self._numbers = FrameNumbers()
        self._begun = False
        self._in_step = False
        self._failed = False

    def project(self, event: Event) -> Iterator[ProjectedFrame]:
        """Return the chunks of ``event``."""
        for part in self._assembler.parts(event):
            if isinstance(part, parts.TextDelta) and self._in_step:  # what most parts are
                yield self._frame(
                    b'{"type":"text-delta","id":%b,"delta":%b}' % (_encode(part.message_id), _encode(part.text))
                )
                continue
            for chunk in self._chunks(part):
                yield self._frame(_encode(chunk))
            if isinstance(part, parts.RunEnds):
                yield ProjectedFrame(self._numbers.next(), DONE)

    def _frame(self, chunk: bytes) -> ProjectedFrame:
        number = self._numbers.next()
        return ProjectedFrame(number, b"id: %d\ndata: %b\n\n" % (number, chunk))

    def _chunks(self, part: Part) -> Iterator[dict[str, Any]]:
        match part:
            case parts.RunBegins():
                if not self._begun:
                    self._begun = True
                    yield {"type": "start", "messageId": self._message_id, "messageMetadata": {"runId": part.run_id}}
            case parts.MessagesRetracted():
                self._numbers.retracted(part.epoch)
                yield {"type": "reset-step" if self._in_step else "start-step"}  # one frame for every reader
                self._in_step = True
            case parts.StepDone():
                if self._in_step:
                    self._in_step = False
                    yield {"type": "finish-step"}
            case parts.CustomValue():
                yield {"type": "data-custom", "data": part.data, "transient": True}
            case parts.QuestionsAsked():
                for question in part.questions:
                    yield _question(question)
            case parts.RunFailed():
                self._failed = True
                yield {"type": "error", "errorText": part.message}
            case parts.RunEnds():
                yield from self._end(part)
            case _:
                yield from self._content(part)

    def _content(self, part: Part) -> Iterator[dict[str, Any]]:
        chunk = _chunk_of(part)
        if chunk is None:
            return
        if not self._in_step:
            self._in_step = True
            yield {"type": "start-step"}
        yield chunk

    def _end(self, part: parts.RunEnds) -> Iterator[dict[str, Any]]:
        if self._in_step:
            self._in_step = False
            yield {"type": "finish-step"}
        if part.state is RunState.CANCELLED:
            yield {"type": "abort"}
            return
        reason = "error" if self._failed and part.state is RunState.ERROR else FINISH_REASONS.get(part.state, "other")
        usage = {
            "inputTokens": part.usage.input_tokens,
            "outputTokens": part.usage.output_tokens,
            "totalTokens": part.usage.total_tokens,
        }
        yield {"type": "finish", "finishReason": reason, "messageMetadata": {"runId": part.run_id, "usage": usage}}


def _chunk_of(part: Part) -> dict[str, Any] | None:
    """Return the chunk of a part of a message; None if it has none."""
    match part:
        case parts.TextStart():
            return {"type": "text-start", "id": part.message_id}
        case parts.TextDelta():
            return {"type": "text-delta", "id": part.message_id, "delta": part.text}
        case parts.TextEnd():
            return {"type": "text-end", "id": part.message_id}
        case parts.ReasoningStart():
            return {"type": "reasoning-start", "id": f"{part.message_id}-reasoning"}
        case parts.ReasoningDelta():
            return {"type": "reasoning-delta", "id": f"{part.message_id}-reasoning", "delta": part.text}
        case parts.ReasoningEnd():
            return {"type": "reasoning-end", "id": f"{part.message_id}-reasoning"}
        case parts.ToolCallStart():
            return {"type": "tool-input-start", "toolCallId": part.call_id, "toolName": part.name, "dynamic": True}
        case parts.ToolCallDelta():
            return {"type": "tool-input-delta", "toolCallId": part.call_id, "inputTextDelta": part.args}
        case parts.ToolCallEnd():
            return _input_of(part)
        case parts.ToolResult():
            if part.failed:
                return {
                    "type": "tool-output-error",
                    "toolCallId": part.call_id,
                    "errorText": _text(part),
                    "dynamic": True,
                }
            return {
                "type": "tool-output-available",
                "toolCallId": part.call_id,
                "output": part.content,
                "dynamic": True,
            }
        case _:
            return None


def _text(part: parts.ToolResult) -> str:
    return parts.text_in(part.content) or "The tool failed."


def _input_of(part: parts.ToolCallEnd) -> dict[str, Any]:
    call = {"toolCallId": part.call_id, "toolName": part.name, "dynamic": True}
    try:
        return {"type": "tool-input-available", **call, "input": msgspec.json.decode(part.args or "{}")}
    except UNREADABLE_JSON:
        return {
            "type": "tool-input-error",
            **call,
            "input": part.args,
            "errorText": "The arguments are not valid JSON.",
        }


def _question(question: dict[str, Any]) -> dict[str, Any]:
    """Return the chunk of a question: an approval of a call, or data that the application shows as a form."""
    value = question.get("value")
    call_id = next((call.call_id for call in calls_of(value)), "") if kind_of(value) == "approval" else ""
    if call_id:
        return {"type": "tool-approval-request", "approvalId": question["id"], "toolCallId": call_id}
    data = {"value": value, "responseSchema": question.get("response_schema")}
    return {"type": "data-question", "id": question["id"], "data": data}

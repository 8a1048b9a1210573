"""Project a run onto a chat completion: https://platform.openai.com/docs/api-reference/chat/streaming

Calls of the client's tools are in it, and questions to people as text. Tools that the agent runs itself stay out, as a
client would take their calls for requests to run them. Several messages of one run are one completion, with a blank
line between them.
"""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from app.domain.events import Event
from app.domain.messages import Usage
from app.protocols.openai.endings import early_finish, is_cut, refusal_of
from app.protocols.openai.errors import error_body
from app.protocols.parts import (
    MessageDone,
    MessagesRetracted,
    Part,
    PartAssembler,
    QuestionsAsked,
    ReasoningDelta,
    RunBegins,
    RunEnds,
    RunFailed,
    TextDelta,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from app.protocols.projection import FrameNumbers, ProjectedFrame
from app.protocols.questions import client_call_id, words_of
from app.protocols.states import RunState

FINISH_REASONS = {
    RunState.SUCCESS: "stop",
    RunState.TIMEOUT: "length",
    RunState.CANCELLED: "stop",
}
"""``finish_reason`` by the state that a run ends with; a failed one ends with an error instead."""

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode

STOPPING = b"data: %b\n\n" % _encode(
    error_body(
        503,
        "The server is stopping, and the run goes on: the header X-Run-Id has its id. Send the request again only with "
        "the Idempotency-Key that it had.",
    )
)
"""Ends a stream of a server that stops: without it, clients would take the answer for complete."""


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return token counts in OpenAI's names."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


class Ending:
    """How a completion ends, by the parts of its run.

    ``failure``: the error that it ends with; a run that used up its time or its tokens has an answer instead.
    """

    def __init__(self) -> None:
        self._early = ""
        self._failure: RunFailed | None = None

    def note(self, part: MessageDone | RunFailed) -> None:
        """Take a part that says something about the end."""
        if isinstance(part, RunFailed):
            self._failure = part
        else:
            self._early = early_finish(part.message)

    def failure(self, state: RunState) -> RunFailed | None:
        """Return the error of a run that ended with ``state``."""
        return None if state is RunState.TIMEOUT or self._is_cut else self._failure

    def finish_reason(self, state: RunState, *, calls: bool) -> str:
        """Return why a completion ended. One that asks a person is a text, unless it calls tools of the client."""
        if self._is_cut:
            return "length"
        if state is RunState.ASKING:
            return "tool_calls" if calls else "stop"
        return self._early if self._early and state is RunState.SUCCESS else FINISH_REASONS.get(state, "stop")

    @property
    def _is_cut(self) -> bool:
        return self._failure is not None and is_cut(self._failure)


def asked_text(asked: QuestionsAsked) -> str:
    """Return the questions to people in words; another API, or the console, takes the answers."""
    values = [question.get("value") for question in asked.questions]
    return "\n\n".join(words_of(value) or _encode(value).decode() for value in values if client_call_id(value) is None)


class ChatProjection:
    """Chunks of a streamed completion. Implements ``app.protocols.projection.Projection``."""

    stopping = STOPPING

    def __init__(
        self,
        completion_id: str,
        model: str,
        created: int,
        *,
        include_usage: bool = False,
        client_tools: Collection[str] = (),
    ) -> None:
        self._head = b'{"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            _encode(completion_id),
            created,
            _encode(model),
        )
        self._include_usage = include_usage
        self._tail = b'],"usage":null}' if include_usage else b"]}"
        self._assembler = PartAssembler()
        self._numbers = FrameNumbers()
        self._has_text = False
        self._blank_line = ""
        self._begun = False
        self._ending = Ending()
        self._client_tools = client_tools
        self._calls: dict[str, int] = {}

    def project(self, event: Event) -> Iterator[ProjectedFrame]:
        """Return the chunks of ``event``."""
        for part in self._assembler.parts(event):
            for data in self._chunks(part):
                yield ProjectedFrame(self._numbers.next(), data)

    def _chunks(self, part: Part) -> Iterator[bytes]:
        match part:
            case TextDelta():
                text, self._blank_line = self._blank_line + part.text, ""
                yield self._chunk(b'{"content":' + _encode(text) + b"}")
            case ReasoningDelta():
                yield self._chunk(b'{"reasoning_content":' + _encode(part.text) + b"}")
            case TextStart():
                self._blank_line = "\n\n" if self._has_text else ""  # no chunk of its own: a replay may have none
                self._has_text = True
            case ToolCallStart() if part.name in self._client_tools:
                at = self._calls[part.call_id] = len(self._calls)
                yield self._chunk(_encode({"tool_calls": [{"index": at, **tool_call(part.call_id, part.name, "")}]}))
            case ToolCallDelta() if part.call_id in self._calls:
                piece = {"index": self._calls[part.call_id], "function": {"arguments": part.args}}
                yield self._chunk(_encode({"tool_calls": [piece]}))
            case RunBegins():
                if not self._begun:
                    self._begun = True
                    yield self._chunk(b'{"role":"assistant","content":""}')
            case MessagesRetracted():
                self._numbers.retracted(part.epoch)
            case QuestionsAsked():
                if words := asked_text(part):
                    yield self._chunk(b'{"content":' + _encode("\n\n" + words if self._has_text else words) + b"}")
            case MessageDone() | RunFailed():
                self._ending.note(part)
            case RunEnds():
                yield from self._end(part)

    def _end(self, part: RunEnds) -> Iterator[bytes]:
        failure = self._ending.failure(part.state)
        if failure is not None:
            yield b"data: " + _encode(refusal_of(failure).body) + b"\n\n"
        else:
            yield self._chunk(b"{}", _encode(self._ending.finish_reason(part.state, calls=bool(self._calls))))
            if self._include_usage:
                usage = b'],"usage":' + _encode(usage_of(part.usage)) + b"}"
                yield b"data: " + self._head + usage + b"\n\n"
        yield DONE

    def _chunk(self, delta: bytes, finish: bytes = b"null") -> bytes:
        choice = b'{"index":0,"delta":' + delta + b',"logprobs":null,"finish_reason":' + finish + b"}"
        return b"data: " + self._head + choice + self._tail + b"\n\n"


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a call of a client's tool."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


class ChatCollector:
    """Collects a run's whole completion."""

    def __init__(self, completion_id: str, model: str, created: int, client_tools: Collection[str] = ()) -> None:
        self._id = completion_id
        self._model = model
        self._created = created
        self._assembler = PartAssembler()
        self._texts: list[tuple[str, list[str]]] = []
        self._reasoning: list[tuple[str, str]] = []
        self._client_tools = client_tools
        self._calls: dict[str, ToolCallEnd] = {}
        self._ending = Ending()
        self.ended: RunEnds | None = None

    def add(self, event: Event) -> None:
        """Add an event."""
        for part in self._assembler.parts(event):
            match part:
                case TextStart():
                    self._texts.append((part.message_id, []))
                case TextDelta():
                    self._text_of(part.message_id).append(part.text)
                case ReasoningDelta():
                    self._reasoning.append((part.message_id, part.text))
                case ToolCallEnd() if part.name in self._client_tools:
                    self._calls[part.call_id] = part
                case MessagesRetracted():
                    self._calls = {
                        id_: call for id_, call in self._calls.items() if call.message_id not in part.message_ids
                    }
                    self._texts = [one for one in self._texts if one[0] not in part.message_ids]
                    self._reasoning = [one for one in self._reasoning if one[0] not in part.message_ids]
                case QuestionsAsked():
                    if words := asked_text(part):
                        self._texts.append(("", [words]))
                case MessageDone() | RunFailed():
                    self._ending.note(part)
                case RunEnds():
                    self.ended = part

    def _text_of(self, message_id: str) -> list[str]:
        """Return the newest text of a message; nodes that run at the same time say theirs by turns."""
        return next(pieces for said_by, pieces in reversed(self._texts) if said_by == message_id)

    def completion(self) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of the response, once the run has ended."""
        assert self.ended is not None
        failure = self._ending.failure(self.ended.state)
        if failure is not None:
            return refusal_of(failure)
        content = "\n\n".join("".join(pieces) for _, pieces in self._texts)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._reasoning:
            message["reasoning_content"] = "".join(text for _, text in self._reasoning)
        if self._calls:
            message["content"] = content or None
            message["tool_calls"] = [tool_call(one.call_id, one.name, one.args) for one in self._calls.values()]
        finish = self._ending.finish_reason(self.ended.state, calls=bool(self._calls))
        return 200, {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": usage_of(self.ended.usage),
        }

"""Answers of models as they are kept: what they depend on, which may be kept, and how they are said again.

A kept answer is said in its own pieces. The ids of its tool calls are new each time: tools run again, as their class
says, and no two calls share an idempotency key. Nothing is charged for it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.base.ids import new_id
from app.domain.messages import AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage, Usage
from app.providers.llm.port import Finished, ModelEvent, ModelRequest, ReasoningDelta, TextDelta, ToolCallDelta

WHOLE = frozenset({"stop", "tool_calls"})
"""Why an answer that may be kept has ended: one that was cut short or filtered is none."""
PIECE = 200
"""Characters from which on a piece of a kept answer is not added to."""
FROM_CACHE = "response_cache"
"""The detail of ``usage_metadata`` that has the tokens of a kept answer."""


class CachedAnswer(msgspec.Struct, frozen=True, array_like=True):
    """An answer, and when it was given (seconds since 1970)."""

    given_at: float
    events: list[ModelEvent]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CachedAnswer).decode


def question_of(request: ModelRequest) -> list[Any]:
    """All that the answer to ``request`` depends on, and nothing that differs from one asking to the next.

    The ids of messages, and what is noted beside them of how they came about, go to no provider. The ids of calls do;
    what counts of these is which answer belongs to which call.
    """
    places: dict[str, int] = {}
    return [
        request.instructions,
        [_message_of(message, places) for message in request.messages],
        [(tool.name, tool.description, tool.parameters) for tool in request.tools],
        request.temperature,
        request.max_tokens,
        request.model_settings,
    ]


def _message_of(message: Message, places: dict[str, int]) -> list[Any]:
    said = [str(message.__struct_config__.tag), message.content, message.name, message.additional_kwargs]
    if isinstance(message, AIMessage):
        calls: list[ToolCall | InvalidToolCall] = [*message.tool_calls, *message.invalid_tool_calls]
        return [*said, [(call.name, call.args, places.setdefault(call.id, len(places))) for call in calls]]
    if isinstance(message, ToolMessage):
        return [*said, places.setdefault(message.tool_call_id, len(places)), message.status]
    return said


def is_cacheable(events: Sequence[ModelEvent]) -> bool:
    """Whether ``events`` are a whole answer, by the model that was asked, that says something and can be used."""
    if not events or not isinstance(end := events[-1], Finished):
        return False
    if end.reason not in WHOLE or end.instead or end.cached:
        return False
    calls: dict[int, list[ToolCallDelta]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls.setdefault(event.index, []).append(event)
    if not calls:
        return any(isinstance(event, TextDelta) for event in events)
    return all(pieces[0].name and _object("".join(piece.args for piece in pieces)) for pieces in calls.values())


def _object(text: str) -> bool:
    """Whether ``text`` is a JSON object, or nothing, which counts as one without fields."""
    try:
        msgspec.json.decode(text or "{}", type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def pack(events: Sequence[ModelEvent], given_at: float) -> bytes:
    """``events`` as they are kept, small pieces joined."""
    joined: list[ModelEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and len(last.text) < PIECE:
            joined[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta) and len(last.text) < PIECE:
            joined[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta) and last.index == event.index:
            joined[-1] = msgspec.structs.replace(last, args=last.args + event.args)
        else:
            joined.append(event)
    return _encode(CachedAnswer(given_at, joined))


def unpack(body: bytes) -> CachedAnswer | None:
    """The answer that was kept as ``body``; None where that is none."""
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if any(isinstance(event, Finished) for event in answer.events[:-1]) or not is_cacheable(answer.events):
        return None
    return answer


def replay(event: ModelEvent) -> ModelEvent:
    """``event`` for another one than him for whom it was made."""
    if isinstance(event, ToolCallDelta) and event.id is not None:
        return msgspec.structs.replace(event, id=f"call_{new_id().hex}")
    if isinstance(event, Finished):
        return msgspec.structs.replace(event, usage=without_usage(event.usage), cached=True)
    return event


def without_usage(usage: Usage | None) -> Usage | None:
    """What is told of tokens that were not used again."""
    if usage is None:
        return None
    return Usage(
        input_token_details={FROM_CACHE: usage.input_tokens}, output_token_details={FROM_CACHE: usage.output_tokens}
    )

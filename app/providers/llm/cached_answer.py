"""Cached answers: their cache key, which answers are cacheable, serialisation and replay.

A replayed answer keeps its deltas. Its tool calls get new ids each time: tools run again according to their class, and
no two calls share an idempotency key. A replay is not charged.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.base.ids import new_id
from app.base.json_scan import UNREADABLE_JSON
from app.domain.messages import AIMessage, InvalidToolCall, Message, ToolCall, ToolMessage, Usage
from app.providers.llm.port import (
    ANY_TOOL,
    Finished,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)

CACHEABLE_REASONS = frozenset({"stop", "tool_calls"})
"""Finish reasons of cacheable answers: truncated and filtered ones are not cached."""
MIN_DELTA_LENGTH = 200
"""Smaller deltas of a cached answer are joined up to this many characters."""
FROM_CACHE = "response_cache"
"""The detail of ``usage_metadata`` that holds the tokens of a cached answer."""


class CachedAnswer(msgspec.Struct, frozen=True, array_like=True):
    """An answer and its time (seconds since 1970)."""

    answered_at: float
    events: list[ModelEvent]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CachedAnswer).decode


def cache_key_parts(request: ModelRequest) -> list[Any]:
    """Return the parts of ``request`` that determine its answer, without ids that differ between equal requests.

    Message ids and response metadata are not sent to providers. Call ids are, but only the pairing of calls and answers
    matters, so they are numbered.
    """
    call_numbers: dict[str, int] = {}
    parts: list[Any] = [
        request.instructions,
        [_message_of(message, call_numbers) for message in request.messages],
        [(tool.name, tool.description, tool.parameters) for tool in request.tools],
        request.temperature,
        request.max_tokens,
        request.model_settings,
    ]
    if request.tool_choice != ANY_TOOL or not request.parallel_tool_calls:
        parts += [request.tool_choice, request.parallel_tool_calls]
    if request.output_schema is not None:
        parts.append(request.output_schema)
    return parts


def _message_of(message: Message, call_numbers: dict[str, int]) -> list[Any]:
    parts = [str(message.__struct_config__.tag), message.content, message.name, message.additional_kwargs]
    if isinstance(message, AIMessage):
        calls: list[ToolCall | InvalidToolCall] = [*message.tool_calls, *message.invalid_tool_calls]
        return [*parts, [(call.name, call.args, call_numbers.setdefault(call.id, len(call_numbers))) for call in calls]]
    if isinstance(message, ToolMessage):
        return [*parts, call_numbers.setdefault(message.tool_call_id, len(call_numbers)), message.status]
    return parts


def is_cacheable(events: Sequence[ModelEvent]) -> bool:
    """Whether ``events`` are a complete, usable and non-empty answer of the primary model."""
    if not events or not isinstance(end := events[-1], Finished):
        return False
    if end.reason not in CACHEABLE_REASONS or end.instead or end.cached:
        return False
    calls: dict[int, list[ToolCallDelta]] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls.setdefault(event.index, []).append(event)
    if not calls:
        return any(isinstance(event, TextDelta) for event in events)
    return all(pieces[0].name and _object("".join(piece.args for piece in pieces)) for pieces in calls.values())


def _object(text: str) -> bool:
    """Whether ``text`` is a JSON object; empty text counts as an empty object."""
    try:
        msgspec.json.decode(text or "{}", type=dict[str, msgspec.Raw])
    except UNREADABLE_JSON:
        return False
    return True


def pack(events: Sequence[ModelEvent], answered_at: float) -> bytes:
    """Serialise ``events``, with small deltas joined."""
    joined: list[ModelEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta) and len(last.text) < MIN_DELTA_LENGTH:
            joined[-1] = TextDelta(last.text + event.text)
        elif (
            isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta) and len(last.text) < MIN_DELTA_LENGTH
        ):
            joined[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta) and last.index == event.index:
            joined[-1] = msgspec.structs.replace(last, args=last.args + event.args)
        else:
            joined.append(event)
    return _encode(CachedAnswer(answered_at, joined))


def unpack(body: bytes) -> CachedAnswer | None:
    """Deserialise a cached answer; None if ``body`` is invalid."""
    try:
        answer = _decode(body)
    except UNREADABLE_JSON:
        return None
    if any(isinstance(event, Finished) for event in answer.events[:-1]) or not is_cacheable(answer.events):
        return None
    return answer


def replay(event: ModelEvent) -> ModelEvent:
    """Copy ``event`` for a replay: new call ids, no usage, marked as cached."""
    if isinstance(event, ToolCallDelta) and event.id is not None:
        return msgspec.structs.replace(event, id=f"call_{new_id().hex}")
    if isinstance(event, Finished):
        return msgspec.structs.replace(event, usage=cached_usage(event.usage), retries=0, cached=True)
    return event


def cached_usage(usage: Usage | None) -> Usage | None:
    """Return the usage of a cached answer: zero tokens, with the original counts as details."""
    if usage is None:
        return None
    return Usage(
        input_token_details={FROM_CACHE: usage.input_tokens}, output_token_details={FROM_CACHE: usage.output_tokens}
    )

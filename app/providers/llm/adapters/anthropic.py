"""Adapter of Anthropic's Messages API.

Source: https://docs.anthropic.com/en/api/messages-streaming. Unknown kinds of events and blocks are skipped, as that
page requires.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.base.ids import new_id
from app.base.json_scan import UNREADABLE_JSON
from app.domain.messages import Usage
from app.providers.llm.adapters.anthropic_request import body_of
from app.providers.llm.adapters.http_client import Endpoint, HttpClient, ProviderEventStream
from app.providers.llm.adapters.provider_errors import ErrorDetail, stream_error
from app.providers.llm.adapters.streaming_model import (
    HttpModel,
    StreamParser,
    details,
    unreadable,
)
from app.providers.llm.billing import count
from app.providers.llm.port import ModelEvent, ModelRequest, ReasoningDelta, TextDelta, ToolCallDelta
from app.providers.llm.profiles import anthropic_profile

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class UsagePart(msgspec.Struct):
    """Token counts of this API: cached input is not part of ``input_tokens``."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class MessageStart(msgspec.Struct):
    """The message of a ``message_start`` event."""

    usage: UsagePart | None = None


class ContentBlock(msgspec.Struct):
    """The start of a content block. ``input`` is empty, except from gateways that send calls whole."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    input: dict[str, Any] | None = None


class BlockDelta(msgspec.Struct):
    """A delta of a block, or (in ``message_delta``) of the message."""

    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    stop_reason: str | None = None


class MessageEvent(msgspec.Struct):
    """The data of an event of any type."""

    type: str
    index: int = 0
    delta: BlockDelta | None = None
    content_block: ContentBlock | None = None
    message: MessageStart | None = None
    usage: UsagePart | None = None
    error: ErrorDetail | None = None


class StreamedCall(msgspec.Struct):
    """A partial tool call; ``given``: whether any of its arguments arrived."""

    ordinal: int
    given: bool = False


class Listed(msgspec.Struct):
    """One model of the model list."""

    id: str


class Listing(msgspec.Struct):
    """The response of ``GET /v1/models``."""

    data: list[Listed]


_event = msgspec.json.Decoder(MessageEvent).decode
_listing = msgspec.json.Decoder(Listing).decode


class AnthropicModel(HttpModel):
    """A model behind the Messages API."""

    def __init__(self, name: str, http: HttpClient, endpoint: Endpoint) -> None:
        super().__init__(name, http, endpoint)
        self._profile = anthropic_profile(name)

    async def _ask(self, request: ModelRequest) -> tuple[ProviderEventStream, StreamParser]:
        stream = await self._post("/v1/messages", body_of(self.name, request, self._profile))
        return stream, AnthropicParser(self._endpoint, self.name)

    async def list_models(self, seconds: float = 10.0) -> list[str]:
        """Return the names of the models that the key may use."""
        try:
            listing = _listing(await self._get("/v1/models?limit=100", seconds))
        except UNREADABLE_JSON as error:
            raise unreadable(self.vendor, error) from None
        return [model.id for model in listing.data]


class AnthropicParser(StreamParser):
    """Parse the events of one answer."""

    reasons = REASONS

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        super().__init__(endpoint, model)
        self._usage: UsagePart | None = None
        self._calls: dict[int, StreamedCall] = {}
        self._ids: set[str] = set()

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far."""
        return None if self._usage is None else usage_of(self._usage)

    def feed(self, payload: bytes) -> Sequence[ModelEvent]:
        """Parse one event's data. Raises ``ModelError``."""
        try:
            event = _event(payload)
        except UNREADABLE_JSON as error:
            raise unreadable(self._endpoint.vendor, error) from None
        kind = event.type
        if kind == "content_block_delta":
            return () if event.delta is None else self._piece(event.index, event.delta)
        if kind == "content_block_start":
            return () if event.content_block is None else self._start(event.index, event.content_block)
        if kind == "message_start":
            self._count(None if event.message is None else event.message.usage)
        elif kind == "message_delta":
            self._count(event.usage)
            self.usage_reported = self.usage_reported or event.usage is not None
            if event.delta is not None and event.delta.stop_reason:
                self._reason = event.delta.stop_reason
                self.complete = True
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            raise stream_error(self._endpoint, event.error or ErrorDetail())
        return ()

    def close(self) -> Sequence[ModelEvent]:
        """Return the closing events: empty arguments for calls that got none, and ``Finished``."""
        events: list[ModelEvent] = [
            ToolCallDelta(call.ordinal, args="{}") for call in self._calls.values() if not call.given
        ]
        return [*events, self._finished(calls=False)]

    def _piece(self, index: int, delta: BlockDelta) -> Sequence[ModelEvent]:
        if delta.text:
            return (TextDelta(delta.text),)
        if delta.partial_json:
            call = self._calls.get(index)
            if call is None:
                return ()
            call.given = True
            return (ToolCallDelta(call.ordinal, args=delta.partial_json),)
        if delta.thinking:
            return (ReasoningDelta(delta.thinking),)
        return ()

    def _start(self, index: int, block: ContentBlock) -> Sequence[ModelEvent]:
        if block.type == "text" and block.text:
            return (TextDelta(block.text),)
        if block.type == "thinking" and block.thinking:
            return (ReasoningDelta(block.thinking),)
        if block.type != "tool_use":
            return ()
        if not block.name or index in self._calls:
            raise self._violation("sent a tool call without a name or with a duplicate index")
        self._check_room(len(self._calls))
        identity = block.id if block.id and block.id not in self._ids else f"call_{new_id().hex}"
        self._ids.add(identity)
        call = self._calls[index] = StreamedCall(len(self._calls), given=bool(block.input))
        args = msgspec.json.encode(block.input).decode() if block.input else ""
        return (ToolCallDelta(call.ordinal, identity, block.name, args),)

    def _count(self, part: UsagePart | None) -> None:
        """Merge the counts of ``part``. They are cumulative, so later ones replace earlier ones."""
        if part is None:
            return
        held = self._usage = self._usage or UsagePart()
        for field in UsagePart.__struct_fields__:
            if (value := getattr(part, field)) is not None:
                setattr(held, field, value)


def usage_of(part: UsagePart) -> Usage:
    """Convert to our usage: input includes tokens read from and written to the provider's cache."""
    read, written = count(part.cache_read_input_tokens), count(part.cache_creation_input_tokens)
    input_tokens, output_tokens = count(part.input_tokens) + read + written, count(part.output_tokens)
    return Usage(
        input_tokens, output_tokens, input_tokens + output_tokens, details(cache_read=read, cache_creation=written)
    )

"""Adapter of OpenAI's Chat Completions API, for OpenAI and compatible servers.

Source: https://platform.openai.com/docs/api-reference/chat. Compatible servers deviate: the parser accepts tool calls
without an index or an id, arguments sent whole, answers without usage or without ``[DONE]``.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.base.errors import ModelError, ModelRejected
from app.base.ids import new_id
from app.base.json_scan import UNREADABLE_JSON
from app.domain.messages import Usage
from app.providers.llm.adapters.http_client import Endpoint, HttpClient, ProviderEventStream
from app.providers.llm.adapters.openai_request import body_of
from app.providers.llm.adapters.provider_errors import ErrorDetail, stream_error
from app.providers.llm.adapters.streaming_model import (
    HttpModel,
    StreamParser,
    details,
    unreadable,
)
from app.providers.llm.billing import count
from app.providers.llm.port import ModelEvent, ModelRequest, ReasoningDelta, TextDelta, ToolCallDelta
from app.providers.llm.profiles import NOT_FOR_CHAT, OPENAI_DEFAULT, openai_profile, without_rejected

AUTO = "auto"
"""Model name that selects the first model that the server lists."""

MAX_PROFILE_CHANGES = 3
DONE = b"[DONE]"
REASONS = {"function_call": "tool_calls", "tool_use": "tool_calls", "max_tokens": "length"}


class PromptDetails(msgspec.Struct, gc=False):
    """Breakdown of the prompt's tokens."""

    cached_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """Breakdown of the answer's tokens."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class UsagePart(msgspec.Struct):
    """Token counts of this API: the details are included in the sums."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class FunctionPart(msgspec.Struct):
    """A delta of a call; ``arguments`` is a piece of JSON text, or the whole object from servers that decode it."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallPart(msgspec.Struct):
    """A delta of the tool call ``index``."""

    index: int | None = None
    id: str | None = None
    function: FunctionPart | None = None


class ChoiceDelta(msgspec.Struct):
    """A delta of the answer. ``reasoning`` is the newer name of ``reasoning_content``."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPart] | None = None


class Choice(msgspec.Struct):
    """One choice; only the first is requested."""

    index: int = 0
    delta: ChoiceDelta | None = None
    finish_reason: str | None = None


class CompletionChunk(msgspec.Struct):
    """The data of one event of the stream."""

    choices: list[Choice] | None = None
    usage: UsagePart | None = None
    error: ErrorDetail | str | None = None


class StreamedCall(msgspec.Struct):
    """A partial tool call. ``waiting`` buffers arguments until the name is known; ``given``: some arrived."""

    ordinal: int
    id: str
    waiting: list[str]
    named: bool = False
    given: bool = False


class Listed(msgspec.Struct):
    """One model of the model list."""

    id: str


class Listing(msgspec.Struct):
    """The response of ``GET /models``."""

    data: list[Listed] | None = None


_chunk = msgspec.json.Decoder(CompletionChunk).decode
_listing = msgspec.json.Decoder(Listing).decode


class OpenAIModel(HttpModel):
    """A model behind the Chat Completions API.

    The name ``auto`` resolves, at the first use, to OpenAI's default model if listed, else to the first listed one.
    """

    def __init__(self, name: str, http: HttpClient, endpoint: Endpoint) -> None:
        super().__init__(name, http, endpoint)
        self._profile = openai_profile(endpoint.base_url, name)

    async def _ask(self, request: ModelRequest) -> tuple[ProviderEventStream, StreamParser]:
        if self.name == AUTO:
            self.name = await self._first_listed()
            self._profile = openai_profile(self._endpoint.base_url, self.name)
        for _ in range(MAX_PROFILE_CHANGES):
            try:
                return await self._open(request)
            except ModelRejected as refusal:
                reduced = without_rejected(self._profile, str(refusal))
                if reduced is None:
                    raise
                self._profile = reduced
        return await self._open(request)

    async def list_models(self, seconds: float = 10.0) -> list[str]:
        """Return the names of the models that the server offers."""
        try:
            listing = _listing(await self._get("/models", seconds))
        except UNREADABLE_JSON as error:
            raise unreadable(self.vendor, error) from None
        return [model.id for model in listing.data or ()]

    async def _first_listed(self) -> str:
        names = await self.list_models()
        if OPENAI_DEFAULT in names:
            return OPENAI_DEFAULT
        for name in names:
            if not any(part in name.lower() for part in NOT_FOR_CHAT):
                return name
        raise ModelRejected(f"{self.vendor} lists no chat model", vendor=self.vendor)

    async def _open(self, request: ModelRequest) -> tuple[ProviderEventStream, StreamParser]:
        stream = await self._post("/chat/completions", body_of(self.name, request, self._profile))
        return stream, OpenAIParser(self._endpoint, self.name)


class OpenAIParser(StreamParser):
    """Parse the chunks of one answer."""

    reasons = REASONS

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        super().__init__(endpoint, model)
        self._usage: UsagePart | None = None
        self._calls: list[StreamedCall] = []
        self._by_index: dict[int, StreamedCall] = {}

    @property
    def usage(self) -> Usage | None:
        """The usage reported so far."""
        return None if self._usage is None else usage_of(self._usage)

    def feed(self, payload: bytes) -> Sequence[ModelEvent]:
        """Parse one chunk. Raises ``ModelError``."""
        if payload == DONE:
            self.ended = True
            return ()
        try:
            chunk = _chunk(payload)
        except UNREADABLE_JSON as error:
            raise unreadable(self._endpoint.vendor, error) from None
        if chunk.error is not None:
            raise self._failure(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
            self.usage_reported = True
        events: list[ModelEvent] = []
        for choice in chunk.choices or ():
            if choice.index:
                continue
            if choice.delta is not None:
                self._read(choice.delta, events)
            if choice.finish_reason:
                self._reason = choice.finish_reason
                self.complete = True
        return events

    def close(self) -> Sequence[ModelEvent]:
        """Return the closing events. Raises ``ModelProtocol`` if a call has no name."""
        events: list[ModelEvent] = []
        for call in self._calls:
            if not call.named:
                raise self._violation("sent a tool call without a name")
            if not call.given:
                events.append(ToolCallDelta(call.ordinal, args="{}"))
        return [*events, self._finished(calls=bool(self._calls))]

    def _read(self, delta: ChoiceDelta, events: list[ModelEvent]) -> None:
        if text := delta.content:
            events.append(TextDelta(text))
        if text := delta.reasoning_content or delta.reasoning:
            events.append(ReasoningDelta(text))
        if text := delta.refusal:
            events.append(TextDelta(text))
        pieces = map(self._piece, delta.tool_calls or ())
        events.extend(piece for piece in pieces if piece is not None)

    def _piece(self, part: CallPart) -> ToolCallDelta | None:
        function = part.function or FunctionPart()
        call = self._call(part, function.name)
        args = function.arguments or ""
        if isinstance(args, dict):
            args = msgspec.json.encode(args).decode()
        call.given = call.given or bool(args)
        if call.named:
            return ToolCallDelta(call.ordinal, args=args) if args else None
        call.waiting.append(args)
        if not function.name:
            return None
        call.named = True
        return ToolCallDelta(call.ordinal, call.id, function.name, "".join(call.waiting))

    def _call(self, part: CallPart, name: str | None) -> StreamedCall:
        """Return the call that ``part`` belongs to, or create one."""
        if part.index is not None:
            known = self._by_index.get(part.index)
            # Some servers send index 0 for every call: a different id with a name starts another call.
            if known is not None and not (name and known.named and part.id and part.id != known.id):
                return known
        elif part.id:
            for known in self._calls:
                if known.id == part.id:
                    return known
        elif self._calls and not name:
            return self._calls[-1]
        self._check_room(len(self._calls))
        taken = {known.id for known in self._calls}
        identity = part.id if part.id and part.id not in taken else f"call_{new_id().hex}"
        call = StreamedCall(len(self._calls), identity, [])
        self._calls.append(call)
        if part.index is not None:
            self._by_index[part.index] = call
        return call

    def _failure(self, error: ErrorDetail | str) -> ModelError:
        detail = ErrorDetail(message=error) if isinstance(error, str) else error
        return stream_error(self._endpoint, detail)


def usage_of(part: UsagePart) -> Usage:
    """Convert to our usage, with details named as LangGraph clients expect."""
    prompt, answer = part.prompt_tokens_details, part.completion_tokens_details
    input_tokens, output_tokens = count(part.prompt_tokens), count(part.completion_tokens)
    return Usage(
        input_tokens,
        output_tokens,
        count(part.total_tokens) or input_tokens + output_tokens,
        {} if prompt is None else details(cache_read=prompt.cached_tokens, audio=prompt.audio_tokens),
        {} if answer is None else details(reasoning=answer.reasoning_tokens, audio=answer.audio_tokens),
    )

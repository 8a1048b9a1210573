"""Model wrapper that records metrics and spans (OpenTelemetry GenAI semantic conventions)."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import lru_cache
from typing import Any, cast

import msgspec

from app.base.errors import ModelError
from app.domain.messages import AIMessage, ToolMessage, text_of
from app.infra.telemetry.labels import CANCELLED
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import CLIENT, Span, SpanTemplate, Tracer, Value
from app.providers.llm.port import Finished, Model, ModelEvent, ModelRequest, TextDelta

OPERATION = "chat"

_encode = msgspec.json.Encoder().encode


class InstrumentedModel:
    """``model`` with metrics on ``meters`` and spans from ``tracer``."""

    def __init__(self, model: Model, meters: Meters, tracer: Tracer) -> None:
        self.vendor = model.vendor
        self.name = model.name
        self._model = model
        self._meters = meters
        self._tracer = tracer
        self._span_template = _span_template(self.name, self.vendor)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Call the model; record duration, tokens and outcome."""
        started_at = time.monotonic()
        vendor, name, failure, first = self.vendor, self.name, "", 0.0
        end: Finished | None = None
        span = self._tracer.start(self._span_template)
        text_deltas: list[str] | None = [] if span is not None and self._tracer.content else None
        events = cast("AsyncGenerator[ModelEvent, None]", self._model.stream(request))
        try:
            async for event in events:
                first = first or time.monotonic()
                if isinstance(event, Finished):
                    end = event
                    vendor, name = event.vendor, event.model
                    self._count(event, first - started_at)
                elif text_deltas is not None and isinstance(event, TextDelta):
                    text_deltas.append(event.text)
                yield event
        except ModelError as error:
            failure = type(error).__name__
            raise
        finally:
            await events.aclose()
            self._meters.model_duration.record(time.monotonic() - started_at, OPERATION, vendor, name, failure)
            if span is not None:
                self._add_attributes(span, request, end)
                if first:
                    span.attributes["gen_ai.response.time_to_first_chunk"] = first - started_at
                if text_deltas is not None:
                    _add_content(span, request, "".join(text_deltas), end)
                span.end(failure or ("" if end is not None else CANCELLED))

    def _count(self, end: Finished, first: float) -> None:
        labels = (OPERATION, end.vendor, end.model)
        self._meters.first_token.record(first, *labels)
        if end.usage is not None:
            self._meters.model_tokens.record(end.usage.input_tokens, *labels, "input")
            self._meters.model_tokens.record(end.usage.output_tokens, *labels, "output")

    def _add_attributes(self, span: Span, request: ModelRequest, end: Finished | None) -> None:
        attributes = span.attributes
        if request.temperature is not None:
            attributes["gen_ai.request.temperature"] = request.temperature
        if request.max_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = request.max_tokens
        if end is not None:
            span.template = _span_template(self.name, end.vendor, end.model, end.reason)
            if end.usage is not None:
                attributes["gen_ai.usage.input_tokens"] = end.usage.input_tokens
                attributes["gen_ai.usage.output_tokens"] = end.usage.output_tokens


@lru_cache(1024)
def _span_template(requested: str, vendor: str, answered: str = "", reason: str = "") -> SpanTemplate:
    """Return the span template of calls to ``requested``; of answered calls, with the ``answered`` model and reason."""
    attributes: list[tuple[str, Value]] = [
        ("gen_ai.operation.name", OPERATION),
        ("gen_ai.provider.name", vendor),
        ("gen_ai.request.model", requested),
        ("gen_ai.request.stream", True),
    ]
    if answered:
        attributes += [("gen_ai.response.model", answered), ("gen_ai.response.finish_reasons", (reason,))]
    return SpanTemplate(f"{OPERATION} {requested}", CLIENT, *attributes)


def _add_content(span: Span, request: ModelRequest, text_deltas: str, end: Finished | None) -> None:
    """Add the content of both sides to the span, in the conventions' message format."""
    if request.instructions:
        span.attributes["gen_ai.system_instructions"] = _encode([_text(request.instructions)]).decode()
    messages = [{"role": _role(message), "parts": _parts(message)} for message in request.messages]
    span.attributes["gen_ai.input.messages"] = _encode(messages).decode()
    answer = {
        "role": "assistant",
        "parts": [_text(text_deltas)],
        "finish_reason": CANCELLED if end is None else end.reason,
    }
    span.attributes["gen_ai.output.messages"] = _encode([answer]).decode()


def _text(content: Any) -> dict[str, Any]:
    return {"type": "text", "content": content}


def _role(message: Any) -> str:
    return {"human": "user", "ai": "assistant"}.get(_kind(message), _kind(message))


def _kind(message: Any) -> str:
    return str(message.__struct_config__.tag)


def _parts(message: Any) -> list[dict[str, Any]]:
    if isinstance(message, ToolMessage):
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}]
    parts = [_text(text_of(message.content))] if message.content else []
    if isinstance(message, AIMessage):
        parts += [
            {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.args}
            for call in message.tool_calls
        ]
    return parts

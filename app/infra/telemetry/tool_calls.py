"""Metrics and spans of tool calls (GenAI conventions)."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import INTERNAL, SpanTemplate, Tracer

EXECUTE = "execute_tool"

OnToolEnd = Callable[[str, Any], None]
"""Called when a call ends, with the type of its error (empty if none) and its result."""

OnToolStart = Callable[[str, str, Any], OnToolEnd]
"""Called when a call starts, with the tool, the call's id and its arguments."""


def unrecorded(_tool: str, _call_id: str, _args: Any) -> OnToolEnd:
    """No-op recorder (``OnToolStart``)."""
    return lambda _error, _answer: None


class ToolCallRecorder:
    """Counts tool calls, and records a span of each."""

    def __init__(self, meters: Meters, tracer: Tracer) -> None:
        self._meters = meters
        self._tracer = tracer

    def count(self, tool: str, outcome: str) -> None:
        """Count a finished call of ``tool``."""
        self._meters.tool_calls.add(1, tool, outcome)

    def begin(self, tool: str, call_id: str, args: Any) -> OnToolEnd:
        """Start a span of a call; spans that the tool starts until the returned function is called are its children."""
        started_at = time.monotonic()
        span = self._tracer.start(_template(tool))
        if span is not None:
            span.attributes["gen_ai.tool.call.id"] = call_id
            if self._tracer.content:
                span.attributes["gen_ai.tool.call.arguments"] = _text(args)
            leave = self._tracer.enter(span)

        def ended(error: str, answer: Any) -> None:
            self._meters.tool_duration.record(time.monotonic() - started_at, tool, error)
            if span is not None:
                leave()
                if self._tracer.content and answer is not None:
                    span.attributes["gen_ai.tool.call.result"] = _text(answer)
                span.end(error)

        return ended


@lru_cache(1024)
def _template(tool: str) -> SpanTemplate:
    named = ("gen_ai.operation.name", EXECUTE), ("gen_ai.tool.name", tool)
    return SpanTemplate(f"{EXECUTE} {tool}", INTERNAL, *named)


def _text(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()

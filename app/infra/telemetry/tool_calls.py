"""What is told of the calls of tools: how many, how long, and as spans (GenAI conventions)."""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import INTERNAL, SpanTemplate, Tracer

EXECUTE = "execute_tool"

OnToolEnd = Callable[[str, Any], None]
"""Is told how a call ended: the kind of its error (empty where there was none), and what it answered."""

OnToolStart = Callable[[str, str, Any], OnToolEnd]
"""Is told that a call begins: the tool, the call's id, its arguments."""


def unrecorded(_tool: str, _call_id: str, _args: Any) -> OnToolEnd:
    """Nobody listens."""
    return lambda _error, _answer: None


class ToolCallRecorder:
    """Counts the calls of tools, and makes a span of each."""

    def __init__(self, meters: Meters, tracer: Tracer) -> None:
        self._meters = meters
        self._tracer = tracer

    def count(self, tool: str, outcome: str) -> None:
        """A call of ``tool`` has ended."""
        self._meters.tool_calls.add(1, tool, outcome)

    def begin(self, tool: str, call_id: str, args: Any) -> OnToolEnd:
        """A call goes out; what the tool does until the answer of this is called is part of it."""
        began = time.monotonic()
        span = self._tracer.start(_form(tool))
        if span is not None:
            span.attributes["gen_ai.tool.call.id"] = call_id
            if self._tracer.content:
                span.attributes["gen_ai.tool.call.arguments"] = _text(args)
            span.enter()

        def ended(error: str, answer: Any) -> None:
            self._meters.tool_duration.record(time.monotonic() - began, tool, error)
            if span is not None:
                span.leave()
                if self._tracer.content and answer is not None:
                    span.attributes["gen_ai.tool.call.result"] = _text(answer)
                span.end(error)

        return ended


@lru_cache(1024)
def _form(tool: str) -> SpanTemplate:
    named = ("gen_ai.operation.name", EXECUTE), ("gen_ai.tool.name", tool)
    return SpanTemplate(f"{EXECUTE} {tool}", INTERNAL, *named)


def _text(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()

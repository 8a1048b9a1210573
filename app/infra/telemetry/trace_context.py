"""The current request, run and span of the running code.

Tasks inherit the context of the request that starts them, so log lines of a run name that request.
"""

import re
from contextvars import ContextVar
from typing import NamedTuple

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


request: ContextVar[str] = ContextVar("request", default="")
"""The current request's id; empty outside of a request."""

run_id: ContextVar[str] = ContextVar("run_id", default="")
"""The current run's id; empty outside of a run."""

SAMPLED = 0x01


def parse_traceparent(text: str) -> tuple[str, str]:
    """Parse a ``traceparent`` header into (trace id, parent span id), empty if invalid:
    https://www.w3.org/TR/trace-context/

    Version 00 has no further fields; a later version may have some.
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (text.startswith("00-") and len(text) != 55):
        return "", ""
    return match[1], match[2]


class SpanContext(NamedTuple):
    """A position in a trace: the current span ``span_id``. Without ``sampled`` no spans are recorded."""

    trace_id: bytes
    """16 bytes."""
    span_id: bytes
    """8 bytes."""
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The value of the ``traceparent`` header: https://www.w3.org/TR/trace-context/"""
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{'01' if self.sampled else '00'}"


current_span: ContextVar[SpanContext | None] = ContextVar("current_span", default=None)
"""The current span; inherited by tasks."""


def parse_span_context(traceparent: str) -> SpanContext | None:
    """Parse a caller's ``traceparent``; None if it is invalid."""
    trace_id, span_id = parse_traceparent(traceparent)
    if not trace_id:
        return None
    sampled = bool(int(traceparent[53:55], 16) & SAMPLED)
    return SpanContext(bytes.fromhex(trace_id), bytes.fromhex(span_id), sampled)

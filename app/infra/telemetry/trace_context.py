"""Which request the running code belongs to, and where in a trace it is.

Tasks started while a request is served inherit its context, so the log lines of a run name the request that began it.
"""

import re
from contextvars import ContextVar
from typing import NamedTuple

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


request: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that is served; empty outside of one."""

run_id: ContextVar[str] = ContextVar("run_id", default="")
"""The id of the run that is executed; empty outside of one."""


def parse_traceparent(text: str) -> tuple[str, str]:
    """(trace id, parent span id) of a ``traceparent`` header, or two empty texts: https://www.w3.org/TR/trace-context/

    Version 00 has no further fields; a later version may have some.
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (text.startswith("00-") and len(text) != 55):
        return "", ""
    return match[1], match[2]


SAMPLED = 0x01


class SpanContext(NamedTuple):
    """Where in a trace the code is: below the span ``span_id``. What is not ``sampled`` leaves no spans."""

    trace_id: bytes
    """16 of them."""
    span_id: bytes
    """8 of them."""
    sampled: bool

    @property
    def traceparent(self) -> str:
        """For the header of that name: https://www.w3.org/TR/trace-context/"""
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{'01' if self.sampled else '00'}"


current_span: ContextVar[SpanContext | None] = ContextVar("place", default=None)
"""Where the running code is. Tasks inherit it."""


def parse_span_context(traceparent: str) -> SpanContext | None:
    """What a caller says of itself; None for a text that is no ``traceparent``."""
    trace_id, span_id = parse_traceparent(traceparent)
    if not trace_id:
        return None
    sampled = bool(int(traceparent[53:55], 16) & SAMPLED)
    return SpanContext(bytes.fromhex(trace_id), bytes.fromhex(span_id), sampled)

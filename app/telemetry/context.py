"""Which request the running code belongs to.

Tasks started while a request is served inherit its context, so the log lines of a run name the request that began it.
"""

import re
from contextvars import ContextVar
from typing import NamedTuple

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class RequestContext(NamedTuple):
    """The ids of one request; the trace's are empty when the caller sent no valid ``traceparent``."""

    request_id: str
    trace_id: str = ""
    parent_span_id: str = ""


NO_REQUEST = RequestContext("")
current: ContextVar[RequestContext] = ContextVar("request", default=NO_REQUEST)


def parse_traceparent(text: str) -> tuple[str, str]:
    """(trace id, parent span id) of a ``traceparent`` header, or two empty texts: https://www.w3.org/TR/trace-context/

    Version 00 has no further fields; a later version may have some.
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (text.startswith("00-") and len(text) != 55):
        return "", ""
    return match[1], match[2]

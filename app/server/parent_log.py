"""Log lines of the parent process, formatted like those of ``app.infra.telemetry.logs``.

That module's libraries would double the parent's memory.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from app.infra.telemetry.line_writer import write_now

PIPE_BUF = 4096
"""Bytes of an atomic write to a pipe (pipe(7))."""

LogFunction = Callable[..., None]
"""``say(level, event, field=value)``: write one event."""


def parent_logger(layout: str) -> LogFunction:
    """Return a logger to standard output; ``layout`` is ``json`` or ``console``."""
    return _ParentLogger(layout)


class _ParentLogger:
    """Writes without blocking: drops lines if the pipe is full and reports the count with the next line."""

    def __init__(self, layout: str) -> None:
        self._layout = layout
        self._out = sys.__stdout__.fileno() if sys.__stdout__ is not None else 1
        self._dropped = 0

    def __call__(self, level: str, event: str, **fields: str | float) -> None:
        """Write one event."""
        if self._dropped:
            fields["lines_dropped"] = self._dropped
        line = self._line(level, event, fields).encode()[: PIPE_BUF - 1] + b"\n"
        self._dropped = 0 if write_now(self._out, line) else self._dropped + 1

    def _line(self, level: str, event: str, fields: dict[str, str | float]) -> str:
        time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if self._layout == "json":
            return json.dumps({**fields, "event": event, "logger": __name__, "level": level, "time": time})
        shown = " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{time} [{level:<9}] {event:<30} {shown}".rstrip()

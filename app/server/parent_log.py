"""The parent's own log lines, in the form of those of ``app.infra.telemetry.logs``, whose libraries would double its
size.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from app.infra.telemetry.line_writer import write_now

WHOLE = 4096
"""Bytes that a pipe takes whole or not at all."""

LogFunction = Callable[..., None]
"""``say(level, event, field=value)``: write one event."""


def parent_logger(layout: str) -> LogFunction:
    """Lines on standard output: ``json``, or ``console`` for a person."""
    return _ParentLogger(layout)


class _ParentLogger:
    """Drops a line that would keep the parent waiting, because nobody reads; the next one tells how many."""

    def __init__(self, layout: str) -> None:
        self._layout = layout
        self._out = sys.__stdout__.fileno() if sys.__stdout__ is not None else 1
        self._dropped = 0

    def __call__(self, level: str, event: str, **fields: str | float) -> None:
        """Write one event."""
        if self._dropped:
            fields["lines_dropped"] = self._dropped
        line = self._line(level, event, fields).encode()[: WHOLE - 1] + b"\n"
        self._dropped = 0 if write_now(self._out, line) else self._dropped + 1

    def _line(self, level: str, event: str, fields: dict[str, str | float]) -> str:
        time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if self._layout == "json":
            return json.dumps({**fields, "event": event, "logger": __name__, "level": level, "time": time})
        shown = " ".join(f"{name}={value}" for name, value in fields.items())
        return f"{time} [{level:<9}] {event:<30} {shown}".rstrip()

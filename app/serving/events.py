"""The parent's own log lines, in the form of those of ``app.telemetry.logs``, whose libraries would double its size."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime

Say = Callable[..., None]
"""``say(level, event, field=value)``: write one event."""


def sayer(layout: str) -> Say:
    """Lines on standard output: ``json``, or ``console`` for a person."""

    def say(level: str, event: str, **fields: str | float) -> None:
        time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if layout == "json":
            line = json.dumps({**fields, "event": event, "logger": __name__, "level": level, "time": time})
        else:
            shown = " ".join(f"{name}={value}" for name, value in fields.items())
            line = f"{time} [{level:<9}] {event:<30} {shown}".rstrip()
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return say

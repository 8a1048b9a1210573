"""Places at which a test lets the process die as by kill -9, to see what is left. Nothing is armed in production."""

import os
import signal

from app.base.errors import UsageError

POINTS = ("accepted", "before_commit", "after_commit", "before_tool", "after_tool", "before_end", "after_end")
"""A run was accepted; a step is on its way to the database, or has arrived; a tool starts, or has returned; the end of
a run is on its way, or has arrived."""

_armed: dict[str, int] = {}


def arm(text: str) -> None:
    """Die at ``POINT``, or with ``POINT:N`` when it is reached for the Nth time. Raises ``UsageError``."""
    point, _, count = text.partition(":")
    if point not in POINTS or not (count or "1").isdecimal():
        raise UsageError(f"AGENT_CRASH_AT must be one of {', '.join(POINTS)}, with :N for the Nth time")
    _armed[point] = int(count or 1)


def crash_point(point: str) -> None:
    """End the process here if that is armed."""
    if _armed and point in _armed:
        _armed[point] -= 1
        if not _armed[point]:
            os.kill(os.getpid(), signal.SIGKILL)

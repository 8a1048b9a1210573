"""Named points at which a test can kill the process as by ``kill -9``. None is armed in production."""

import os
import signal

from app.base.errors import UsageError

POINTS = ("accepted", "before_commit", "after_commit", "before_tool", "after_tool", "before_end", "after_end")
"""A run was accepted; before and after the commit of a step, a tool call, the commit of a run's end."""

_armed: dict[str, int] = {}


def arm(text: str) -> None:
    """Arm ``POINT``, or ``POINT:N`` for the Nth time it is reached. Raises ``UsageError``."""
    point, _, count = text.partition(":")
    if point not in POINTS or not (count or "1").isdecimal():
        raise UsageError(f"AGENT_CRASH_AT must be one of {', '.join(POINTS)}, with :N for the Nth time")
    _armed[point] = int(count or 1)


def crash_point(point: str) -> None:
    """Kill the process here if this point is armed."""
    if _armed and point in _armed:
        _armed[point] -= 1
        if not _armed[point]:
            os.kill(os.getpid(), signal.SIGKILL)

"""Measures how late the event loop is."""

import asyncio

from app.telemetry.meters import Meters

EVERY = 0.5
"""Seconds between two looks."""


class LoopLag:
    """Sets a timer twice a second and records how late it ran."""

    def __init__(self, meters: Meters) -> None:
        self._record = meters.loop_lag.record
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to measure the running loop."""
        loop = asyncio.get_running_loop()
        self._plan(loop)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(EVERY, self._look, loop, loop.time() + EVERY)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._record(max(0.0, loop.time() - due))
        self._plan(loop)

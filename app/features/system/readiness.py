"""Readiness of this process: starting → ready → draining."""

import time
from collections.abc import Callable

STALE_SECONDS = 3.0
"""A probe result older than this counts as an outage: the probe itself is stuck."""


class Readiness:
    """Readiness state, set by the lifespan and the database probe, read by health checks. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = False
        self._reported = clock()
        self._trouble = "the database has not been checked yet"
        self.draining = False

    def ready(self) -> None:
        """Mark start-up as finished."""
        self._started = True

    def drain(self) -> None:
        """Mark the process as shutting down; it never becomes ready again."""
        self.draining = True

    def report(self, trouble: str) -> None:
        """Record a probe result: what is wrong with the database; empty if nothing is."""
        self._trouble = trouble
        self._reported = self._clock()

    @property
    def phase(self) -> str:
        """Return ``starting``, ``ready`` or ``draining``, independently of the database."""
        if self.draining:
            return "draining"
        return "ready" if self._started else "starting"

    @property
    def trouble(self) -> str:
        """Return what is wrong with the database; empty if nothing is."""
        if self._clock() - self._reported > STALE_SECONDS:
            return "the database probe is stuck"
        return self._trouble

    @property
    def not_ready_reason(self) -> str:
        """Return why the process is not ready; empty if it is."""
        return self.trouble if self.phase == "ready" else self.phase

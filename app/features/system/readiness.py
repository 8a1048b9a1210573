"""Whether this process takes requests: starting → ready → draining."""

import time
from collections.abc import Callable

STALE_SECONDS = 3.0
"""After so long without news the database counts as away: whoever should look at it is stuck."""


class Readiness:
    """Set by the lifespan and the prober, read by health checks. ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = False
        self._reported = clock()
        self._trouble = "the database has not been looked at yet"
        self.draining = False

    def ready(self) -> None:
        """Start-up is done."""
        self._started = True

    def drain(self) -> None:
        """The process is about to stop; it never becomes ready again."""
        self.draining = True

    def report(self, trouble: str) -> None:
        """What the prober found: what is wrong with the database, or an empty text when all is well."""
        self._trouble = trouble
        self._reported = self._clock()

    @property
    def phase(self) -> str:
        """``starting``, ``ready`` or ``draining``, whatever the database does."""
        if self.draining:
            return "draining"
        return "ready" if self._started else "starting"

    @property
    def trouble(self) -> str:
        """What is wrong with the database; empty when all is well."""
        if self._clock() - self._reported > STALE_SECONDS:
            return "nobody looks at the database any more"
        return self._trouble

    @property
    def obstacle(self) -> str:
        """Why the process is not ready; empty when it is."""
        return self.trouble if self.phase == "ready" else self.phase

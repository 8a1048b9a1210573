"""The lease under which a process owns a run."""

import time

from app.base.errors import LeaseLost


class Lease:
    """A lease that expires at a point of this process's monotonic clock, taken before the statement that granted it.

    So it expires here before it expires in the database, whatever the latency of that statement and the wall clock.
    """

    def __init__(self, until: float) -> None:
        self.until = until
        self._ended = False

    def renew(self, until: float) -> None:
        """Extend the lease to ``until``."""
        self.until = max(self.until, until)

    def end(self) -> None:
        """End the lease for good; later renewals have no effect."""
        self._ended = True

    @property
    def seconds(self) -> float:
        """Seconds until it expires; negative once it has expired."""
        return -1.0 if self._ended else self.until - time.monotonic()

    def check(self) -> None:
        """Raise ``LeaseLost`` if the lease has expired: after a pause of the process another one may own the run."""
        if self.seconds <= 0:
            raise LeaseLost("The lease has expired.")

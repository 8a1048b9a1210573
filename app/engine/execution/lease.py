"""How long this process may take for its own what it has claimed in the database."""

import time

from app.base.errors import LeaseLost


class Lease:
    """Holds until a point of this process's monotonic clock, taken before the statement that gave or renewed it.

    So it ends here before it ends in the database, whatever the statement's answer took, and whatever the time of day.
    """

    def __init__(self, until: float) -> None:
        self.until = until
        self._over = False

    def renew(self, until: float) -> None:
        """It holds until ``until`` now."""
        self.until = max(self.until, until)

    def end(self) -> None:
        """It is over, whatever renews it."""
        self._over = True

    @property
    def seconds(self) -> float:
        """How long it still holds; negative once it is over."""
        return -1.0 if self._over else self.until - time.monotonic()

    def check(self) -> None:
        """Raise ``LeaseLost`` once it is over: after a pause of the process somebody else may have the run."""
        if self.seconds <= 0:
            raise LeaseLost("The lease ended here.")

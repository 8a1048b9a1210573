"""How long this process may take for its own what it has claimed in the database."""

import time

from app.base.errors import LeaseLost


class Lease:
    """Holds until a point of this process's monotonic clock, taken before the statement that gave or renewed it.

    So it ends here before it ends in the database, whatever the statement's answer took, and whatever the time of day.
    """

    def __init__(self, until: float) -> None:
        self.until = until

    def renew(self, until: float) -> None:
        """It holds until ``until`` now."""
        self.until = max(self.until, until)

    @property
    def seconds(self) -> float:
        """How long it still holds; negative once it is over."""
        return self.until - time.monotonic()

    def check(self) -> None:
        """Raise ``LeaseLost`` once it is over: after a pause of the process somebody else may have the run."""
        if self.seconds <= 0:
            raise LeaseLost("The lease ended here.")

"""Whether this process takes requests: starting → ready → draining."""


class Readiness:
    """Set by the lifespan and the prober, read by health checks."""

    def __init__(self) -> None:
        self._started = False
        self.draining = False
        self.obstacle = "starting"
        """Why the process is not ready; empty when it is."""

    def ready(self) -> None:
        """Start-up is done."""
        self._started = True
        self.obstacle = ""

    def drain(self) -> None:
        """The process is about to stop; it never becomes ready again."""
        self.draining = True
        self.obstacle = "draining"

    def report(self, obstacle: str) -> None:
        """What the prober found: a reason, or an empty text when all is well."""
        if self._started and not self.draining:
            self.obstacle = obstacle

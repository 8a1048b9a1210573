"""Progress line of a long command; silent unless standard error is a terminal."""

import sys
import time
from collections.abc import Callable

from app.cli.terminal.output import CYAN, DIM, painted

EVERY_SECONDS = 0.1
WIDTH = 28
WINDOW_SECONDS = 10.0
"""Window of the moving average of the rate."""
CLEAR = "\r\033[K"


class ProgressLine:
    """Progress line. ``unit``: what is counted; ``clock``: monotonic seconds."""

    def __init__(self, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit = unit
        self._clock = clock
        self._enabled = sys.stderr.isatty()
        self._started_at = clock()
        self._shown = 0.0
        self._marks: list[tuple[float, int, float]] = []

    def show(self, count: int, part: float | None) -> None:
        """Show ``count`` and the completed fraction ``part`` (0 to 1), None if unknown."""
        if not self._enabled:
            return
        now = self._clock()
        if now - self._shown < EVERY_SECONDS:
            return
        self._shown = now
        self._marks.append((now, count, part or 0.0))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW_SECONDS:
            self._marks.pop(0)
        sys.stderr.write(CLEAR + self._line(count, part))
        sys.stderr.flush()

    def clear(self) -> None:
        """Erase the line before other output."""
        if self._enabled and self._shown:
            sys.stderr.write(CLEAR)
            sys.stderr.flush()

    @property
    def seconds(self) -> float:
        """Elapsed seconds."""
        return self._clock() - self._started_at

    def _line(self, count: int, part: float | None) -> str:
        started_at, counted, was = self._marks[0] if len(self._marks) > 1 else (self._started_at, 0, 0.0)
        took = max(self._shown - started_at, 1e-9)
        rate = (count - counted) / took
        line = f"{count:,} {self._unit}  {rate:,.0f}/s"
        if part is None:
            return line
        done = min(max(part, 0.0), 1.0)
        full = round(done * WIDTH)
        bar = painted("━" * full, CYAN) + painted("─" * (WIDTH - full), DIM)
        speed = (done - was) / took
        left = f"  {clock_time((1 - done) / speed)} left" if speed > 0 and done < 1 else ""
        return f"{bar} {done:4.0%}  {line}{left}"


def clock_time(seconds: float) -> str:
    """Format ``seconds`` as m:ss, or h:mm:ss."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

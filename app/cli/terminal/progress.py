"""Progress line of a long command; silent unless standard error is a terminal."""

import sys
import time
from typing import TYPE_CHECKING

from app.cli.terminal.output import rich_console

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY_SECONDS = 0.1
WIDTH = 28


class ProgressLine:
    """Progress line. ``unit``: what is counted."""

    def __init__(self, unit: str) -> None:
        self._started_at = time.monotonic()
        self._shown_at = 0.0
        self._progress = _progress(unit) if sys.stderr.isatty() else None

    def show(self, count: int, part: float | None) -> None:
        """Show ``count`` and the completed fraction ``part`` (0 to 1), None if unknown."""
        now = time.monotonic()
        if self._progress is None or now - self._shown_at < EVERY_SECONDS:
            return
        self._shown_at = now
        self._progress.start()
        total = max(count / part, count) if part else None
        self._progress.update(self._progress.task_ids[0], completed=count, total=total, refresh=True)

    def clear(self) -> None:
        """Erase the line before other output."""
        if self._progress is not None:
            self._progress.stop()

    @property
    def seconds(self) -> float:
        """Elapsed seconds."""
        return time.monotonic() - self._started_at


def _progress(unit: str) -> "Progress":
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class CountColumn(ProgressColumn):
        """The count and its rate."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.completed:,.0f} {unit}  {task.speed or 0:,.0f}/s")

    bar = BarColumn(WIDTH, style="dim", complete_style="cyan", finished_style="cyan", pulse_style="cyan")
    columns = bar, TaskProgressColumn(), CountColumn(), TimeRemainingColumn(compact=True)
    progress = Progress(*columns, console=rich_console(sys.stderr), auto_refresh=False, transient=True)
    progress.add_task(unit, total=None)
    return progress


def clock_time(seconds: float) -> str:
    """Format ``seconds`` as m:ss, or h:mm:ss."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

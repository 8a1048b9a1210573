"""Metrics buffers in memory shared by all workers of a server: each writes its own, a scrape reads all.

The parent creates the buffers before it forks, so they are shared without files. A buffer belongs to a worker's slot,
not to its process: the successor of a dead worker continues its counts, so they never decrease. The parent imports this
module: keep its imports light.
"""

import json
import mmap
import time
from collections.abc import Iterator
from typing import NamedTuple

SIZE = 8 << 20
"""Bytes of a buffer; only used pages take memory."""
CELL = 8
_FIRST_CELL = SIZE // 4
_FIRST_NAME = 64
_NAMED, _ALIVE, _OPEN = 0, 1, 2
"""Cells of the header: bytes of names, whether a worker is alive, whether it has not closed yet."""
MAX_WIDTH = 128
"""Maximum cells of a series."""
SCRATCH = SIZE // CELL - MAX_WIDTH
"""Cells that are never read, where instruments of a full buffer count."""

_dumps = json.dumps  # bound early: user code may patch the module

Labels = tuple[str, ...]


class SeriesRow(NamedTuple):
    """A series of an instrument: ``width`` cells from the cell ``at``."""

    name: str
    labels: Labels
    at: int
    width: int


class SharedMetricsBuffer:
    """The metrics of the worker ``number``: eight-byte floats in ``cells``, and the names of their series.

    ``created_at``: nanoseconds since 1970.
    """

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.created_at = time.time_ns()
        self._memory = mmap.mmap(-1, SIZE)
        self.bytes = memoryview(self._memory)
        self.cells = self.bytes.cast("d")
        self._rows: list[SeriesRow] = []
        self._read = 0

    def attach(self) -> bool:
        """Start a worker on the existing counts; whether the previous worker had not closed the buffer."""
        lost = self.cells[_OPEN] != 0
        self.cells[_ALIVE] = self.cells[_OPEN] = 1
        return lost

    def close(self) -> None:
        """Mark a graceful shutdown of the worker."""
        self.cells[_OPEN] = 0

    def leave(self) -> None:
        """Mark that the worker's process has exited."""
        self.cells[_ALIVE] = 0

    @property
    def is_alive(self) -> bool:
        """Whether a worker is running."""
        return self.cells[_ALIVE] != 0

    def refresh(self) -> list[SeriesRow]:
        """Return all rows, including those that another process has added."""
        size = self.cells[_NAMED]
        size = int(size) if self._read <= size <= _FIRST_CELL - _FIRST_NAME else self._read
        text = self._memory[_FIRST_NAME + self._read : _FIRST_NAME + size]
        for line in text.splitlines(keepends=True):
            row = _row(line, self._next())
            if row is None:  # the start of the rows after it is unknown
                break
            self._rows.append(row)
            self._read += len(line)
        return self._rows

    def add(self, name: str, labels: Labels, width: int, reserved: int = 0) -> int:
        """Allocate ``width`` cells and return the first; ``SCRATCH`` if fewer than ``reserved`` bytes would be left."""
        at = self._next()
        line = _dumps([name, width, *labels]).encode() + b"\n"
        end = _FIRST_NAME + self._read + len(line)
        if end > _FIRST_CELL - reserved or at + width > SCRATCH - reserved // CELL:
            return SCRATCH
        self._memory[end - len(line) : end] = line
        self._rows.append(SeriesRow(name, labels, at, width))
        self._read += len(line)
        self.cells[_NAMED] = self._read  # set last, so that a reader never sees a partial row
        return at

    def _next(self) -> int:
        return self._rows[-1].at + self._rows[-1].width if self._rows else _FIRST_CELL // CELL


def _row(line: bytes, at: int) -> SeriesRow | None:
    """Parse the row ``line``, which another process has written; None if it is invalid."""
    try:
        name, width, *labels = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = [name, *labels]
    if not all(isinstance(text, str) for text in texts) or type(width) is not int or not 0 < width <= MAX_WIDTH:
        return None
    return SeriesRow(name, tuple(labels), at, width) if at + width <= SCRATCH else None


class MetricsBuffers:
    """The buffers of all workers of one server."""

    def __init__(self, count: int = 1) -> None:
        self._buffers = [SharedMetricsBuffer(number) for number in range(1, count + 1)]

    def __iter__(self) -> Iterator[SharedMetricsBuffer]:
        return iter(self._buffers)

    def of(self, number: int) -> SharedMetricsBuffer:
        """Return the buffer of the worker ``number``, counted from 1."""
        return self._buffers[number - 1]

    def on_worker_exit(self, number: int) -> None:
        """Mark that the worker ``number`` has exited: its gauges no longer count."""
        self.of(number).leave()

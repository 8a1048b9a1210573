"""Numbers in memory that all workers of one server see: each writes its own board, whoever is scraped reads all.

The parent makes the boards before it forks, so they are shared without any file. A board belongs to a worker's place
and not to its process: who comes after a worker that died goes on with its counts, which therefore never fall. Nothing
heavy is imported here, for the parent has it loaded.
"""

import json
import mmap
import time
from collections.abc import Iterator
from typing import NamedTuple

SIZE = 8 << 20
"""Bytes of a board. Only those that are used take memory."""
CELL = 8
_FIRST_CELL = SIZE // 4
_FIRST_NAME = 64
_NAMED, _LIVES, _OPEN = 0, 1, 2
"""Cells of the head: how many bytes of names there are, whether a worker lives here, whether it has not closed yet."""
MAX_WIDTH = 128
"""Cells of a series at the most."""
SCRATCH = SIZE // CELL - MAX_WIDTH
"""Cells that nobody reads: where a board that is full counts."""

_dumps = json.dumps  # this very function, whatever the user's code makes of the module's

Labels = tuple[str, ...]


class SeriesRow(NamedTuple):
    """A series of an instrument: its ``width`` cells begin at the cell ``at``."""

    name: str
    labels: Labels
    at: int
    width: int


class SharedMetricsBuffer:
    """The numbers of the worker ``number``: eight-byte floats in ``cells``, and the names of what they count.

    ``began``: when it was made, in nanoseconds since 1970.
    """

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.began = time.time_ns()
        self._memory = mmap.mmap(-1, SIZE)
        self.bytes = memoryview(self._memory)
        self.cells = self.bytes.cast("d")
        self._rows: list[SeriesRow] = []
        self._read = 0

    def occupy(self) -> bool:
        """A worker takes the place, with the counts that it finds; whether the one before it never closed."""
        lost = self.cells[_OPEN] != 0
        self.cells[_LIVES] = self.cells[_OPEN] = 1
        return lost

    def close(self) -> None:
        """The worker has closed in order, and is about to end."""
        self.cells[_OPEN] = 0

    def leave(self) -> None:
        """Its process has ended."""
        self.cells[_LIVES] = 0

    @property
    def lives(self) -> bool:
        """Whether a worker is there now."""
        return self.cells[_LIVES] != 0

    def refresh(self) -> list[SeriesRow]:
        """All rows, those among them that another process has added."""
        size = self.cells[_NAMED]
        named = int(size) if self._read <= size <= _FIRST_CELL - _FIRST_NAME else self._read
        text = self._memory[_FIRST_NAME + self._read : _FIRST_NAME + named]
        for line in text.splitlines(keepends=True):
            row = _row(line, self._next())
            if row is None:  # where the rows after it begin cannot be known
                break
            self._rows.append(row)
            self._read += len(line)
        return self._rows

    def add(self, name: str, labels: Labels, width: int, spare: int = 0) -> int:
        """The first of ``width`` new cells; ``SCRATCH`` where fewer than ``spare`` bytes would be left."""
        at = self._next()
        line = _dumps([name, width, *labels]).encode() + b"\n"
        end = _FIRST_NAME + self._read + len(line)
        if end > _FIRST_CELL - spare or at + width > SCRATCH - spare // CELL:
            return SCRATCH
        self._memory[end - len(line) : end] = line
        self._rows.append(SeriesRow(name, labels, at, width))
        self._read += len(line)
        self.cells[_NAMED] = self._read  # last: a reader never sees half a row
        return at

    def _next(self) -> int:
        return self._rows[-1].at + self._rows[-1].width if self._rows else _FIRST_CELL // CELL


def _row(line: bytes, at: int) -> SeriesRow | None:
    """The row that ``line`` names; None where it names none: it is another process that has written it."""
    try:
        name, width, *labels = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = [name, *labels]
    if not all(isinstance(text, str) for text in texts) or type(width) is not int or not 0 < width <= MAX_WIDTH:
        return None
    return SeriesRow(name, tuple(labels), at, width) if at + width <= SCRATCH else None


class MetricsBuffers:
    """The boards of all workers of one server, made before they are."""

    def __init__(self, count: int = 1) -> None:
        self._boards = [SharedMetricsBuffer(number) for number in range(1, count + 1)]

    def __iter__(self) -> Iterator[SharedMetricsBuffer]:
        return iter(self._boards)

    def of(self, number: int) -> SharedMetricsBuffer:
        """The board of the worker ``number``, which counts from 1."""
        return self._boards[number - 1]

    def left(self, number: int) -> None:
        """The worker ``number`` has ended: what it had open counts no more."""
        self.of(number).leave()

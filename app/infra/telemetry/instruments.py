"""Kinds of instruments: what counts, on the board of a worker.

A call costs 0.1 to 0.3 µs (the OpenTelemetry SDK takes 6). Not for threads: call them on the event loop.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, NamedTuple

from app.infra.telemetry.shared_buffer import CELL, SCRATCH, Labels, SharedMetricsBuffer
from app.infra.telemetry.trace_context import SpanContext, current_span

MAX_SERIES = 1000
"""Label sets an instrument keeps; what comes after is counted under ``OVERFLOW``."""
OVERFLOW = "overflow"
MAX_LABEL_LENGTH = 200
SPARE = 1 << 18
"""Bytes of a board that are kept for the series ``OVERFLOW`` of every instrument."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


EXAMPLE = 5
"""Cells of an example: since when, its value, and three for 24 bytes of ids."""
EXAMPLE_SECONDS = 1.0
"""How long an example stays at the least."""


class Instrument:
    """A named quantity. ``labels`` are the names of the values that every call gives, in this order.

    One series takes ``width`` cells of ``board``, of which the first ``counted`` are numbers that add up.
    """

    width = counted = 1
    kind: Literal["counter", "gauge", "histogram"] = "counter"

    def __init__(self, board: SharedMetricsBuffer, name: str, unit: str, description: str, labels: Labels = ()) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.labels = labels
        self._board = board
        self._cells = board.cells
        self._at: dict[Labels, int] = {}

    def take_over(self, labels: Labels, at: int, width: int) -> None:
        """Go on with the series that another worker has begun at ``at``."""
        if len(labels) == len(self.labels) and width == self.width:
            self._at[labels] = at

    def begin(self) -> None:
        """What has no labels is there from the start, with nothing counted."""
        if not self.labels and not self._at:
            self._new(())

    def cells(self) -> list[tuple[Labels, list[float]]]:
        """Every series and its numbers; another thread may ask."""
        return [(labels, list(self._cells[at : at + self.counted])) for labels, at in list(self._at.items())]

    def _new(self, values: Labels) -> int:
        """The first cell of a series that is counted for the first time."""
        short = tuple(value[:MAX_LABEL_LENGTH] for value in values)
        if short in self._at:
            return self._at[short]
        if len(self._at) < MAX_SERIES:
            at = self._board.add(self.name, short, self.width, SPARE)
            if at != SCRATCH:
                self._at[short] = at
                return at
        overflow: Labels = (OVERFLOW,) * len(values)
        if overflow not in self._at:
            self._at[overflow] = self._board.add(self.name, overflow, self.width)
        return self._at[overflow]


class Counter(Instrument):
    """A sum that only grows."""

    def add(self, amount: float, *values: str) -> None:
        """Add ``amount`` to the series of these label values."""
        at = self._at.get(values)
        if at is None:
            at = self._new(values)
        self._cells[at] += amount

    @property
    def series(self) -> dict[Labels, float]:
        """What has been counted, by label values."""
        return {values: self._cells[at] for values, at in self._at.items()}


class Gauge(Counter):
    """A number that goes up and down: ``add`` also takes negative amounts.

    What several workers say is added up; where each of them says the same of one thing, their greatest counts.
    """

    kind = "gauge"

    def __init__(
        self,
        board: SharedMetricsBuffer,
        name: str,
        unit: str,
        description: str,
        labels: Labels = (),
        *,
        greatest: bool = False,
    ) -> None:
        super().__init__(board, name, unit, description, labels)
        self.greatest = greatest

    def take_over(self, labels: Labels, at: int, width: int) -> None:
        """What the worker before had open is closed."""
        self._cells[at : at + width] = memoryview(bytes(8 * width)).cast("d")
        super().take_over(labels, at, width)

    def set(self, number: float, *values: str) -> None:
        """The series of these label values is ``number`` now."""
        at = self._at.get(values)
        if at is None:
            at = self._new(values)
        self._cells[at] = number


class TraceExemplar(NamedTuple):
    """A value that was measured ``at`` some time (seconds since 1970) in a trace that is sampled."""

    value: float
    at: float
    trace_id: bytes
    span_id: bytes


def exemplar(board: SharedMetricsBuffer, cell: int) -> TraceExemplar | None:
    """The one at ``cell`` of ``board``, which another process may be writing; None where there is none."""
    began = board.cells[cell]
    value = board.cells[cell + 1]
    ids = bytes(board.bytes[(cell + 2) * CELL : (cell + EXAMPLE) * CELL])
    if not began or board.cells[cell] != began:
        return None
    return TraceExemplar(value, began, ids[:16], ids[16:])


class Distribution:
    """What one series of a histogram has seen: ``counts`` per bucket (the last one without a bound) and the sum."""

    __slots__ = ("counts", "total")

    def __init__(self, cells: Sequence[float]) -> None:
        *counts, self.total = cells
        self.counts = [int(count) for count in counts]


class Histogram(Instrument):
    """How values are distributed over ``bounds``, each the inclusive upper end of its bucket."""

    kind = "histogram"
    remembers = False
    """Whether each bucket remembers one of its values (``TracedHistogram``)."""

    def __init__(
        self,
        board: SharedMetricsBuffer,
        name: str,
        unit: str,
        description: str,
        labels: Labels = (),
        bounds: Sequence[float] = SECONDS,
    ) -> None:
        super().__init__(board, name, unit, description, labels)
        self.bounds = tuple(bounds)
        self._sum = len(self.bounds) + 1
        self.counted = self._sum + 1
        self.examples = self._sum if self.remembers else 0
        """How many buckets remember one."""
        self.width = self.counted + EXAMPLE * self.examples

    def record(self, value: float, *values: str) -> int:
        """Count ``value`` in the series of these label values; the cell of its bucket."""
        at = self._at.get(values)
        if at is None:
            at = self._new(values)
        cells = self._cells
        bucket = at + bisect_left(self.bounds, value)
        cells[bucket] += 1
        cells[at + self._sum] += value
        return bucket

    @property
    def series(self) -> dict[Labels, Distribution]:
        """What has been seen, by label values."""
        return {values: Distribution(self._cells[at : at + self.counted].tolist()) for values, at in self._at.items()}


class TracedHistogram(Histogram):
    """A histogram of which each bucket remembers one of the last values that was measured in a sampled trace.

    Exemplars: https://opentelemetry.io/docs/specs/otel/metrics/sdk/#exemplar
    """

    remembers = True

    def record(self, value: float, *values: str) -> int:
        """Count ``value`` in the series of these label values; the cell of its bucket."""
        bucket = super().record(value, *values)
        if (place := current_span.get()) is not None and place.sampled:
            at = self._at.get(values)
            if at is not None:  # who counts under ``OVERFLOW`` is no example
                self._remember(at + self.counted + EXAMPLE * (bucket - at), value, place)
        return bucket

    def _remember(self, cell: int, value: float, place: SpanContext) -> None:
        cells, now = self._cells, time.time()
        if now - cells[cell] >= EXAMPLE_SECONDS:
            cells[cell] = 0  # first and last: half an example is none
            cells[cell + 1] = value
            self._board.bytes[(cell + 2) * CELL : (cell + EXAMPLE) * CELL] = place.trace_id + place.span_id
            cells[cell] = now

    def examples_of(self, labels: Labels) -> list[TraceExemplar]:
        """What the buckets of a series remember; another thread may ask."""
        first = self._at[labels] + self.counted
        found = [exemplar(self._board, first + EXAMPLE * bucket) for bucket in range(self.examples)]
        return [one for one in found if one is not None]

"""Snapshots of metrics as the SDK's data model, which both exporters take: Prometheus and OTLP.

Import it only when something is exported: it loads the SDK.
"""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Gauge as GaugeData
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from app.infra.telemetry.instruments import Counter, Gauge, Histogram
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.shared_buffer import Labels, SeriesRow, SharedMetricsBuffer

CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA


class Series(NamedTuple):
    """A series of an instrument: its ``attributes``, and its first cell in each buffer that has it."""

    attributes: dict[str, str]
    cells: list[tuple[SharedMetricsBuffer, int]]


class MetricsSnapshots:
    """Snapshots of the instruments of ``meters`` over ``buffers``: sums since the server started, or with ``delta``
    since the previous snapshot.

    ``for_page``: attributes without a value stay, as empty labels, and exemplars, which the Prometheus exporter does
    not write, are not read.
    """

    def __init__(
        self,
        meters: Meters,
        buffers: Iterable[SharedMetricsBuffer],
        resource: Resource,
        scope: InstrumentationScope,
        *,
        delta: bool = False,
        for_page: bool = False,
    ) -> None:
        self._instruments = {part.name: part for part in meters.instruments()}
        self._series: dict[str, dict[Labels, Series]] = {name: {} for name in self._instruments}
        self._buffers = list(buffers)
        self._rows_seen = [0] * len(self._buffers)
        self._resource = resource
        self._scope = scope
        self._delta = delta
        self._for_page = for_page
        self._since = self._taken = meters.buffer.created_at
        self._before: dict[tuple[str, Labels], list[float]] = {}

    def take(self) -> MetricsData:
        """Take a snapshot, in one thread at a time; the event loop may keep counting."""
        self._find_new_series()
        now = time.time_ns()
        metrics = [self._metric(part, now) for part in self._instruments.values()]
        self._taken = now
        if self._delta:
            self._since = now
        if not self._for_page:
            metrics = [metric for metric in metrics if metric.data.data_points]
        scope = ScopeMetrics(self._scope, metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _find_new_series(self) -> None:
        for index, buffer in enumerate(self._buffers):
            rows = buffer.refresh()[self._rows_seen[index] :]
            self._rows_seen[index] += len(rows)
            for row in rows:
                self._add(buffer, row)

    def _add(self, buffer: SharedMetricsBuffer, row: SeriesRow) -> None:
        part = self._instruments.get(row.name)
        # a worker of another version may have left other declarations
        if part is not None and row.width == part.width and len(row.labels) == len(part.labels):
            pairs = zip(part.labels, row.labels, strict=True)
            attributes = {str(name): value for name, value in pairs if value or self._for_page}
            series = self._series[row.name].setdefault(row.labels, Series(attributes, []))
            series.cells.append((buffer, row.at))

    def _metric(self, part: Counter | Gauge | Histogram, now: int) -> Metric:
        temporality = DELTA if self._delta else CUMULATIVE
        data: HistogramData | GaugeData | Sum
        if isinstance(part, Histogram):
            data = HistogramData([*self._distributions(part, now)], temporality)
        elif isinstance(part, Gauge):
            points = [*self._numbers(part, now)]
            data = GaugeData(points) if part.greatest else Sum(points, CUMULATIVE, is_monotonic=False)
        else:
            data = Sum([*self._numbers(part, now)], temporality, is_monotonic=True)
        return Metric(part.name, part.description, part.unit, data)

    def _numbers(self, part: Counter | Gauge, now: int) -> Iterator[NumberDataPoint]:
        for series, (number,) in self._merged(part):
            yield NumberDataPoint(series.attributes, self._since, now, number)

    def _distributions(self, part: Histogram, now: int) -> Iterator[HistogramDataPoint]:
        bounds = tuple(map(float, part.bounds))
        for series, (*counts, total) in self._merged(part):
            whole = [int(count) for count in counts]
            yield HistogramDataPoint(
                attributes=series.attributes,
                start_time_unix_nano=self._since,
                time_unix_nano=now,
                count=sum(whole),
                sum=total,
                bucket_counts=whole,
                explicit_bounds=bounds,
                exemplars=[] if self._for_page else self._exemplars(part, series),
                min=None,  # type: ignore[arg-type]
                max=None,  # type: ignore[arg-type]
            )

    def _exemplars(self, part: Histogram, series: Series) -> list[Exemplar]:
        """Return the exemplars since the previous snapshot."""
        return [
            Exemplar(
                {},
                one.value,
                int(one.at * 1e9),
                int.from_bytes(one.span_id, "big"),
                int.from_bytes(one.trace_id, "big"),
            )
            for buffer, at in series.cells
            for one in part.exemplars(buffer, at)
            if one.at * 1e9 > self._taken
        ]

    def _merged(self, part: Counter | Gauge | Histogram) -> Iterator[tuple[Series, list[float]]]:
        """Yield every series with its numbers over all buffers; of a gauge, over those of running workers."""
        gauge = part if isinstance(part, Gauge) else None
        merge = max if gauge is not None and gauge.greatest else sum
        for labels, series in self._series[part.name].items():
            found: list[list[float]] = [
                list(buffer.cells[at : at + part.counted])
                for buffer, at in series.cells
                if gauge is None or buffer.is_alive
            ]
            if found:
                merged = found[0] if len(found) == 1 else [float(merge(cells)) for cells in zip(*found, strict=True)]
                yield series, merged if gauge is not None else self._since_previous(part.name, labels, merged)

    def _since_previous(self, name: str, labels: Labels, numbers: list[float]) -> list[float]:
        if not self._delta:
            return numbers
        before = self._before.get((name, labels), [0.0] * len(numbers))
        self._before[name, labels] = numbers
        return [now - then for now, then in zip(numbers, before, strict=True)]

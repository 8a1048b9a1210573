"""Snapshots of a worker's metrics as the SDK's data model, for its exporters."""

import time

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

from app.infra.telemetry.instruments import Counter, Gauge, Histogram, TracedHistogram
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.shared_buffer import Labels

CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA


class MetricsSnapshots:
    """Snapshots of ``meters``: sums since the server started, or with ``delta`` since the previous snapshot."""

    def __init__(self, meters: Meters, resource: Resource, scope: tuple[str, str, str], *, delta: bool = False) -> None:
        self._meters = meters
        self._resource = resource
        self._scope = InstrumentationScope(*scope)
        self._delta = delta
        self._since = self._taken = meters.buffer.created_at
        self._before: dict[tuple[str, Labels], list[float]] = {}

    def take(self) -> MetricsData:
        """Take a snapshot. Thread-safe: the event loop may keep counting."""
        now = time.time_ns()
        metrics = [self._metric(part, now) for part in self._meters.instruments()]
        self._taken = now
        if self._delta:
            self._since = now
        scope = ScopeMetrics(self._scope, [metric for metric in metrics if metric.data.data_points], "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _metric(self, part: Counter | Gauge | Histogram, now: int) -> Metric:
        temporality = DELTA if self._delta else CUMULATIVE
        data: HistogramData | GaugeData | Sum
        if isinstance(part, Histogram):
            data = HistogramData(self._distributions(part, now), temporality)
        elif isinstance(part, Gauge):
            points = self._numbers(part, now)
            data = GaugeData(points) if part.greatest else Sum(points, CUMULATIVE, is_monotonic=False)
        else:
            data = Sum(self._numbers(part, now), temporality, is_monotonic=True)
        return Metric(part.name, part.description, part.unit, data)

    def _numbers(self, part: Counter | Gauge, now: int) -> list[NumberDataPoint]:
        return [
            NumberDataPoint(_attributes(part, labels), self._since, now, cells[0])
            for labels, cells in self._cells(part)
        ]

    def _distributions(self, part: Histogram, now: int) -> list[HistogramDataPoint]:
        points = []
        for labels, (*counts, total) in self._cells(part):
            whole = [int(count) for count in counts]
            points.append(
                HistogramDataPoint(
                    attributes=_attributes(part, labels),
                    start_time_unix_nano=self._since,
                    time_unix_nano=now,
                    count=sum(whole),
                    sum=total,
                    bucket_counts=whole,
                    explicit_bounds=part.bounds,
                    exemplars=self._exemplars(part, labels),
                    min=None,  # type: ignore[arg-type]
                    max=None,  # type: ignore[arg-type]
                )
            )
        return points

    def _exemplars(self, part: Histogram, labels: Labels) -> list[Exemplar]:
        """Return the exemplars since the previous snapshot."""
        found = part.exemplars_of(labels) if isinstance(part, TracedHistogram) else []
        return [
            Exemplar(
                {},
                one.value,
                int(one.at * 1e9),
                int.from_bytes(one.span_id, "big"),
                int.from_bytes(one.trace_id, "big"),
            )
            for one in found
            if one.at * 1e9 > self._taken
        ]

    def _cells(self, part: Counter | Gauge | Histogram) -> list[tuple[Labels, list[float]]]:
        found = part.cells()
        if not self._delta or isinstance(part, Gauge):
            return found
        since = []
        for labels, cells in found:
            before = self._before.get((part.name, labels), [0.0] * len(cells))
            self._before[part.name, labels] = cells
            since.append((labels, [now - then for now, then in zip(cells, before, strict=True)]))
        return since


def _attributes(part: Counter | Gauge | Histogram, labels: Labels) -> dict[str, str]:
    return {name: value for name, value in zip(part.labels, labels, strict=True) if value}

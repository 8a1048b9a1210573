"""Meters as the text that Prometheus scrapes, in its own format or as OpenMetrics.

Naming: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

import asyncio
from itertools import accumulate
from typing import TYPE_CHECKING

from app.telemetry.meters import Counter, Gauge, Histogram, Labels, Meters

if TYPE_CHECKING:
    from prometheus_client import Metric

UNITS = {"s": "seconds"}
"""Units that are part of a Prometheus name; counts such as ``{run}`` are not."""


class MetricsPage:
    """What ``GET /metrics`` answers."""

    def __init__(self, meters: Meters, version: str) -> None:
        self._meters = meters
        self._version = version

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """(body, content type) in the format that the ``Accept`` header prefers.

        A line costs 5 to 10 µs, so a thread does it; prometheus_client is imported there, by the first scrape.
        """
        return await asyncio.to_thread(self._render, [_Reading(part) for part in self._meters.instruments()], accept)

    def _render(self, readings: "list[_Reading]", accept: str) -> tuple[bytes, str]:
        from prometheus_client.core import InfoMetricFamily
        from prometheus_client.exposition import choose_encoder

        target = InfoMetricFamily("target", "What is measured.")
        target.add_metric([], {"service_name": "agent-service", "service_version": self._version})
        encode, content_type = choose_encoder(accept)
        return encode(_Collected([target, *(reading.family() for reading in readings)])), content_type


class _Collected:
    """Metrics in hand, in the shape of a registry."""

    def __init__(self, families: "list[Metric]") -> None:
        self._families = families

    def collect(self) -> "list[Metric]":
        return self._families


class _Reading:
    """One instrument's numbers, copied on the event loop so that a thread may look at them."""

    def __init__(self, instrument: Counter | Gauge | Histogram) -> None:
        self._of = instrument
        self._numbers: list[tuple[Labels, float]] = []
        self._distributions: list[tuple[Labels, list[int], float]] = []
        if isinstance(instrument, Histogram):
            self._distributions = [(key, list(seen.counts), seen.total) for key, seen in instrument.series.items()]
        else:
            self._numbers = list(instrument.series.items())
            if not instrument.labels:
                self._numbers = self._numbers or [((), 0)]

    def family(self) -> "Metric":
        """The numbers as a Prometheus metric family."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        name = self._of.name.replace(".", "_")
        labels = [label.replace(".", "_") for label in self._of.labels]
        unit = UNITS.get(self._of.unit, "")
        if isinstance(self._of, Histogram):
            bounds = [*(str(float(bound)) for bound in self._of.bounds), "+Inf"]
            histogram = HistogramMetricFamily(name, self._of.description, labels=labels, unit=unit)
            for key, counts, total in self._distributions:
                histogram.add_metric(key, list(zip(bounds, accumulate(counts), strict=True)), total)
            return histogram
        kind = GaugeMetricFamily if isinstance(self._of, Gauge) else CounterMetricFamily
        family = kind(name, self._of.description, labels=labels, unit=unit)
        for key, number in self._numbers:
            family.add_metric(key, number)
        return family

"""The numbers of all workers as the page that Prometheus scrapes, in its own format or as OpenMetrics.

OpenTelemetry's Prometheus exporter writes it. The first scrape loads it, which takes 0.1 s in a thread: a server that
is never scraped does without.

Naming: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

import asyncio
import threading
from collections.abc import Callable, Iterable

from app.infra.telemetry.instruments import Counter, Gauge, Histogram
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.shared_buffer import SharedMetricsBuffer

UNITS = {"s": "seconds", "By": "bytes"}
"""Units that are part of a Prometheus name; counts such as ``{run}`` are not."""

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Render = Callable[[bool], bytes]
"""Renders the page, if its argument is true as OpenMetrics."""


class MetricsPage:
    """The response of ``GET /metrics``: totals over the ``buffers`` of all workers."""

    def __init__(self, meters: Meters, buffers: Iterable[SharedMetricsBuffer], version: str) -> None:
        self._meters = meters
        self._buffers = list(buffers)
        self._version = version
        self._loaded: Render | None = None
        self._turn = asyncio.Lock()
        self._rendering = threading.Lock()

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return body and content type in the format that the ``Accept`` header prefers.

        It is rendered in a thread, one scrape after the other, so that many at once take one thread only.
        """
        openmetrics = _prefers_openmetrics(accept)
        async with self._turn:
            body = await asyncio.to_thread(self._render, openmetrics)
        return body, OPENMETRICS if openmetrics else PLAIN

    def _render(self, openmetrics: bool) -> bytes:
        with self._rendering:  # the thread of a scrape that was cancelled may still be at it
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded(openmetrics)

    def _load(self) -> Render:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        from app.infra.telemetry.opentelemetry_internals import PrometheusExporter
        from app.infra.telemetry.snapshot import MetricsSnapshots

        target = Resource({"service.name": "agent-service", "service.version": self._version})
        snapshots = MetricsSnapshots(self._meters, self._buffers, target, InstrumentationScope(""), for_page=True)
        return PrometheusExporter(snapshots.take).render


def prometheus_name(instrument: Counter | Gauge | Histogram) -> str:
    """Return the Prometheus name of ``instrument``, without a counter's suffix ``_total``."""
    unit = UNITS.get(instrument.unit, "")
    return plain_name(instrument.name) + (f"_{unit}" if unit else "")


def plain_name(name: str) -> str:
    """Return a metric's or label's name in Prometheus spelling."""
    return name.replace(".", "_")


def samples(instrument: Counter | Gauge | Histogram) -> list[str]:
    """Return the names of its samples."""
    name = prometheus_name(instrument)
    if isinstance(instrument, Histogram):
        return [name + ending for ending in ("_bucket", "_count", "_sum")]
    return [f"{name}_total" if instrument.kind == "counter" else name]


def ends(histogram: Histogram) -> list[str]:
    """Return the values of ``le``: the upper bounds of its buckets."""
    return [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]


def _prefers_openmetrics(accept: str) -> bool:
    """Whether ``Accept`` weighs OpenMetrics at least as much as plain text; formats it does not name weigh nothing."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind not in weights:
            continue
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        weights[kind] = max(weights[kind], weight)
    openmetrics = weights["application/openmetrics-text"]
    return openmetrics > 0 and openmetrics >= weights["text/plain"]

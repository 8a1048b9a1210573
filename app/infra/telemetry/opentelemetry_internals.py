"""Everything that leans on private parts of OpenTelemetry, in the versions that pyproject.toml pins: SDK and OTLP
exporter 1.45, Prometheus exporter 0.66b2.

- ``MetricReader._set_collect_callback`` hands our measurements to the Prometheus exporter. Remove it once the SDK for
  Python has the specification's MetricProducer:
  https://opentelemetry.io/docs/specs/otel/metrics/sdk/#metricproducer
- ``context._SUPPRESS_INSTRUMENTATION_KEY`` keeps instrumented HTTP clients from making spans of our own exports, as the
  SDK's processors do. Remove it once the API has a public name for it.
- ``OTLPSpanExporter._client`` sends spans that are encoded already: ``export`` encodes its own, at ten times the cost
  (docs/decisions/0006-metrics.md). Remove it together with ``otlp_encoding``.

Import this module only when something is exported: it loads the SDK.
"""

from collections.abc import Callable

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricsData
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics


class PrometheusExporter:
    """Renders what ``read`` returns at each scrape, by OpenTelemetry's Prometheus exporter."""

    def __init__(self, read: Callable[[], MetricsData]) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False)
        reader._set_collect_callback(lambda *_, **__: read())  # noqa: SLF001 - see above

    def render(self, as_openmetrics: bool) -> bytes:
        """Return the page as Prometheus text or as OpenMetrics. Blocks.

        Call it in one thread at a time: the exporter queues what it collects, and two scrapes would share it.
        """
        generate = openmetrics.generate_latest if as_openmetrics else generate_latest
        return generate(self._registry, escaping=openmetrics.ALLOWUTF8)


def suppress_instrumentation() -> None:
    """Make instrumented libraries create no spans in the running thread."""
    context.attach(context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: SLF001 - see above


class EncodedSpanExporter(OTLPSpanExporter):
    """The SDK's exporter for spans that are encoded already."""

    def send(self, request: bytes) -> bool:
        """Send ``request``; whether a collector accepted it."""
        return bool(self._client.export(request).success)

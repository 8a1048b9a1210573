"""Spans of the OpenTelemetry API wait in a bounded queue, and those that are lost are counted."""

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from app.infra.settings import TelemetrySettings
from app.infra.telemetry.opentelemetry_api import EndedSpans
from app.infra.telemetry.otlp_export import SpanPusher
from tests.telemetry.collector import Collector


def test_spans_beyond_the_queue_or_refused_by_the_collector_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        pusher = SpanPusher(TelemetrySettings(span_queue=3), Resource({}), "1")
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(EndedSpans(pusher.take_api))
        tracer = provider.get_tracer("shop")
        for _ in range(5):
            tracer.start_span("lost").end()
        assert pusher.dropped == 2
        collector.status = 400
        pusher.push(everything=True)
        assert (pusher.dropped, pusher.failures) == (5, 1)
        collector.status = 200
        tracer.start_span("kept").end()
        pusher.push(everything=True)
        assert [span.name for span in collector.spans] == ["kept"]
        assert (pusher.dropped, pusher.failures) == (5, 1)

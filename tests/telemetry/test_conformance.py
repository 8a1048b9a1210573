"""The page equals that of the OpenTelemetry SDK's Prometheus exporter for the same measurements."""

from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from app.infra.telemetry.instruments import Counter, Gauge, Histogram
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.prometheus_page import MetricsPage
from app.infra.telemetry.shared_buffer import SharedMetricsBuffer

VALUES = (0.0, 0.005, 0.3, 7, 10**6)


class Reference:
    """The same instruments of the SDK."""

    def __init__(self, meters: Meters) -> None:
        self.registry = CollectorRegistry()
        reader = PrometheusMetricReader(registry=self.registry, scope_info_enabled=False)
        meter = MeterProvider(metric_readers=[reader]).get_meter("reference")
        self.parts: dict[str, Any] = {}
        for part in meters.instruments():
            given = {"name": part.name, "unit": part.unit, "description": part.description}
            if isinstance(part, Histogram):
                made: Any = meter.create_histogram(
                    **given, explicit_bucket_boundaries_advisory=[*map(float, part.bounds)]
                )
            elif isinstance(part, Gauge):
                made = meter.create_up_down_counter(**given)
            else:
                made = meter.create_counter(**given)
            self.parts[part.name] = made

    def families(self) -> dict[str, tuple[str, str, dict[Any, float]]]:
        return families(generate_latest(self.registry).decode())


def families(text: str) -> dict[str, tuple[str, str, dict[Any, float]]]:
    """Name → (kind, help, samples) of a page, without its target."""
    return {
        family.name: (
            family.type,
            family.documentation,
            {(s.name, frozenset(s.labels.items())): s.value for s in family.samples if not s.name.endswith("_created")},
        )
        for family in parse(text)
        if family.name not in {"target", "target_info"}
    }


@pytest.fixture
def measured() -> tuple[SharedMetricsBuffer, Meters, Reference]:
    """Every instrument used, with odd labels too, here and in the SDK."""
    buffer = SharedMetricsBuffer()
    meters = Meters(buffer)
    reference = Reference(meters)
    for place, part in enumerate(meters.instruments()):
        for number, value in enumerate(VALUES):
            labels = tuple(f'{label} "{number % 2}" \\ \n é' for label in part.labels)
            attributes = dict(zip(part.labels, labels, strict=True))
            if isinstance(part, Histogram):
                part.record(value + place, *labels)
                reference.parts[part.name].record(value + place, attributes)
            elif isinstance(part, Counter):
                part.add(value + place, *labels)
                reference.parts[part.name].add(value + place, attributes)
    return buffer, meters, reference


async def test_names_kinds_words_and_numbers_are_those_of_the_exporter(
    measured: tuple[SharedMetricsBuffer, Meters, Reference],
) -> None:
    buffer, meters, reference = measured
    body, _ = await MetricsPage(meters, [buffer], "1").render()
    assert families(body.decode()) == reference.families()

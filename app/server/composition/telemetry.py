"""Meters and traces, and what shows or pushes them."""

from typing import TYPE_CHECKING

import msgspec

from app.features.system.service import version
from app.infra.settings.environment import Settings, export_variables
from app.infra.telemetry.meters import OPT_IN, Meters
from app.infra.telemetry.process_metrics import LoopLag, ProcessCollector
from app.infra.telemetry.prometheus_page import MetricsPage
from app.infra.telemetry.shared_buffer import MetricsBuffers
from app.infra.telemetry.tracing import NO_TRACER, Sampler, Tracer, TraceRecorder

if TYPE_CHECKING:  # loads the OpenTelemetry SDK
    from app.infra.telemetry.otlp_export import OtlpPush


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """``recorder`` is the meters and the tracer of them; ``push`` is set where an OTLP endpoint is."""

    meters: Meters
    recorder: TraceRecorder
    push: "OtlpPush | None"
    metrics_page: MetricsPage
    loop_lag: LoopLag

    @property
    def tracer(self) -> Tracer:
        """The tracer of spans; ``NO_TRACER`` where none are exported."""
        return self.recorder.tracer


def build_telemetry(settings: Settings, buffers: MetricsBuffers, worker: int) -> Telemetry:
    """Build the telemetry of the worker number ``worker``, which counts in its own one of ``buffers``."""
    meters = Meters(buffers.of(worker), latest=settings.telemetry.opts_in(OPT_IN))
    push, recorder = build_exporters(settings, meters, version())
    lag = LoopLag(meters, ProcessCollector(meters).sample)
    if push is not None:
        lag.also(push.sample)
    return Telemetry(
        meters=meters, recorder=recorder, push=push, metrics_page=MetricsPage(meters, buffers, version()), loop_lag=lag
    )


def build_exporters(settings: Settings, meters: Meters, version: str) -> "tuple[OtlpPush | None, TraceRecorder]":
    """Build the OTLP exporters and the recorder that feeds them. The SDK is imported only where an endpoint is set."""
    telemetry = settings.telemetry
    if not telemetry.pushes_spans and not telemetry.pushes_metrics:
        return None, TraceRecorder(meters, NO_TRACER)
    export_variables(settings.otel)
    from app.infra.telemetry.otlp_export import OtlpPush

    push = OtlpPush(telemetry, meters, version)
    if push.take is None:
        return push, TraceRecorder(meters, NO_TRACER)
    sampler = Sampler(*telemetry.sampling)
    tracer = Tracer(push.take, sampler, content=telemetry.captures_content, attach_api=push.attach_api)
    return push, TraceRecorder(meters, tracer)

"""Whether spans and metrics are pushed, and by what."""

from typing import TYPE_CHECKING

from app.infra.settings.environment import Settings, hand_on
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import NO_TRACER, Sampler, Tracer, TraceRecorder

if TYPE_CHECKING:  # loads the OpenTelemetry SDK
    from app.infra.telemetry.otlp_export import OtlpPush


def build_exporters(settings: Settings, meters: Meters, version: str) -> "tuple[OtlpPush | None, TraceRecorder]":
    """What pushes, and where it is told what happens: nothing is even imported where nobody gets any of it."""
    telemetry = settings.telemetry
    if not telemetry.pushes_spans and not telemetry.pushes_metrics:
        return None, TraceRecorder(meters, NO_TRACER)
    hand_on(settings.otel)
    from app.infra.telemetry.otlp_export import OtlpPush

    push = OtlpPush(telemetry, meters, version)
    tracer = Tracer(push.take, Sampler(*telemetry.sampling), content=telemetry.captures_content)
    return push, TraceRecorder(meters, tracer)

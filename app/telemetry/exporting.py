"""Whether spans and metrics are pushed, and by what."""

from typing import TYPE_CHECKING

from app.settings import Settings, hand_on
from app.telemetry.meters import Meters
from app.telemetry.tracing import NO_TRACER, Sampler, Telling, Tracer

if TYPE_CHECKING:  # loads the OpenTelemetry SDK
    from app.telemetry.otlp import Push


def exporting(settings: Settings, meters: Meters, version: str) -> "tuple[Push | None, Telling]":
    """What pushes, and where it is told what happens: nothing is even imported where nobody gets any of it."""
    telemetry = settings.telemetry
    if not telemetry.pushes_spans and not telemetry.pushes_metrics:
        return None, Telling(meters, NO_TRACER)
    hand_on(settings.otel)
    from app.telemetry.otlp import Push

    push = Push(telemetry, meters, version)
    tracer = Tracer(push.take, Sampler(*telemetry.sampling), content=telemetry.captures_content)
    return push, Telling(meters, tracer)

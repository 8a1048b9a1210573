"""The OpenTelemetry API for the code of agents: spans that tools, function agents and their libraries make join our
traces: https://opentelemetry.io/docs/specs/otel/trace/api/

Import this module only if spans are exported: it loads the SDK.
"""

from collections.abc import Callable

from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from app.infra.telemetry.trace_context import current_span


class _CurrentSpan(trace.NonRecordingSpan):
    """Our current span as the API sees it.

    It is looked up when a child or a propagator asks, so steps may begin and end without a call of the API.
    """

    def get_span_context(self) -> trace.SpanContext:
        """Return the context of our current span in the running task or thread."""
        ours = current_span.get()
        if ours is None:
            return trace.INVALID_SPAN_CONTEXT
        return trace.SpanContext(
            trace_id=int.from_bytes(ours.trace_id, "big"),
            span_id=int.from_bytes(ours.span_id, "big"),
            is_remote=False,
            trace_flags=trace.TraceFlags(ours.sampled),
        )


_CURRENT_SPAN = _CurrentSpan(trace.INVALID_SPAN_CONTEXT)


def attach() -> Callable[[], None]:
    """Make our current span the parent of the API's spans in the running task, and in threads that copy its context.

    Return what makes the previous span of the API the parent again.
    """
    token = context.attach(trace.set_span_in_context(_CURRENT_SPAN))
    return lambda: context.detach(token)


class EndedSpans(SpanProcessor):
    """Hands ended spans that are sampled to ``take``."""

    def __init__(self, take: Callable[[ReadableSpan], None]) -> None:
        self._take = take

    def on_end(self, span: ReadableSpan) -> None:
        """Hand ``span`` on; called in the thread that ends it."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._take(span)


def install(resource: Resource, take: Callable[[ReadableSpan], None]) -> None:
    """Hand ended spans of the API to ``take``, unless the process has a tracer provider of its own already."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(EndedSpans(take))
        trace.set_tracer_provider(provider)

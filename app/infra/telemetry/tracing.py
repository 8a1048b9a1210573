"""Spans: a unit of work, its duration, and its parent.

A span takes about 1 µs to create and 1 µs to encode in batches (the OpenTelemetry SDK takes 15 and 34), twice that
between other work. Hence ids are bytes, and what spans of a template have in common is encoded once. Without a sink
nothing is created: ``Tracer.start`` returns None. A span must not be changed after its end.
"""

from collections.abc import Callable
from random import getrandbits
from time import time_ns
from typing import NamedTuple

from app.infra.telemetry.meters import Meters
from app.infra.telemetry.trace_context import SpanContext, current_span

Value = str | bool | int | float | tuple[str, ...]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Span kinds with their OTLP numbers."""

_new = tuple.__new__  # half of what a named tuple's own constructor takes


class Sampler(NamedTuple):
    """Sampling: a ``ratio`` of the traces that start here, and if ``parent_based`` the caller's decision."""

    ratio: float = 1.0
    parent_based: bool = True

    def takes(self, trace_id: bytes, caller: SpanContext | None) -> bool:
        """Whether to sample this trace."""
        if self.parent_based and caller is not None:
            return caller.sampled
        return self.ratio >= 1 or int.from_bytes(trace_id[8:], "big") < self.ratio * (1 << 64)


class SpanTemplate:
    """The ``name``, ``kind`` and constant attributes (key, value) of many spans. Create each once."""

    __slots__ = ("attributes", "encoded", "kind", "name")

    def __init__(self, name: str, kind: int = INTERNAL, *attributes: tuple[str, Value]) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.encoded = b""
        """Cache of ``app.infra.telemetry.otlp_encoding``."""


class Span:
    """A unit of work until ``end``; until then its ``template`` and ``attributes`` may change.

    ``parent`` is None for the root of a trace.
    """

    __slots__ = ("_context", "_sink", "attributes", "ended", "error", "parent", "started_at", "template")

    def __init__(
        self,
        sink: "SpanSink | None",
        template: SpanTemplate,
        parent: SpanContext | None,
        context: SpanContext | None = None,
    ) -> None:
        """``sink`` None: the span is not recorded."""
        self._sink = sink
        self.template = template
        self.parent = parent
        self._context = context
        self.attributes: dict[str, Value] = {}
        self.started_at = time_ns()

    @property
    def context(self) -> SpanContext:
        """The context of its children; created on demand, since most spans have none."""
        context = self._context
        if context is None:
            assert self.parent is not None
            self._context = context = _new(SpanContext, (self.parent[0], getrandbits(64).to_bytes(8, "big"), True))
        return context

    def end(self, error: str = "") -> None:
        """End the span; ``error`` is the error type, empty on success. Only the first call counts."""
        sink = self._sink
        if sink is not None:
            self._sink = None
            self.ended = time_ns()
            self.error = error
            if error:
                self.attributes["error.type"] = error
            sink(self)


SpanSink = Callable[[Span], None]


AttachApi = Callable[[], Callable[[], None]]
"""Makes our current span the parent of spans of the OpenTelemetry API; returns what undoes it."""


def _no_api() -> Callable[[], None]:
    return lambda: None


class Tracer:
    """Creates spans for ``sink``; without one, none. ``content``: spans may contain message content.

    ``attach_api`` is called where code of agents runs: at the start of a run, and around tools.
    """

    def __init__(
        self,
        sink: SpanSink | None = None,
        sampler: Sampler = Sampler(),
        *,
        content: bool = False,
        attach_api: AttachApi = _no_api,
    ) -> None:
        self._sink = sink
        self._sampler = sampler
        self.active = sink is not None
        self.content = content and self.active
        self.attach_api = attach_api

    def receive(self, template: SpanTemplate, caller: SpanContext | None) -> Span | None:
        """Start a server span for the context of ``caller``, if any; decides whether the trace is sampled."""
        if self._sink is None:
            return None
        trace_id = getrandbits(128).to_bytes(16, "big") if caller is None else caller.trace_id
        sampled = self._sampler.takes(trace_id, caller)
        context = _new(SpanContext, (trace_id, getrandbits(64).to_bytes(8, "big"), sampled))
        return Span(self._sink if sampled else None, template, caller, context)

    def start(self, template: SpanTemplate, parent: SpanContext | None = None) -> Span | None:
        """Start a child of the current span, or of ``parent``; None if the trace is not sampled."""
        if self._sink is None:
            return None
        parent = parent or current_span.get()
        return Span(self._sink, template, parent) if parent is not None and parent.sampled else None

    def enter(self, span: Span) -> Callable[[], None]:
        """Make ``span`` the current one of the running task, and of the OpenTelemetry API there.

        Return what restores the previous one; call that once, in the same task.
        """
        token = current_span.set(span.context)
        detach = self.attach_api()

        def leave() -> None:
            detach()
            current_span.reset(token)

        return leave


NO_TRACER = Tracer()


class TraceRecorder(NamedTuple):
    """Meters and tracer, passed together."""

    meters: Meters
    tracer: Tracer

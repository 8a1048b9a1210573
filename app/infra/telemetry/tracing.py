"""Spans: what one piece of work was, how long it took, and what it was part of.

A span takes about 1 µs to make and 1 µs to encode, many in a row and later (the OpenTelemetry SDK takes 15 and 34), and
twice that among other work. So ids are bytes, and what spans of a form have in common is encoded once. Nothing is made
when there is nobody to send it to: ``Tracer.start`` then answers None. Who ends a span leaves it alone from then on.
"""

from collections.abc import Callable
from contextvars import Token
from random import getrandbits
from time import time_ns
from typing import NamedTuple

from app.infra.telemetry.meters import Meters
from app.infra.telemetry.trace_context import SpanContext, current_span

Value = str | bool | int | float | tuple[str, ...]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, as OTLP numbers them."""

_new = tuple.__new__  # half of what a named tuple's own constructor takes


class Sampler(NamedTuple):
    """Which traces leave spans: a ``ratio`` of those that begin here, and, where it ``asks``, what a caller took."""

    ratio: float = 1.0
    asks: bool = True

    def takes(self, trace_id: bytes, caller: SpanContext | None) -> bool:
        """Whether to take this trace."""
        if self.asks and caller is not None:
            return caller.sampled
        return self.ratio >= 1 or int.from_bytes(trace_id[8:], "big") < self.ratio * (1 << 64)


class SpanTemplate:
    """What many spans have in common: their ``name``, their ``kind``, some attributes (key, value). Make each once."""

    __slots__ = ("attributes", "encoded", "kind", "name")

    def __init__(self, name: str, kind: int = INTERNAL, *attributes: tuple[str, Value]) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.encoded = b""
        """Of ``app.infra.telemetry.otlp_encoding``, once it has met such a span."""


class Span:
    """A piece of work that goes on until ``end``; until then its ``form`` may change and ``attributes`` be added.

    ``parent`` is where it is part of; None: it is a whole trace.
    """

    __slots__ = ("_place", "_sink", "_token", "attributes", "began", "ended", "error", "form", "parent")

    def __init__(
        self, sink: "SpanSink | None", form: SpanTemplate, parent: SpanContext | None, place: SpanContext | None = None
    ) -> None:
        """``sink`` None: it leaves nothing."""
        self._sink = sink
        self.form = form
        self.parent = parent
        self._place = place
        self.attributes: dict[str, Value] = {}
        self.began = time_ns()

    @property
    def place(self) -> SpanContext:
        """Where its parts are; most spans have none, and get an id when they are encoded."""
        place = self._place
        if place is None:
            assert self.parent is not None
            self._place = place = _new(SpanContext, (self.parent[0], getrandbits(64).to_bytes(8, "big"), True))
        return place

    def enter(self) -> None:
        """What the running task begins from now on is part of it."""
        self._token: Token[SpanContext | None] = current_span.set(self.place)

    def leave(self) -> None:
        """It is no more; call it once, in the task that entered."""
        current_span.reset(self._token)

    def end(self, error: str = "") -> None:
        """It is over; ``error`` is the kind of what went wrong, empty when nothing did. Only the first end counts."""
        sink = self._sink
        if sink is not None:
            self._sink = None
            self.ended = time_ns()
            self.error = error
            if error:
                self.attributes["error.type"] = error
            sink(self)


SpanSink = Callable[[Span], None]


class Tracer:
    """Makes spans for ``sink``; without one it makes none. ``content``: they may hold what people and models said."""

    def __init__(self, sink: SpanSink | None = None, sampler: Sampler = Sampler(), *, content: bool = False) -> None:
        self._sink = sink
        self._sampler = sampler
        self.active = sink is not None
        self.content = content and self.active

    def receive(self, form: SpanTemplate, caller: SpanContext | None) -> Span | None:
        """Begin work that another process asked for, or nobody: here it is decided whether its trace is sampled."""
        if self._sink is None:
            return None
        trace_id = getrandbits(128).to_bytes(16, "big") if caller is None else caller.trace_id
        sampled = self._sampler.takes(trace_id, caller)
        place = _new(SpanContext, (trace_id, getrandbits(64).to_bytes(8, "big"), sampled))
        return Span(self._sink if sampled else None, form, caller, place)

    def start(self, form: SpanTemplate, parent: SpanContext | None = None) -> Span | None:
        """Begin a part of the work that the running task does, or of ``parent``; None where that leaves no spans."""
        if self._sink is None:
            return None
        parent = parent or current_span.get()
        return Span(self._sink, form, parent) if parent is not None and parent.sampled else None


NO_TRACER = Tracer()


class TraceRecorder(NamedTuple):
    """Where it is told what happens."""

    meters: Meters
    tracer: Tracer

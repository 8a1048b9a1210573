"""Spans: what one piece of work was, how long it took, and what it was part of.

A span takes about 1 µs to make and 1 µs to encode, many in a row and later (the OpenTelemetry SDK takes 15 and 34), and
twice that among other work. So ids are bytes, and what spans of a form have in common is encoded once. Nothing is made
when there is nobody to send it to: ``Tracer.start`` then answers None. Who ends a span leaves it alone from then on.
"""

import time
from collections.abc import Callable
from contextvars import Token
from random import getrandbits
from typing import NamedTuple

from app.telemetry.context import Place, here
from app.telemetry.meters import Meters

Value = str | bool | int | float | tuple[str, ...]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, as OTLP numbers them."""

_new = tuple.__new__  # half of what a named tuple's own constructor takes


class Sampler(NamedTuple):
    """Which traces leave spans: a ``ratio`` of those that begin here, and, where it ``asks``, what a caller took."""

    ratio: float = 1.0
    asks: bool = True

    def takes(self, trace_id: bytes, caller: Place | None) -> bool:
        """Whether to take this trace."""
        if self.asks and caller is not None:
            return caller.sampled
        return self.ratio >= 1 or int.from_bytes(trace_id[8:], "big") < self.ratio * (1 << 64)


class Form:
    """What many spans have in common: their ``name``, their ``kind``, some attributes (key, value). Make each once."""

    __slots__ = ("attributes", "encoded", "kind", "name")

    def __init__(self, name: str, kind: int = INTERNAL, *attributes: tuple[str, Value]) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.encoded = b""
        """Of ``app.telemetry.encoding``, once it has met such a span."""


class Span:
    """A piece of work that goes on until ``end``; until then its ``form`` may change and ``attributes`` be added."""

    __slots__ = ("_sink", "_token", "attributes", "began", "ended", "error", "form", "parent_id", "place")

    def __init__(self, sink: "Sink", form: Form, place: Place, parent_id: bytes) -> None:
        self._sink = sink
        self._token: Token[Place | None] | None = None
        self.form = form
        self.place = place
        self.parent_id = parent_id
        self.attributes: dict[str, Value] = {}
        self.error = ""
        self.ended = 0
        self.began = time.time_ns()

    def enter(self) -> None:
        """What the running task begins from now on is part of it."""
        self._token = here.set(self.place)

    def leave(self) -> None:
        """It is no more; call it in the task that entered."""
        if self._token is not None:
            here.reset(self._token)
            self._token = None

    def end(self, error: str = "") -> None:
        """It is over; ``error`` is the kind of what went wrong, empty when nothing did. Only the first end counts."""
        if not self.ended:
            self.ended = time.time_ns()
            if error:
                self.error = error
                self.attributes["error.type"] = error
            if self.place.sampled:
                self._sink(self)


Sink = Callable[[Span], None]


class Tracer:
    """Makes spans for ``sink``; without one it makes none. ``content``: they may hold what people and models said."""

    def __init__(self, sink: Sink | None = None, sampler: Sampler = Sampler(), *, content: bool = False) -> None:
        self._sink = sink
        self._sampler = sampler
        self.active = sink is not None
        self.content = content and self.active

    def receive(self, form: Form, caller: Place | None) -> Span | None:
        """Begin work that another process asked for, or nobody: here it is decided whether its trace is sampled."""
        if self._sink is None:
            return None
        if caller is None:
            trace_id, parent_id = getrandbits(128).to_bytes(16, "big"), b""
        else:
            trace_id, parent_id = caller.trace_id, caller.span_id
        sampled = self._sampler.takes(trace_id, caller)
        place = _new(Place, (trace_id, getrandbits(64).to_bytes(8, "big"), sampled))
        return Span(self._sink, form, place, parent_id)

    def start(self, form: Form) -> Span | None:
        """Begin a part of the work that the running task does; None where that leaves no spans."""
        if self._sink is None or (parent := here.get()) is None or not parent.sampled:
            return None
        place = _new(Place, (parent.trace_id, getrandbits(64).to_bytes(8, "big"), True))
        return Span(self._sink, form, place, parent.span_id)


NO_TRACER = Tracer()


class Telling(NamedTuple):
    """Where it is told what happens."""

    meters: Meters
    tracer: Tracer

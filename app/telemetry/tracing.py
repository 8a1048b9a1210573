"""Spans: what one piece of work was, how long it took, and what it was part of.

A span costs 1 to 3 µs to make, and as much to encode, many at a time and later (the OpenTelemetry SDK takes 15 and 34);
nothing is made when there is nobody to send it to: ``Tracer.start`` then answers None. Who ends a span leaves it alone
from then on.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from random import getrandbits
from typing import NamedTuple

from app.telemetry.context import parse_traceparent
from app.telemetry.meters import Meters

Value = str | bool | int | float | tuple[str, ...]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, as OTLP numbers them."""

SAMPLED = 0x01
_new = tuple.__new__  # half of what a named tuple's own constructor takes


class Place(NamedTuple):
    """Where in a trace the code is: below the span ``span_id``. What is not ``sampled`` leaves no spans."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """For the header of that name: https://www.w3.org/TR/trace-context/"""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


here: ContextVar[Place | None] = ContextVar("place", default=None)
"""Where the running code is. Tasks inherit it."""


def place_of(traceparent: str) -> Place | None:
    """What a caller says of itself; None for a text that is no ``traceparent``."""
    trace_id, span_id = parse_traceparent(traceparent)
    if not trace_id:
        return None
    return Place(trace_id, span_id, bool(int(traceparent[53:55], 16) & SAMPLED))


class Sampler(NamedTuple):
    """Which traces leave spans: a ``ratio`` of those that begin here, and, where it ``asks``, what a caller took."""

    ratio: float = 1.0
    asks: bool = True

    def takes(self, trace_id: str, caller: Place | None) -> bool:
        """Whether to take this trace."""
        if self.asks and caller is not None:
            return caller.sampled
        return int(trace_id[16:], 16) < self.ratio * (1 << 64)


class Span:
    """A piece of work that goes on until ``end``; ``attributes`` may be added to until then."""

    __slots__ = ("_sink", "_token", "attributes", "began", "ended", "error", "kind", "name", "parent_id", "place")

    def __init__(self, sink: "Sink", name: str, kind: int, place: Place, parent_id: str) -> None:
        self._sink = sink
        self._token: Token[Place | None] | None = None
        self.name = name
        self.kind = kind
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

    def receive(self, name: str, kind: int, caller: Place | None) -> Span | None:
        """Begin work that another process asked for, or nobody: here it is decided whether its trace is sampled."""
        if self._sink is None:
            return None
        trace_id = caller.trace_id if caller is not None else f"{getrandbits(128):032x}"
        place = Place(trace_id, f"{getrandbits(64):016x}", self._sampler.takes(trace_id, caller))
        return Span(self._sink, name, kind, place, caller.span_id if caller is not None else "")

    def start(self, name: str, kind: int = INTERNAL) -> Span | None:
        """Begin a part of the work that the running task does; None where that leaves no spans."""
        if self._sink is None or (parent := here.get()) is None or not parent.sampled:
            return None
        place = _new(Place, (parent.trace_id, f"{getrandbits(64):016x}", True))
        return Span(self._sink, name, kind, place, parent.span_id)


NO_TRACER = Tracer()


class Telling(NamedTuple):
    """Where it is told what happens."""

    meters: Meters
    tracer: Tracer

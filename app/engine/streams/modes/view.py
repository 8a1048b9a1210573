"""The port to a stream mode of its own: what it makes of a run's events.

A view is asked in the order of the events, live and in a replay alike, and must answer the same both times: what it
remembers comes from the events alone. One view serves one owner's part of a run, from its first event on.
"""

from typing import Any, NamedTuple, Protocol

import msgspec

from app.domain.events import Event
from app.domain.state import Values


def _embedded(values: Values) -> msgspec.Raw:
    return msgspec.Raw(values.json())


encode = msgspec.json.Encoder(enc_hook=_embedded).encode
"""Encodes a payload and the ``Values`` that it holds."""


class ViewFrame(NamedTuple):
    """One frame to be: its stream mode, the name of the event on the wire, and its data.

    With the ``values`` that ``payload`` holds it is encoded when a reader wants it.
    """

    mode: str
    event: str
    payload: Any
    values: Values | None = None


class StreamView(Protocol):
    """One or several stream modes."""

    moves: bool
    """Whether it needs the ``move`` of events."""

    def wants(self, event: Event) -> bool:
        """Whether ``event`` matters here; others need not be kept for it."""
        ...

    def needs_values(self, event: Event) -> bool:
        """Whether ``event`` takes the thread's values at its checkpoint."""
        ...

    def render(self, event: Event, values: Values) -> list[ViewFrame]:
        """The frames of ``event``; ``values`` are the thread's at its checkpoint."""
        ...

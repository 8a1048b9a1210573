"""Port of stream modes with a view of their own on a run's events.

A view gets the events in order and must render them identically live and in a replay, so its state comes from events
alone. One view serves one owner's part of a run, from its first event.
"""

from typing import Any, NamedTuple, Protocol

import msgspec

from app.domain.events import Event
from app.domain.state import Values


def _embedded(values: Values) -> msgspec.Raw:
    return msgspec.Raw(values.json())


encode = msgspec.json.Encoder(enc_hook=_embedded).encode
"""Encodes a payload and the ``Values`` in it."""


class ViewFrame(NamedTuple):
    """A frame to render: its stream mode, event name on the wire, and data.

    If ``payload`` holds ``values``, it is encoded when a subscriber needs it.
    """

    mode: str
    event: str
    payload: Any
    values: Values | None = None


class StreamView(Protocol):
    """View of one or several stream modes."""

    moves: bool
    """Whether it needs the ``move`` of events."""

    def wants(self, event: Event) -> bool:
        """Whether ``event`` makes frames here; others need not be stored for it."""
        ...

    def needs_values(self, event: Event) -> bool:
        """Whether ``event`` needs the thread's values at its checkpoint."""
        ...

    def render(self, event: Event, values: Values) -> list[ViewFrame]:
        """Return the frames of ``event``; ``values`` are the thread's at its checkpoint."""
        ...

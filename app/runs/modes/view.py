"""The port to a stream mode of its own: what it makes of a run's events.

A view is asked in the order of the events, live and in a replay alike, and must answer the same both times: what it
remembers comes from the events alone. One view serves one owner's part of a run, from its first event on.
"""

from typing import NamedTuple, Protocol

from app.domain.events import Event


class Piece(NamedTuple):
    """One frame to be: its stream mode, the name of the event on the wire, and its data as JSON."""

    mode: str
    event: str
    data: bytes


class View(Protocol):
    """One or several stream modes."""

    moves: bool
    """Whether it needs the ``move`` of events."""

    def wants(self, event: Event) -> bool:
        """Whether ``event`` matters here; others need not be kept for it."""
        ...

    def needs_values(self, event: Event) -> bool:
        """Whether ``event`` takes the thread's values at its checkpoint."""
        ...

    def render(self, event: Event, values: bytes) -> list[Piece]:
        """The frames of ``event``; ``values`` is the JSON of the thread's values at its checkpoint."""
        ...

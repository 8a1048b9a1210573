"""Event ids: positions in the stream of a run."""

from typing import NamedTuple


class EventId(NamedTuple):
    """Id of a frame, ordered: ``epoch`` of the owner, ``seq`` within it (docs/decisions/0001)."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START = EventId(0, 0)
"""Precedes every frame."""


FROM_THE_START = frozenset({"-1", "0-0", "-"})
"""Values of ``Last-Event-ID`` with which clients request the whole stream."""

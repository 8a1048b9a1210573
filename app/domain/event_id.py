"""The id of a frame in the stream of a run, and the ids that ask for everything."""

from typing import NamedTuple


class EventId(NamedTuple):
    """The id of a frame, ordered: ``epoch`` of the owner, ``seq`` within it (docs/decisions/0001)."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START = EventId(0, 0)
"""Before every frame."""


FROM_THE_START = frozenset({"-1", "0-0", "-"})
"""What clients send as the last id to get everything."""

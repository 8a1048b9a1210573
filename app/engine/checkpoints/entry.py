"""Checkpoints to write, built from a state in the same way for runs and clients."""

from uuid import UUID

import msgspec

from app.base.ids import new_id
from app.domain.state import State
from app.engine.checkpoints.codec import pack_head, ranges_of

FIRST_STEP = -1
"""The step number of a thread's first checkpoint."""


class CheckpointEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint to write; ``head`` is in its stored form, the ranges are the log items it refers to."""

    checkpoint_id: UUID
    parent_id: UUID | None
    source: str
    step: int
    next: tuple[str, ...]
    head: bytes
    first_items: list[int]
    last_items: list[int]

    @classmethod
    def of(
        cls, state: State, *, parent_id: UUID | None, source: str, step: int, following: tuple[str, ...]
    ) -> "CheckpointEntry":
        """Build a new checkpoint from ``state``; the nodes ``following`` come next."""
        head = state.head()
        firsts, lasts = ranges_of(head)
        return cls(
            checkpoint_id=new_id(),
            parent_id=parent_id,
            source=source,
            step=step,
            next=following,
            head=pack_head(head),
            first_items=firsts,
            last_items=lasts,
        )

"""Checkpoints to write, built from a state in the same way for runs and clients."""

from uuid import UUID

import msgspec

from app.base.ids import new_id
from app.domain.state import State
from app.engine.checkpoints.codec import pack_head, ranges_of

FIRST_STEP = -1
"""The step number of a thread's first checkpoint."""


class AmendedCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that gets other hidden values; fields as in ``CheckpointEntry``."""

    checkpoint_id: UUID
    head: bytes
    first_items: list[int]
    last_items: list[int]

    @classmethod
    def of(cls, checkpoint_id: UUID, state: State) -> "AmendedCheckpoint":
        """Return the stored form of ``state``."""
        head = state.head()
        firsts, lasts = ranges_of(head)
        return cls(checkpoint_id=checkpoint_id, head=pack_head(head), first_items=firsts, last_items=lasts)


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
        stored = AmendedCheckpoint.of(new_id(), state)
        return cls(
            checkpoint_id=stored.checkpoint_id,
            parent_id=parent_id,
            source=source,
            step=step,
            next=following,
            head=stored.head,
            first_items=stored.first_items,
            last_items=stored.last_items,
        )

    def amended(self, stored: AmendedCheckpoint) -> "CheckpointEntry":
        """Return this checkpoint, which is not written yet, with other values."""
        return msgspec.structs.replace(
            self, head=stored.head, first_items=stored.first_items, last_items=stored.last_items
        )

"""Checkpoints as read from the database: metadata and state."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.domain.state import State
from app.engine.checkpoints.codec import unpack, unpack_head, unpacked_size


class StoredCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A stored checkpoint of a thread. ``next`` names the nodes that would run from it."""

    checkpoint_id: UUID
    parent_id: UUID | None
    run_id: UUID | None
    source: str
    step: int
    next: tuple[str, ...]
    metadata: dict[str, Any] | None
    created_at: datetime
    state: State


def read(row: Any, last_number: int, last_value_number: int = 0) -> StoredCheckpoint:
    """Decode ``row``, a row of a query with ``COLUMNS`` (attribute or key access)."""
    get = row.__getitem__ if not hasattr(row, "_mapping") else row._mapping.__getitem__  # noqa: SLF001
    found = items(get("numbers"), get("bodies"))
    return StoredCheckpoint(
        checkpoint_id=get("checkpoint_id"),
        parent_id=get("parent_id"),
        run_id=get("run_id"),
        source=get("source"),
        step=get("step"),
        next=tuple(get("next")),
        metadata=decoded(get("checkpoint_metadata")),
        created_at=get("checkpoint_created_at"),
        state=State.load(unpack_head(get("head")), found, last_number, last_value_number),
    )


def size_of(row: Any) -> int:
    """Estimate the JSON size in bytes of the state in ``row`` without decompressing it."""
    get = row.__getitem__ if not hasattr(row, "_mapping") else row._mapping.__getitem__  # noqa: SLF001
    return sum(map(unpacked_size, get("bodies") or ()), len(get("head") or b""))


def items(numbers: Sequence[int] | None, bodies: Sequence[bytes] | None) -> Mapping[int, bytes]:
    """Return decompressed log items by number."""
    return {number: unpack(body) for number, body in zip(numbers or (), bodies or (), strict=True)}


def decoded(value: Any) -> dict[str, Any] | None:
    """Decode a JSON column: a string from asyncpg, already decoded from SQLAlchemy."""
    found: dict[str, Any] | None = msgspec.json.decode(value) if isinstance(value, str) else value
    return found

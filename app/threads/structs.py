"""The wire shapes of threads and their states."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from app.base.errors import NotBuilt

Status = Literal["idle", "busy", "interrupted", "error"]
Field = Literal[
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "status",
    "config",
    "values",
    "error",
    "interrupts",
]
SortBy = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]
SortOrder = Literal["asc", "desc"]


class Thread(msgspec.Struct, kw_only=True):
    """A conversation. ``values`` are null, and ``error`` and ``interrupts`` absent, until something ran on it."""

    thread_id: UUID
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    metadata: Any
    status: str
    config: Any
    values: msgspec.Raw
    error: Any = msgspec.UNSET
    interrupts: Any = msgspec.UNSET


class ThreadCreate(msgspec.Struct, kw_only=True):
    """A thread to create."""

    thread_id: UUID | None = None
    metadata: dict[str, Any] | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    ttl: Any = None
    supersteps: list[dict[str, Any]] | None = None

    def check(self) -> None:
        """Refuse what this version does not serve. Raises ``NotBuilt``."""
        if self.supersteps:
            raise NotBuilt("The field 'supersteps' is not built yet in this version.")


class ThreadPatch(msgspec.Struct, kw_only=True):
    """What to change: ``metadata`` is merged."""

    metadata: dict[str, Any] | None = None
    ttl: Any = None


class ThreadSearch(msgspec.Struct, kw_only=True):
    """Which threads: ``metadata`` that they contain, their status, their ids."""

    ids: list[UUID] | None = None
    metadata: dict[str, Any] | None = None
    values: dict[str, Any] | None = None
    status: Status | None = None
    limit: int = 10
    offset: int = 0
    sort_by: SortBy | None = None
    sort_order: SortOrder | None = None
    select: list[Field] | None = None
    extract: dict[str, str] | None = None

    def check(self) -> None:
        """Refuse what this version does not serve. Raises ``NotBuilt``."""
        for name in ("values", "extract"):
            if getattr(self, name):
                raise NotBuilt(f"The field {name!r} is not built yet in this version.")


class CheckpointRef(msgspec.Struct, kw_only=True):
    """Where a checkpoint is."""

    checkpoint_id: UUID
    thread_id: UUID
    checkpoint_ns: str = ""


class ThreadState(msgspec.Struct, kw_only=True):
    """A thread's values at one checkpoint, and what would run next."""

    values: msgspec.Raw
    next: list[str]
    tasks: list[dict[str, Any]]
    metadata: dict[str, Any] | None
    created_at: datetime | None
    checkpoint: CheckpointRef | None
    parent_checkpoint: CheckpointRef | None
    interrupts: list[Any]
    checkpoint_id: UUID | None
    parent_checkpoint_id: UUID | None


class CheckpointQuery(msgspec.Struct, kw_only=True):
    """The checkpoint whose state is asked for."""

    checkpoint: dict[str, Any]
    subgraphs: bool = False


class HistoryQuery(msgspec.Struct, kw_only=True):
    """Which checkpoints, newest first."""

    limit: int = 10
    before: Any = None
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None

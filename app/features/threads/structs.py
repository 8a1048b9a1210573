"""The wire shapes of threads and their states."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from app.base.errors import Invalid

MAX_MINUTES = 60.0 * 24 * 366 * 10

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

KEEP_LATEST = "keep_latest"


class Thread(msgspec.Struct, kw_only=True):
    """A conversation. Until a run has started on it, ``values`` is null and ``error`` and ``interrupts`` are absent."""

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
    ttl: Any = msgspec.UNSET
    extracted: Any = msgspec.UNSET


Strategy = Literal["delete", "keep_latest"]
"""What pruning and expiry delete: the thread, or all its checkpoints but the newest."""


class Ttl(msgspec.Struct, kw_only=True):
    """The TTL of an idle thread, in minutes, and what expiry deletes."""

    ttl: float
    strategy: Strategy = "delete"


def lifetime(ttl: float | Ttl | None) -> Ttl | None:
    """Validate a TTL in either wire form. Raises ``Invalid``."""
    if ttl is None:
        return None
    result = ttl if isinstance(ttl, Ttl) else Ttl(ttl=ttl)
    if not 0 < result.ttl <= MAX_MINUTES:
        raise Invalid("ttl must be a number of minutes, more than 0.", (("/ttl", "out of range"),))
    return result


class NodeUpdate(msgspec.Struct, kw_only=True):
    """Values to write as the node ``as_node``."""

    values: dict[str, Any] | list[dict[str, Any]] | None = None
    as_node: str | None = None
    command: Any = None


class Superstep(msgspec.Struct, kw_only=True):
    """Updates that form one checkpoint."""

    updates: list[NodeUpdate]


class StateUpdate(msgspec.Struct, kw_only=True):
    """Values to write as the node ``as_node``, on the newest state or at a checkpoint."""

    values: dict[str, Any] | list[dict[str, Any]] | None = None
    as_node: str | None = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None


class StateUpdated(msgspec.Struct, kw_only=True):
    """The checkpoint of an update, in the three fields that clients read."""

    checkpoint: "CheckpointRef"
    configurable: "CheckpointRef"
    checkpoint_id: UUID


class Prune(msgspec.Struct, kw_only=True):
    """Threads to delete, or to reduce to their newest checkpoint."""

    thread_ids: list[UUID]
    strategy: Strategy = "delete"


class Pruned(msgspec.Struct):
    """The number of pruned threads."""

    pruned_count: int


class ThreadCreate(msgspec.Struct, kw_only=True):
    """A thread to create; ``supersteps`` are its history, written for the agent ``metadata.graph_id``."""

    thread_id: UUID | None = None
    metadata: dict[str, Any] | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    ttl: float | Ttl | None = None
    supersteps: list[Superstep] | None = None


class ThreadPatch(msgspec.Struct, kw_only=True):
    """Changes of a thread: ``metadata`` is merged, ``ttl`` replaced."""

    metadata: dict[str, Any] | None = None
    ttl: float | Ttl | None = None


class ThreadSearch(msgspec.Struct, kw_only=True):
    """Filters of a thread search: contained ``metadata`` and ``values``, status, ids."""

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

    def fields(self) -> list[str] | None:
        """Return the fields to include; None for all."""
        return None if self.select is None else [*self.select, *(["extracted"] if self.extract else [])]


class CheckpointRef(msgspec.Struct, kw_only=True):
    """A reference to a checkpoint."""

    checkpoint_id: UUID
    thread_id: UUID
    checkpoint_ns: str = ""


class ThreadState(msgspec.Struct, kw_only=True):
    """A thread's values at one checkpoint, and the nodes that would run next."""

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
    """The checkpoint whose state to return."""

    checkpoint: dict[str, Any]
    subgraphs: bool = False
    select: list[str] | None = None


class HistoryQuery(msgspec.Struct, kw_only=True):
    """Filters of a thread's history."""

    limit: int = 10
    before: Any = None
    metadata: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    select: list[str] | None = None

"""Wire shapes of the search over all threads, and how other features see a run."""

from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from app.domain.lifecycle import LIVE, RunStatus
from app.engine.structs import Run

Field = Literal[
    "run_id",
    "thread_id",
    "assistant_id",
    "status",
    "reason",
    "metadata",
    "attempts",
    "created_at",
    "started_at",
    "ended_at",
    "error",
    "usage",
]


class RunSearch(msgspec.Struct, kw_only=True):
    """Filters of a search: statuses, assistant (UUID or agent's name), thread, contained ``metadata``, creation time.

    ``before`` is the id of the last run of the page before.
    """

    status: RunStatus | list[RunStatus] | None = None
    assistant_id: str | None = None
    thread_id: UUID | None = None
    metadata: dict[str, Any] | None = None
    created_after: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    before: UUID | None = None
    limit: int = 10
    select: list[Field] | None = None


class RunSummary(msgspec.Struct, kw_only=True):
    """A run without what it was asked for. ``started_at`` less ``created_at`` is its time in the queue.

    ``reason``: why it has its status. ``attempts``: how often a worker began it. ``error``: ``{"error", "message"}``.
    ``usage``: ``{"input_tokens", "output_tokens", "total_tokens"}``; null until the run has ended, or without a model.
    """

    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    status: str
    reason: str
    metadata: Any
    attempts: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: Any
    usage: Any


class RunTransition(msgspec.Struct, kw_only=True):
    """A change of a run: its status from ``at`` on, and why.

    ``attempt``: number of the worker that owns it, as in the ids of its events; a dead one is followed by the next.
    """

    at: datetime
    status: str
    reason: str
    attempt: int


class CurrentRun(NamedTuple):
    """The run of a thread that its clients see now, and its number in the thread."""

    run: Run
    ordinal: int

    @property
    def is_live(self) -> bool:
        """Whether it is in progress, or waits for its turn."""
        return self.run.status in LIVE


class EndedRun(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended: the state it left and, to tell what it has added, the ``first`` one that it started from.

    ``head``: the newest state of its thread. ``error`` is ``{"error", "message"}``, ``interrupts`` are
    ``{"id", "value"}``.
    """

    thread_id: UUID
    status: str
    checkpoint_id: UUID | None
    head: UUID | None
    first: UUID | None
    error: Any
    interrupts: Any
    metadata: Any

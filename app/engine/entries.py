"""Rows that the engine writes in groups: accepted runs, and the steps and ends of runs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.domain.lifecycle import Reason, RunStatus, ThreadStatus
from app.engine.checkpoints.entry import AmendedCheckpoint, CheckpointEntry
from app.engine.structs import SHOWN, Run, RunFields, kwargs_of
from app.security.limits.structs import BudgetReservation

LARGE_REQUEST = 1024 * 1024
"""Bytes from which a request is large: its run waits for memory (``app.engine.queue.memory_gate``)."""


class AcceptEntry(RunFields, frozen=True, kw_only=True):
    """A run to accept. ``request`` and ``metadata`` are JSON; ``delay`` is in seconds (0: as soon as the thread is
    free). Fields that are columns of ``runs`` are stored there.

    Without an ``owner`` it is queued for any process. ``parent_id``: the run whose question it answers. ``answering``:
    ids of the questions that it closes, comma-separated (None: it brings no answer); if none of them is open,
    ``strict`` rejects it, unless it ``ends_pause`` of a paused thread. ``reserved``: its part of the tenant's budget.
    ``traceparent``: the span that requested it. ``owned``: JSON that the metadata of an existing thread must contain.
    ``stamped``: a thread created for the run gets the run's metadata.
    """

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    assistant_id: UUID
    request: bytes
    metadata: str
    multitask_strategy: str
    create_thread: bool
    temporary: bool
    owner: UUID | None
    delay: float
    parent_id: UUID | None = None
    answering: str | None = None
    ends_pause: bool = False
    strict: bool = False
    webhook: str | None = None
    agent: str = ""
    reserved: BudgetReservation | None = None
    traceparent: str | None = None
    owned: str | None = None
    stamped: bool = False


class ClaimedRun(RunFields, frozen=True, kw_only=True):
    """A run claimed by this process, with what it needs to execute it. JSON columns are JSON text.

    Fields that are columns of ``runs`` are read from there.

    ``answered`` maps interrupt ids to answers that earlier runs of the thread received and did not finish with. The
    lease holds until ``held_until`` on this process's monotonic clock; 0 means that the run is queued, ``behind`` the
    thread's live run if it has one. ``crashed_mid_step``: its last owner stopped in the middle of a step. ``suspect``:
    that owner's process died, perhaps because of this run. ``request_bytes``: size of its request, which is empty here
    and read later if it is large and has to wait for memory.
    """

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    assistant_id: UUID
    agent: str
    epoch: int
    attempt: int
    owner: UUID
    request: bytes
    metadata: str
    multitask_strategy: str
    head: UUID | None
    last_number: int
    last_value_number: int
    assistant_config: str
    assistant_context: str
    ordinal: int
    temporary: bool
    created_at: datetime
    held_until: float = 0.0
    answered: dict[str, Any] = msgspec.field(default_factory=dict)
    behind: UUID | None = None
    crashed_mid_step: bool = False
    suspect: bool = False
    traceparent: str | None = None
    request_bytes: int = 0

    @property
    def started(self) -> bool:
        """Whether it was started at once."""
        return self.held_until > 0


class StepEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A completed step; ``usage`` is JSON or None."""

    step: int
    node: str
    checkpoint_id: UUID
    usage: str | None


class IntentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that may start once the step that requested it is committed; ``args`` is JSON."""

    call_id: str
    step: int
    tool: str
    tool_class: str
    key: str
    args: bytes


class EndEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run. ``error``, ``interrupts``, ``questions``, ``answered`` and ``usage`` are JSON or None.

    ``task`` is the id of the interrupted task; ``questions`` are the rows of ``interrupts``.
    """

    status: RunStatus
    reason: Reason
    thread_status: ThreadStatus
    error: str | None = None
    interrupts: str | None = None
    task: str | None = None
    questions: str | None = None
    answered: str | None = None
    usage: str | None = None


class JournalEntry(msgspec.Struct, kw_only=True):
    """All that a run writes at once: committed whole, or rejected if the run has another owner by now.

    ``dropped``: numbers of items that only amendments used which ``amended`` takes back.
    """

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    epoch: int
    owner: UUID
    head: UUID | None
    last_number: int
    last_value_number: int
    checkpoints: list[CheckpointEntry]
    items: list[tuple[int, bytes]]
    steps: list[StepEntry]
    intents: list[IntentEntry]
    events: list[tuple[int, bytes]]
    end: EndEntry | None = None
    amended: AmendedCheckpoint | None = None
    dropped: Sequence[int] = ()


_SHOWN_AS_CLAIMED = tuple(name for name in SHOWN if name in ClaimedRun.__struct_fields__)


def created(claimed: ClaimedRun) -> Run:
    """Return the run just accepted, as clients see it."""
    shown: dict[str, Any] = {
        **{name: getattr(claimed, name) for name in _SHOWN_AS_CLAIMED},
        "updated_at": claimed.created_at,
        "status": RunStatus.RUNNING if claimed.started else RunStatus.PENDING,
        "metadata": msgspec.Raw(claimed.metadata.encode()),
    }
    return Run(kwargs=kwargs_of(claimed.request), **shown)

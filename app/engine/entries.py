"""What the engine writes in groups: accepted runs, and the steps and ends of runs."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.domain.lifecycle import Reason, RunStatus, ThreadStatus
from app.engine.checkpoints.entry import CheckpointEntry
from app.engine.structs import Run, kwargs_of
from app.security.limits.structs import BudgetReservation

LARGE_REQUEST = 1024 * 1024
"""Bytes from which on a request is large: its run waits for its turn in memory (``app.engine.queue.memory_gate``)."""


class AcceptEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A run to accept. ``request`` and ``metadata`` are JSON; ``delay`` is in seconds (0: when its turn comes).

    Without an ``owner`` it waits in line for a process that runs it. ``parent_id`` is the run whose question it
    answers, ``answering`` the ids of the questions that it closes (None: it brings no answer). Where none of them is
    open, ``strict`` refuses it, unless it ``ends_pause`` of a thread that rests at one. ``reserved``: its part of the
    tenant's budget. ``traceparent``: where in a trace it was asked for. ``owned``: JSON that the thread's metadata must
    contain if it is there; ``stamped``: the metadata of the run are also those of a thread that is made for it.
    """

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    assistant_id: UUID
    request: bytes
    metadata: bytes
    strategy: str
    create_thread: bool
    temporary: bool
    owner: UUID | None
    delay: float
    parent_id: UUID | None = None
    answering: tuple[str, ...] | None = None
    ends_pause: bool = False
    strict: bool = False
    webhook: str | None = None
    agent: str = ""
    reserved: BudgetReservation | None = None
    traceparent: str | None = None
    owned: str | None = None
    stamped: bool = False


class ClaimedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that this process owns, and what it needs to execute it. JSON columns are JSON text.

    ``answered`` maps interrupt ids to answers that earlier runs of the thread got and could not finish with. The lease
    holds until ``held_until`` on this process's monotonic clock; without one the run waits for its turn, ``behind`` the
    thread's live one if there is one. ``crashed_mid_step``: its last owner stopped in the middle of a step.
    ``suspect``: that owner's process died, perhaps because of this run. ``request_bytes``: the size of its request,
    which is empty here and still to be read where it is large and the run has to wait for its turn in memory.
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
    strategy: str
    head: UUID | None
    last_number: int
    assistant_config: str
    assistant_context: str
    ordinal: int
    temporary: bool
    created_at: datetime
    held_until: float = 0.0
    answered: dict[str, Any] = {}
    behind: UUID | None = None
    crashed_mid_step: bool = False
    suspect: bool = False
    traceparent: str = ""
    request_bytes: int = 0

    @property
    def started(self) -> bool:
        """Whether its turn has come."""
        return self.held_until > 0


class StepEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A finished step; ``usage`` is JSON or None."""

    step: int
    node: str
    checkpoint_id: UUID
    usage: str | None


class IntentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that may start once the step that asked for it is committed; ``args`` is JSON."""

    call_id: str
    step: int
    tool: str
    tool_class: str
    key: str
    args: bytes


class EndEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a run. ``error``, ``interrupts``, ``questions``, ``answered`` and ``usage`` are JSON or None.

    ``task`` asks; ``questions`` are the rows of ``interrupts``.
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
    """Everything a run writes at once: accepted whole, or refused when the run has another owner by now."""

    tenant_id: UUID
    thread_id: UUID
    run_id: UUID
    epoch: int
    owner: UUID
    head: UUID | None
    last_number: int
    checkpoints: list[CheckpointEntry]
    items: list[tuple[int, bytes]]
    steps: list[StepEntry]
    intents: list[IntentEntry]
    events: list[tuple[int, bytes]]
    end: EndEntry | None = None


def created(claimed: ClaimedRun) -> Run:
    """The run just accepted, as clients see it."""
    return Run(
        run_id=claimed.run_id,
        thread_id=claimed.thread_id,
        assistant_id=claimed.assistant_id,
        created_at=claimed.created_at,
        updated_at=claimed.created_at,
        status=RunStatus.RUNNING if claimed.started else RunStatus.PENDING,
        metadata=msgspec.Raw(claimed.metadata.encode()),
        kwargs=kwargs_of(claimed.request),
        multitask_strategy=claimed.strategy,
    )

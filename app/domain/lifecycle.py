"""Statuses of runs and threads, and their reasons (docs/decisions/0001)."""

from enum import StrEnum


class RunStatus(StrEnum):
    """Status of a run, as on the wire."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class Reason(StrEnum):
    """Why a run has its status."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    CLAIMED = "claimed"
    RECOVERED = "recovered"
    HANDOVER = "handover"
    CUT = "cut"
    DONE = "done"
    INPUT_REQUIRED = "input_required"
    REVIEW = "review"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    POISON = "poison"
    DEADLINE = "deadline"


class ThreadStatus(StrEnum):
    """Status of a thread, as on the wire."""

    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    ERROR = "error"


LIVE = (RunStatus.PENDING, RunStatus.RUNNING)

FAILED = frozenset({RunStatus.ERROR, RunStatus.TIMEOUT})
TERMINAL = frozenset({RunStatus.SUCCESS, RunStatus.ERROR, RunStatus.TIMEOUT, RunStatus.INTERRUPTED})

TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.INTERRUPTED}),
    RunStatus.RUNNING: TERMINAL | {RunStatus.PENDING},
} | {status: frozenset() for status in TERMINAL}
"""Allowed transitions: status → the statuses that may follow. The trigger ``runs_guard`` enforces the same table."""

WAITING = frozenset({Reason.INPUT_REQUIRED, Reason.REVIEW, Reason.PAUSED})
"""Reasons of an interrupted run that a person can answer."""


def thread_status(run: RunStatus, reason: Reason) -> ThreadStatus:
    """Return the status of a thread whose last run ended with ``run`` for ``reason``."""
    if run in FAILED:
        return ThreadStatus.ERROR
    return ThreadStatus.INTERRUPTED if reason in WAITING else ThreadStatus.IDLE

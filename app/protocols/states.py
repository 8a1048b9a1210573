"""States of a run, as protocols distinguish them."""

from enum import StrEnum

from app.domain.lifecycle import RunStatus


class RunState(StrEnum):
    """State of a run. ``ASKING``: it waits for answers of people; ``CANCELLED``: it was stopped, or paused."""

    QUEUED = "queued"
    RUNNING = "running"
    ASKING = "asking"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


def state_of(status: str, asked: bool) -> RunState:
    """Return the state of a run with a ``status`` on LangGraph's wire; ``asked``: it has open questions."""
    match RunStatus(status):
        case RunStatus.PENDING:
            return RunState.QUEUED
        case RunStatus.RUNNING:
            return RunState.RUNNING
        case RunStatus.SUCCESS:
            return RunState.SUCCESS
        case RunStatus.ERROR:
            return RunState.ERROR
        case RunStatus.TIMEOUT:
            return RunState.TIMEOUT
        case RunStatus.INTERRUPTED:
            return RunState.ASKING if asked else RunState.CANCELLED

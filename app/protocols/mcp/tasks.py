"""Runs as tasks (extension ``io.modelcontextprotocol/tasks``, SEP-2663): ids, and the fields of a task.

A task's id names the thread and the first run of its call, so that any process finds it after a restart. It grants
nothing: the run is looked up with the caller's rights. A failed run is a result with ``isError``, as of a call that is
no task.
"""

from typing import Any
from uuid import UUID

from app.base.errors import NotFound
from app.domain.lifecycle import LIVE, RunStatus
from app.engine.structs import ContinuedRun

POLL_MS = 1000
"""Interval at which a client may ask for a task."""


def task_id_of(thread_id: UUID, run_id: UUID) -> str:
    """Return the id of the task that a call is."""
    return f"{thread_id.hex}.{run_id.hex}"


def task_of(task_id: str) -> tuple[UUID, UUID]:
    """Return thread and first run of a task. Raises ``NotFound``."""
    thread, _, run = task_id.partition(".")
    try:
        return UUID(thread), UUID(run)
    except ValueError as error:
        raise NotFound(f"No task {task_id[:100]!r}.") from error


def state_of_task(task_id: str, run: ContinuedRun, log_hours: int) -> dict[str, Any]:
    """Return the fields of a task whose newest run is ``run``; its result is kept ``log_hours`` after its end."""
    return {
        "taskId": task_id,
        "status": _status_of(run),
        "createdAt": run.begun_at.isoformat(),
        "lastUpdatedAt": run.updated_at.isoformat(),
        "ttlMs": int((run.updated_at - run.begun_at).total_seconds() + log_hours * 3600) * 1000,
        "pollIntervalMs": POLL_MS,
    }


def _status_of(run: ContinuedRun) -> str:
    if run.status in LIVE:
        return "working"
    if run.status == RunStatus.INTERRUPTED:
        return "input_required" if run.questions else "cancelled"
    return "completed"


def ended(task: dict[str, Any]) -> bool:
    """Whether a task's status will not change."""
    return task["status"] in {"completed", "failed", "cancelled"}

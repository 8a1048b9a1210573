"""Owned tasks: every background task has an owner that keeps it alive, hears of its failure and ends it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)

Value = TypeVar("Value")

AGAIN_SECONDS = 1.0
"""After this time a task that goes on is cancelled again."""


async def to_the_end(work: Coroutine[Any, Any, Value]) -> Value:
    """Run ``work`` to its end even when the caller is cancelled meanwhile; the cancellation follows it."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        raise


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run ``works`` at the same time until all have ended; when one fails, or the caller is cancelled, end them all."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


class Tasks:
    """A set of tasks with one owner.

    Unlike ``asyncio.TaskGroup`` a failing task does not end its siblings: the failure is logged with the task's name
    (callers that need the result keep the task that ``start`` returns). ``aclose`` cancels what still runs and waits.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run ``work`` as a task named ``name`` until it ends or the owner closes."""
        task = asyncio.create_task(work, name=f"{self.name}.{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def repeat(self, work: Callable[[], Awaitable[object]], seconds: float, *, name: str) -> None:
        """Call ``work`` again and again, ``seconds`` after it ended, until the owner closes.

        A call that fails is logged: what keeps a process true must not end with one failure.
        """
        self.start(self._repeat(work, seconds, name), name=name)

    async def _repeat(self, work: Callable[[], Awaitable[object]], seconds: float, name: str) -> None:
        while True:
            try:
                await work()
            except Exception:
                log.exception("task_failed", task=f"{self.name}.{name}")
            await asyncio.sleep(seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), exc_info=error)

    def __len__(self) -> int:
        return len(self._tasks)

    async def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for all tasks to end by themselves; whether they did."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(set(self._tasks), timeout=timeout)
        return not pending

    async def aclose(self) -> None:
        """Cancel the tasks that still run and wait until they have ended."""
        tasks = set(self._tasks)
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=AGAIN_SECONDS)  # a library may have swallowed the first

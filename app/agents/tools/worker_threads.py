"""Run sync tools in threads, so that they never block the event loop."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from app.base.errors import Unavailable

ThreadResult = tuple[Any, BaseException | None]
"""A call's return value, or its exception."""


class WorkerThreads:
    """Run each call in its own thread, at most ``max_threads`` concurrently; more calls wait on a semaphore.

    A thread cannot be stopped. If the caller stops waiting (timeout, cancelled run), its slot is released and the
    thread is abandoned; with ``max_abandoned`` such threads alive, calls are refused until one ends. The threads are
    daemons, so a hanging one does not block the process from exiting.
    """

    def __init__(self, max_threads: int, max_abandoned: int) -> None:
        self._turns = asyncio.Semaphore(max_threads)
        self._threads = threading.Semaphore(max_threads + max_abandoned)

    async def run(self, call: Callable[[], Any]) -> Any:
        """Run ``call`` with the caller's context variables; return or raise its result. Raises ``Unavailable``."""
        async with self._turns:
            if not self._threads.acquire(blocking=False):
                raise Unavailable("Too many sync tools that timed out are still running in their threads.")
            loop = asyncio.get_running_loop()
            ended: asyncio.Future[ThreadResult] = loop.create_future()
            see = contextvars.copy_context().run
            threading.Thread(target=self._work, args=(see, call, loop, ended), name="tool", daemon=True).start()
            value, error = await ended
        if error is not None:
            raise error
        return value

    def _work(
        self,
        see: Callable[[Callable[[], Any]], Any],
        call: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        ended: "asyncio.Future[ThreadResult]",
    ) -> None:
        try:
            outcome: ThreadResult = see(call), None
        except BaseException as error:  # noqa: BLE001  the edge of the thread: it is raised in the caller
            outcome = None, error
        self._threads.release()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_settle, ended, outcome)


def _settle(ended: "asyncio.Future[ThreadResult]", outcome: ThreadResult) -> None:
    if not ended.done():
        ended.set_result(outcome)

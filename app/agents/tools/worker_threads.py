"""Threads for sync tools, so that they never block the event loop."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from app.base.errors import Unavailable

ThreadResult = tuple[Any, BaseException | None]
"""What a call returned, or what it raised."""


class WorkerThreads:
    """Runs calls in threads of their own, ``max_threads`` at once; more wait for their turn.

    A thread cannot be stopped. When nobody waits for a call any longer (its time is up, the run was cancelled) its turn
    goes to the next one and its thread is left behind; ``max_abandoned`` of those may be alive, then calls are refused
    until one ends. The threads are daemons: one that hangs does not keep the process from ending.
    """

    def __init__(self, max_threads: int, max_abandoned: int) -> None:
        self._turns = asyncio.Semaphore(max_threads)
        self._threads = threading.Semaphore(max_threads + max_abandoned)

    async def run(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns or raises; it sees the caller's context variables. Raises ``Unavailable``."""
        async with self._turns:
            if not self._threads.acquire(blocking=False):
                raise Unavailable("Too many sync tools that ran into their timeouts still run in their threads.")
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
        except BaseException as error:  # noqa: BLE001  the edge of the thread: it is raised where the call was made
            outcome = None, error
        self._threads.release()
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile: nobody waits
            loop.call_soon_threadsafe(_settle, ended, outcome)


def _settle(ended: "asyncio.Future[ThreadResult]", outcome: ThreadResult) -> None:
    if not ended.done():
        ended.set_result(outcome)

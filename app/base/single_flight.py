"""Single flight: callers that want the same value at the same time share the work for it."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

from app.base.errors import Unavailable
from app.base.tasks import Tasks

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """The values in flight, each as a future that its work resolves.

    Wait for a future with ``asyncio.shield``: it belongs to all that wait for it, so the cancellation of one of them,
    the first included, must not reach it. Nothing is cached: a key leaves when its future is resolved.
    """

    def __init__(self) -> None:
        self._futures: dict[Key, asyncio.Future[Value]] = {}

    def get(self, key: Key) -> "asyncio.Future[Value] | None":
        """Return the future of ``key``, None if it is not in flight."""
        future = self._futures.get(key)
        return None if future is None or future.done() else future

    def begin(self, key: Key) -> "asyncio.Future[Value]":
        """Return a new future for ``key``, which later callers ``get``."""
        future: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._futures[key] = future
        future.add_done_callback(lambda ended: self._remove(key, ended))
        return future

    def fail_all(self, error: Exception) -> None:
        """Resolve everything in flight with ``error``."""
        for future in list(self._futures.values()):
            if not future.done():
                future.set_exception(error)

    async def run(self, key: Key, work: Callable[[], Awaitable[Value]], tasks: Tasks) -> Value:
        """Return the result of ``work``, which runs as one of ``tasks`` unless ``key`` is in flight already."""
        future = self.get(key)
        if future is None:
            future = self.begin(key)
            task = tasks.start(_resolve(future, work), name="flight")
            resolve_after(task, [future], Unavailable("This process shuts down. Try again."))
        return await asyncio.shield(future)

    def _remove(self, key: Key, future: "asyncio.Future[Value]") -> None:
        if self._futures.get(key) is future:
            del self._futures[key]
        if not future.cancelled():
            future.exception()  # retrieved: asyncio would log it if all that waited have gone


def resolve_after(task: asyncio.Task[Any], futures: Iterable["asyncio.Future[Any]"], error: Exception) -> None:
    """Once ``task`` has ended, resolve with ``error`` what it has left of ``futures``.

    Its own ``finally`` does not suffice: a task that is cancelled before it begins runs nothing.
    """

    def ended(_: asyncio.Task[Any]) -> None:
        for future in futures:
            if not future.done():
                future.set_exception(error)

    task.add_done_callback(ended)


async def _resolve(future: "asyncio.Future[Value]", work: Callable[[], Awaitable[Value]]) -> None:
    (result,) = await asyncio.gather(work(), return_exceptions=True)
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)

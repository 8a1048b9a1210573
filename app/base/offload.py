"""Work on large values, kept off the event loop.

A call into C that handles megabytes holds the interpreter for milliseconds; a dozen in a row stop the event loop for a
second. In a thread the same calls take the same time, but the loop has its turn between them (and during those that
release the interpreter, as compression and hashing do).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import msgspec

from app.base.errors import Limited, Unavailable

P = ParamSpec("P")
Value = TypeVar("Value")

BULK = 256 * 1024
"""Bytes from which on work is worth a thread: below, it takes less than a millisecond."""

NODE_BYTES = 32
"""What ``rough_size`` counts for each value beside its text, so that it ends soon: few take so many."""

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Bytes of JSON after which a list of states, threads or runs is cut; what is left, the next page has."""

body_bytes: ContextVar[int] = ContextVar("body_bytes", default=0)
"""Bytes of the body of the request that is being served; set where it is read."""


async def offload(size: int, work: Callable[P, Value], *args: P.args, **named: P.kwargs) -> Value:
    """Call ``work``: here when it handles fewer than ``BULK`` bytes, else in a thread.

    In a thread it must touch nothing that the loop or another task uses meanwhile.
    """
    if size < BULK:
        return work(*args, **named)
    return await asyncio.to_thread(work, *args, **named)


def rough_size(value: object) -> int:
    """About how many bytes ``value`` takes as JSON, for ``offload``. The walk ends where that is ``BULK``."""
    found = 0
    left = [value]
    while left and found < BULK:
        one = left.pop()
        found += NODE_BYTES
        if isinstance(one, str | bytes | msgspec.Raw):
            found += len(one)
        elif isinstance(one, dict | list | tuple):
            if len(one) * NODE_BYTES >= BULK:
                return BULK
            left += one
            if isinstance(one, dict):
                left += one.values()
        elif isinstance(one, msgspec.Struct):
            left += [getattr(one, name) for name in one.__struct_fields__]
    return found


class ByteBudget:
    """Bytes that may be held at once: ``total`` by all, ``each`` by one holder (a key). What is over waits its turn.

    A reservation larger than a limit counts as the limit, so that it passes alone.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._used = 0
        self._held: Counter[Hashable] = Counter()
        self._waiting: dict[asyncio.Future[None], tuple[Hashable, int]] = {}

    async def acquire(self, holder: Hashable, size: int, seconds: float) -> int:
        """Reserve ``size`` bytes within ``seconds``; what to release, which is no more than a limit.

        Raises ``Limited`` where the holder's own share stays full, ``Unavailable`` where that of all does.
        """
        size = min(size, self._total, self._each)
        if not self._waiting and self._fits(holder, size):
            self._take(holder, size)
            return size
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (holder, size)
        self._serve()
        granted = False
        try:
            async with asyncio.timeout(seconds):
                await turn
            granted = True
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(turn, None)
            if not granted and turn.done() and not turn.cancelled():  # its turn came in the same moment
                self.release(holder, size)
        if granted:
            return size
        if self._held[holder] + size > self._each:
            raise Limited("Large requests of this key are being read; send them one after the other.", 1)
        raise Unavailable("Too many large requests are being read; try again.", retry_after=1)

    async def wait_for_turn(self, holder: Hashable, size: int, given_up: "asyncio.Future[None]") -> int:
        """As ``acquire`` with no limit of time, until ``given_up`` is done: then 0."""
        size = min(size, self._total, self._each)
        if not self._waiting and self._fits(holder, size):
            self._take(holder, size)
            return size
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (holder, size)
        self._serve()
        try:
            await asyncio.wait({turn, given_up}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if turn.done():
                self.release(holder, size)
            raise
        finally:
            self._waiting.pop(turn, None)
        return size if turn.done() else 0

    def has_room(self, holder: Hashable, size: int) -> bool:
        """Whether ``acquire`` would not have to wait now."""
        return not self._waiting and self._fits(holder, min(size, self._total, self._each))

    def release(self, holder: Hashable, size: int) -> None:
        """Give back what ``acquire`` returned."""
        self._used -= size
        self._held[holder] -= size
        if not self._held[holder]:
            del self._held[holder]
        self._serve()

    def _fits(self, holder: Hashable, size: int) -> bool:
        return self._used + size <= self._total and self._held[holder] + size <= self._each

    def _take(self, holder: Hashable, size: int) -> None:
        self._used += size
        self._held[holder] += size

    def _serve(self) -> None:
        """Let those go whose turn it is: in order, but past those whose own share is full."""
        for turn, (holder, size) in list(self._waiting.items()):
            if self._fits(holder, size):
                self._take(holder, size)
                del self._waiting[turn]
                turn.set_result(None)
            elif self._held[holder] + size <= self._each:
                return

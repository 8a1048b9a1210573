"""Keep work on large values off the event loop.

A C call that handles megabytes holds the interpreter for milliseconds; a dozen in a row block the event loop for a
second. In a thread the same calls take as long, but the loop runs between them (and during those that release the
interpreter, as compression and hashing do).
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
"""Bytes from which work is worth a thread; less takes under a millisecond."""

NODE_BYTES = 32
"""Overhead that ``rough_size`` counts per value in addition to its text, which bounds the walk."""

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Bytes of JSON at which a list of states, threads or runs is cut; the next page has the rest."""

body_bytes: ContextVar[int] = ContextVar("body_bytes", default=0)
"""Size of the body of the current request; set where the body is read."""


async def offload(size: int, work: Callable[P, Value], *args: P.args, **named: P.kwargs) -> Value:
    """Call ``work`` inline if it handles fewer than ``BULK`` bytes, else in a thread.

    In a thread it must not touch anything that the loop or another task uses at the same time.
    """
    if size < BULK:
        return work(*args, **named)
    return await asyncio.to_thread(work, *args, **named)


def rough_size(value: object) -> int:
    """Estimate the JSON size of ``value`` in bytes, for ``offload``. Stops at ``BULK``."""
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
    """Semaphore over bytes: ``total`` for all holders, ``each`` for one (a key). Acquirers beyond it wait.

    A reservation larger than a limit counts as the limit, so that it is granted alone.
    """

    def __init__(self, total: int, each: int, of: str = "large requests are read") -> None:
        """``of`` completes "Too many …" in the errors."""
        self._total = total
        self._each = each
        self._of = of
        self._used = 0
        self._held: Counter[Hashable] = Counter()
        self._waiting: dict[asyncio.Future[None], tuple[Hashable, int]] = {}

    async def acquire(self, holder: Hashable, size: int, seconds: float) -> int:
        """Reserve ``size`` bytes within ``seconds``; return the number to release, which is at most a limit.

        Raises ``Limited`` if the holder's own share stays full, ``Unavailable`` if the total does.
        """
        size = min(size, self._total, self._each)
        turn, granted = self._enqueue(holder, size), False
        try:
            async with asyncio.timeout(seconds):
                await turn
            granted = True
        except TimeoutError:
            pass
        finally:
            self._leave(turn, holder, size, granted=granted)
        if granted:
            return size
        if self._held[holder] + size > self._each:
            raise Limited(f"Too many {self._of} for this key: send them one after the other.", 1)
        raise Unavailable(f"Too many {self._of}: try again.", retry_after=1)

    async def acquire_until(self, holder: Hashable, size: int, given_up: "asyncio.Future[None]") -> int:
        """Reserve like ``acquire`` without a timeout; return 0 once ``given_up`` is done."""
        size = min(size, self._total, self._each)
        turn, granted = self._enqueue(holder, size), False
        try:
            await asyncio.wait({turn, given_up}, return_when=asyncio.FIRST_COMPLETED)
            granted = turn.done()
        finally:
            self._leave(turn, holder, size, granted=granted)
        return size if granted else 0

    def has_room(self, holder: Hashable, size: int) -> bool:
        """Whether ``acquire`` would succeed without waiting."""
        return not self._waiting and self._fits(holder, min(size, self._total, self._each))

    def take(self, holder: Hashable, size: int) -> bool:
        """Reserve ``size`` bytes if there is room for them now; return whether there is."""
        if size > min(self._total, self._each) or not self.has_room(holder, size):
            return False
        self._take(holder, size)
        return True

    def release(self, holder: Hashable, size: int) -> None:
        """Release a reservation that ``acquire`` returned."""
        self._used -= size
        self._held[holder] -= size
        if not self._held[holder]:
            del self._held[holder]
        self._serve()

    def _enqueue(self, holder: Hashable, size: int) -> "asyncio.Future[None]":
        """Queue for ``size`` bytes; the future is done once they are reserved, which may be at once."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (holder, size)
        self._serve()
        return turn

    def _leave(self, turn: "asyncio.Future[None]", holder: Hashable, size: int, *, granted: bool) -> None:
        """Leave the queue. A reservation made at the moment of giving up is released; others may have room now."""
        self._waiting.pop(turn, None)
        if not granted and turn.done() and not turn.cancelled():
            self.release(holder, size)
        else:
            self._serve()

    def _fits(self, holder: Hashable, size: int) -> bool:
        return self._used + size <= self._total and self._held[holder] + size <= self._each

    def _take(self, holder: Hashable, size: int) -> None:
        self._used += size
        self._held[holder] += size

    def _serve(self) -> None:
        """Grant waiters in order, skipping holders whose own share is full."""
        for turn, (holder, size) in list(self._waiting.items()):
            if turn.cancelled():  # it leaves the queue once its task runs
                continue
            if self._fits(holder, size):
                self._take(holder, size)
                del self._waiting[turn]
                turn.set_result(None)
            elif self._held[holder] + size <= self._each:
                return

"""Backpressure: bound the bytes buffered for slow stream subscribers, per key and per process.

A client that stops reading keeps the chunk it is about to be sent in memory. A large chunk, whose state is read from
the database for one client, is therefore made only once there is room for it, and few are made at once; a client that
does not read is disconnected after seconds (``app.infra.http.open_streams``), which frees its room. The size is known
once the state is read: a small chunk never waits, a large one is dropped and read again when it is admitted.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Self

MAX_BYTES = 96 * 1024 * 1024
MAX_BYTES_EACH = 32 * 1024 * 1024
"""Bytes at which no further chunk is made: in the process, and for one holder (a key)."""

MAX_LOADS = 4
"""Chunks made at the same time, whatever their size; a state takes several times its JSON while it is read."""

SMALL = 64 * 1024
"""Chunks below this are not counted, as they fit into socket buffers."""


class Result(NamedTuple):
    """Response of ``wait`` and ``join``: JSON in chunks. Call ``release`` once they are sent or dropped."""

    pieces: Sequence[bytes]
    release: Callable[[], None] = lambda: None


class SendBudget:
    """Semaphore over the large chunks of this process. ``bytes``: in memory now; ``peak``: the maximum so far."""

    def __init__(
        self, *, max_bytes: int = MAX_BYTES, max_bytes_each: int = MAX_BYTES_EACH, max_loads: int = MAX_LOADS
    ) -> None:
        self.bytes = 0
        self.peak = 0
        self.waiting = 0
        self._max_bytes = max_bytes
        self._max_bytes_each = max_bytes_each
        self._held: Counter[Hashable] = Counter()
        self._loads = asyncio.Semaphore(max_loads)
        self._freed = asyncio.Event()

    def room(self, holder: Hashable) -> "SendReservation":
        """Reserve the making and sending of one chunk for ``holder``, as an async context manager."""
        return SendReservation(self, holder)

    def has_room(self, holder: Hashable) -> bool:
        """Whether another large chunk may be in memory for ``holder``."""
        return self.bytes < self._max_bytes and self._held[holder] < self._max_bytes_each

    async def turn(self) -> None:
        """Wait for a slot to make a chunk of any size."""
        await self._loads.acquire()

    async def admit(self, holder: Hashable) -> None:
        """Wait for room, and for a slot to make a large chunk."""
        self.waiting += 1
        try:
            while True:
                freed = self._freed
                await self._loads.acquire()
                if self.has_room(holder):
                    return
                self._loads.release()
                await freed.wait()
        finally:
            self.waiting -= 1

    def take(self, holder: Hashable, pieces: Sequence[bytes]) -> Result | None:
        """Count a result that is in memory already until it is released; return None if there is no room for it."""
        size = sum(map(len, pieces))
        if size <= SMALL:
            return Result(pieces)
        if not self.has_room(holder):
            return None
        self._count(holder, size)
        return Result(pieces, functools.partial(self.sent, holder, size))

    def made(self, holder: Hashable, size: int) -> None:
        """Free the slot and count a chunk of ``size`` bytes."""
        self._loads.release()
        self._count(holder, size)

    def _count(self, holder: Hashable, size: int) -> None:
        if size:
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            self._held[holder] += size

    def sent(self, holder: Hashable, size: int) -> None:
        """Stop counting a chunk that has left memory."""
        self.bytes -= size
        self._held[holder] -= size
        if not self._held[holder]:
            del self._held[holder]
        self._freed.set()
        self._freed = asyncio.Event()


class SendReservation:
    """Reservation of one chunk, as an async context manager."""

    __slots__ = ("_budget", "_holder", "_making", "_size")

    def __init__(self, budget: SendBudget, holder: Hashable) -> None:
        self._budget = budget
        self._holder = holder
        self._making = False
        self._size = 0

    async def __aenter__(self) -> Self:
        await self._budget.turn()
        self._making = True
        return self

    def fits(self, size: int) -> bool:
        """Whether a chunk of ``size`` bytes may be made now; if not, drop its state and call ``wait``."""
        if size <= SMALL or self._budget.has_room(self._holder):
            return True
        self._making = False
        self._budget.made(self._holder, 0)
        return False

    async def wait(self) -> None:
        """Wait for room for a large chunk."""
        await self._budget.admit(self._holder)
        self._making = True

    def made(self, size: int) -> None:
        """Count the chunk of ``size`` bytes until the block ends."""
        self._making = False
        self._size = size if size > SMALL else 0
        self._budget.made(self._holder, self._size)

    def close(self) -> None:
        """Release the reservation: the chunk was sent, or not made."""
        if self._making:
            self._budget.made(self._holder, 0)
        if self._size:
            self._budget.sent(self._holder, self._size)
        self._making, self._size = False, 0

    async def __aexit__(self, *_: object) -> None:
        self.close()

"""How many bytes of large pieces of streams are in memory for readers at once: of one key, and in one process.

A reader that stops reading keeps what it is about to be sent. A piece whose state is read from the database for one
reader alone is therefore made only once there is room for it, and few are made at the same time; a reader that does not
take its piece is given up after seconds (``app.infra.http.open_streams``), and the next one has its turn. How large a
piece is shows when its state is read: a small one never waits for room, a large one is dropped and read again in its
turn.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Self

MAX_BYTES = 96 * 1024 * 1024
MAX_BYTES_EACH = 32 * 1024 * 1024
"""Bytes from which on no further piece is made: in the process, and for one holder (a key)."""

MAX_LOADS = 4
"""Pieces that are made at the same time, whatever their size; a state takes several times its JSON while it is read."""

SMALL = 64 * 1024
"""A piece below this is not counted: it fits into the buffers of a connection."""


class Result(NamedTuple):
    """What ``wait`` and ``join`` answer: JSON in pieces. Call ``release`` once they are sent, or nobody reads them."""

    pieces: Sequence[bytes]
    release: Callable[[], None] = lambda: None


class SendBudget:
    """The large pieces of this process. ``bytes`` are in memory now, ``peak`` were at most."""

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
        """A block in which one piece for ``holder`` is made and sent. Entering waits for the turn to make one."""
        return SendReservation(self, holder)

    def has_room(self, holder: Hashable) -> bool:
        """Whether another large piece may be in memory for ``holder``."""
        return self.bytes < self._max_bytes and self._held[holder] < self._max_bytes_each

    async def turn(self) -> None:
        """Wait for the turn to make a piece of any size."""
        await self._loads.acquire()

    async def admit(self, holder: Hashable) -> None:
        """Wait for room, and for the turn to make a large piece."""
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
        """A result that is in memory already, counted until it is released; None where there is no room for it."""
        size = sum(map(len, pieces))
        if size <= SMALL:
            return Result(pieces)
        if not self.has_room(holder):
            return None
        self._count(holder, size)
        return Result(pieces, functools.partial(self.sent, holder, size))

    def made(self, holder: Hashable, size: int) -> None:
        """A piece of ``size`` bytes is made: the next may be."""
        self._loads.release()
        self._count(holder, size)

    def _count(self, holder: Hashable, size: int) -> None:
        if size:
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            self._held[holder] += size

    def sent(self, holder: Hashable, size: int) -> None:
        """A piece is out of memory."""
        self.bytes -= size
        self._held[holder] -= size
        if not self._held[holder]:
            del self._held[holder]
        self._freed.set()
        self._freed = asyncio.Event()


class SendReservation:
    """Room for one piece, a block long."""

    __slots__ = ("_holder", "_making", "_outflow", "_size")

    def __init__(self, outflow: SendBudget, holder: Hashable) -> None:
        self._outflow = outflow
        self._holder = holder
        self._making = False
        self._size = 0

    async def __aenter__(self) -> Self:
        await self._outflow.turn()
        self._making = True
        return self

    def fits(self, size: int) -> bool:
        """Whether a piece of ``size`` bytes may be made now; if not, let go of what it is made of and call ``wait``."""
        if size <= SMALL or self._outflow.has_room(self._holder):
            return True
        self._making = False
        self._outflow.made(self._holder, 0)
        return False

    async def wait(self) -> None:
        """Wait until there is room for a large piece."""
        await self._outflow.admit(self._holder)
        self._making = True

    def made(self, size: int) -> None:
        """The piece is made, of ``size`` bytes, which are in memory until the block ends."""
        self._making = False
        self._size = size if size > SMALL else 0
        self._outflow.made(self._holder, self._size)

    def close(self) -> None:
        """The piece is sent, or not made."""
        if self._making:
            self._outflow.made(self._holder, 0)
        if self._size:
            self._outflow.sent(self._holder, self._size)
        self._making, self._size = False, 0

    async def __aexit__(self, *_: object) -> None:
        self.close()

"""A semaphore shared fairly between parties, such as tenants."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Hashable

Waiter = asyncio.Future[None]


class FairSemaphore:
    """``total`` slots. One party alone may hold all but ``spare``; several active parties share those equally.

    Waiters are served round-robin by party, so a party without a slot gets one soon whatever the others hold.
    """

    def __init__(self, total: int, spare: int) -> None:
        self._free = total
        self._shared = max(1, total - spare)
        self._held: dict[Hashable, int] = {}
        self._waiting: dict[Hashable, deque[Waiter]] = {}

    @contextlib.asynccontextmanager
    async def slot(self, party: Hashable) -> AsyncIterator[None]:
        """Hold a slot for ``party`` within the block."""
        if self._free and party not in self._waiting and self._held.get(party, 0) < self._share(party):
            self._take(party)
        else:
            await self._wait(party)
        try:
            yield
        finally:
            self._release(party)

    def _share(self, party: Hashable) -> int:
        """Return how many slots ``party`` may hold given the parties that hold or wait for some."""
        active = len(self._held.keys() | self._waiting.keys() | {party})
        return max(1, self._shared // active)

    def _take(self, party: Hashable) -> None:
        self._free -= 1
        self._held[party] = self._held.get(party, 0) + 1

    def _release(self, party: Hashable) -> None:
        self._free += 1
        self._held[party] -= 1
        if not self._held[party]:
            del self._held[party]
        self._serve()

    async def _wait(self, party: Hashable) -> None:
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(party, deque()).append(waiter)
        granted = False
        try:
            await self._until(waiter)
            granted = True
        finally:
            if not granted and waiter.done() and not waiter.cancelled():
                self._release(party)  # granted in the moment the wait was cancelled
            elif not granted:
                waiter.cancel()
                self._leave(party, waiter)

    async def _until(self, waiter: Waiter) -> None:
        """Wait for ``waiter``, which is resolved when a slot is taken for it."""
        await waiter

    def _leave(self, party: Hashable, waiter: Waiter) -> None:
        queue = self._waiting.get(party)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[party]
        self._serve()

    def _serve(self) -> None:
        """Grant free slots to waiters, one per party in turn."""
        served = True
        while self._free and served:
            served = False
            for party in list(self._waiting):
                if not self._free or self._held.get(party, 0) >= self._share(party):
                    continue
                queue = self._waiting.pop(party)
                waiter = queue.popleft()
                if queue:
                    self._waiting[party] = queue  # move the party to the end
                if not waiter.done():
                    self._take(party)
                    waiter.set_result(None)
                served = True

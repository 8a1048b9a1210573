"""Admission of large runs: bounds the bytes of large requests in execution, per tenant and per process.

A run holds several copies of its request while it is decoded, merged and written. A run that waits holds none: its
request is read from the database once it is admitted. Small runs never wait.
"""

import asyncio

import msgspec

from app.base.offload import ByteBudget
from app.engine.entries import LARGE_REQUEST, ClaimedRun
from app.engine.queue.owned_runs import OwnedRun

MAX_BYTES = 32 * 1024 * 1024
MAX_BYTES_EACH = 16 * 1024 * 1024
"""Bytes of large requests in execution: in the process, and of one tenant."""


class LargeRuns:
    """Semaphore over the request bytes of large runs."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_bytes_each: int = MAX_BYTES_EACH) -> None:
        self._budget = ByteBudget(max_bytes, max_bytes_each)

    def without_request(self, claimed: ClaimedRun) -> ClaimedRun:
        """Return the run as it may be kept in memory: without a large request if it has to wait."""
        size = claimed.request_bytes
        if size < LARGE_REQUEST or self._budget.has_room(claimed.tenant_id, size):
            return claimed
        return msgspec.structs.replace(claimed, request=b"")

    async def acquire(self, live: OwnedRun) -> int:
        """Wait for admission of a run; return the bytes to release when it has ended. Cancelled runs do not wait."""
        size = live.claimed.request_bytes
        if size < LARGE_REQUEST:
            return 0
        live.waiting = asyncio.get_running_loop().create_future()
        if live.action:
            live.waiting.set_result(None)
        try:
            return await self._budget.acquire_until(live.claimed.tenant_id, size, live.waiting)
        finally:
            live.waiting = None

    def release(self, claimed: ClaimedRun, size: int) -> None:
        """Release what ``acquire`` returned."""
        if size:
            self._budget.release(claimed.tenant_id, size)

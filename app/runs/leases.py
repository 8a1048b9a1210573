"""Keeps the leases of this process's live runs, and stops runs before their lease can end elsewhere.

A process that hangs loses its leases: nothing renews them, and the first thing that happens when it goes on is that its
runs are stopped (``Lease.check`` stands before every write and every call of a tool).
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from uuid import UUID

from app.base.tasks import Tasks
from app.runs.claims import Claims
from app.runs.live import Live

MARGIN = 0.1
"""The part of a lease that is left when its run is stopped for want of a heartbeat."""

STOOD_STILL = 0.2
"""The part of a lease by which the fence is late when not the database, but this process stood still."""

BEAT_SECONDS = 10.0
"""How long one heartbeat may take, however long the lease is."""


class Leases:
    """The heartbeat of one process."""

    def __init__(self, claims: Claims, live: Mapping[UUID, Live], lost: Callable[[], None]) -> None:
        self._claims = claims
        self._live = live
        self._lost = lost
        self._tasks = Tasks("leases")
        self._away = False
        self._fenced_at = 0.0

    def start(self) -> None:
        """Begin to renew."""
        seconds = self._claims.lease_seconds
        self._fenced_at = time.monotonic()
        with contextlib.suppress(ValueError):  # not in the main thread: nobody stops a thread
            # Run before any callback of the loop that became ready during the pause: a task that is cancelled now does
            # not take one more step, so what it was about to send is not sent.
            signal.signal(signal.SIGCONT, lambda *_: self._fence_all())
        self._tasks.repeat(self._renew, seconds / 3, name="renew", essential=True, back_off=seconds / 30)
        self._tasks.repeat(self._fence, seconds / 60, name="fence", essential=True, back_off=seconds / 60)

    async def aclose(self) -> None:
        """Renew no more."""
        await self._tasks.aclose()

    async def _renew(self) -> None:
        """One heartbeat; after whatever error at once again, until the fence falls."""
        if not self._live:
            return
        seconds = self._claims.lease_seconds
        held = dict(self._live)
        until = time.monotonic() + seconds
        try:
            async with asyncio.timeout(min(seconds / 3, BEAT_SECONDS)):
                ours = await self._claims.extend(list(held))
        except BaseException as error:
            self._away = True
            if isinstance(error, TimeoutError):  # perhaps a server that is gone: the next one uses a new connection
                self._claims.doubt()
            raise
        self._away = False
        for run_id, live in held.items():
            if run_id not in ours:
                self._lose(run_id, live)
                continue
            live.lease.renew(until)
            if (action := ours[run_id]) is not None:
                live.cancel(action)

    async def _fence(self) -> None:
        self._fence_all()

    def _fence_all(self) -> None:
        now, least = time.monotonic(), self._claims.lease_seconds * MARGIN
        if now - self._fenced_at > self._claims.lease_seconds * STOOD_STILL:
            self._away = False  # perhaps a run blocked the event loop, and the heartbeat failed because of that
        self._fenced_at = now
        for run_id, live in list(self._live.items()):
            if live.lease.seconds < least:
                self._lose(run_id, live)

    def _lose(self, run_id: UUID, live: Live) -> None:
        if self._live.get(run_id) is live and not live.finishing and not live.lost:
            live.lose(away=self._away)
            self._lost()

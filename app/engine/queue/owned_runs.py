"""Keeps the leases of this process's live runs, and stops runs before their lease can end elsewhere.

A process that hangs loses its leases: nothing renews them, and the first thing that happens when it goes on is that its
runs are stopped (``Lease.check`` stands before every write and every call of a tool).

A run while this process owns it, and the lease under which it does.

A cancel whose run's owner does not react: dead, stuck, or with a tool that does not listen.

Whoever recorded the cancel looks after the run a moment later and ends it in its owner's place. That is safe whatever
the owner still does: it writes under an epoch that has ended.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from uuid import UUID

import msgspec
import structlog

from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.engine.entries import ClaimedRun
from app.engine.execution.execution import Execution
from app.engine.execution.lease import Lease
from app.engine.execution.run_trace import NullTrace
from app.engine.queue.cancels import GRACE_SECONDS, RunCanceller
from app.engine.queue.claims import RunQueue
from app.engine.streams.feed import Feed


class OwnedRun:
    """``done`` is set once the run has ended or was given up; ``left``: its code goes on without it.

    ``waiting``: it has not had its turn yet (``app.engine.queue.memory_gate``).
    """

    def __init__(self, claimed: ClaimedRun, feed: Feed) -> None:
        self.claimed = claimed
        self.feed = feed
        self.lease = Lease(claimed.held_until)
        self.execution: Execution | None = None
        self.task: asyncio.Task[None] | None = None
        self.done: asyncio.Future[list[bytes] | None] = asyncio.get_running_loop().create_future()
        self.awaited = False
        self.action = ""
        self.waiting: asyncio.Future[None] | None = None
        self.asked = 0.0
        self.finishing = False
        self.lost = self.away = False
        self.cut = False
        self.left = False
        self.settled = False
        self.trace = NullTrace()
        self.started = time.monotonic()

    def cancel(self, action: str) -> None:
        """Stop at once, on a client's word (``app.engine.queue.cancels``); without effect on a run that is ending
        anyway.
        """
        self.action = self.action or action
        self.asked = self.asked or time.monotonic()
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)
        if self.task is not None and self.execution is not None and not self.finishing:
            self.task.cancel()  # one that has not begun looks at ``action`` first

    def lose(self, *, away: bool = False) -> None:
        """Stop at once, because another process may own the run by now; ``away``: for want of the database alone."""
        if self.task is not None and not self.finishing:
            self.lost, self.away = True, away
            self.task.cancel()

    def read(self) -> ClaimedRun:
        """Its request was read: from now on the run is known without the request's bytes, which may be many."""
        self.claimed = msgspec.structs.replace(self.claimed, request=b"")
        return self.claimed

    @property
    def stopped(self) -> bool:
        """Whether the engine has cancelled the run's task; else a ``CancelledError`` is one that its code raised."""
        return bool(self.action) or self.lost or self.cut

    def interrupt_step(self) -> None:
        """Stop at once, in the middle of a step: the process ends, and another one goes on with the run."""
        self.cut = True
        if self.task is not None:
            self.task.cancel()

    def leave(self) -> None:
        """Go on without the code of the run, which does not stop: it may neither write nor say anything from now on."""
        self.left = self.finishing = True
        if self.execution is not None:
            self.execution.seal()

    def fence(self) -> None:
        """The run was ended in our place: nothing of it starts or is written any more; its readers ask the database."""
        self.lost = True
        self.lease.end()
        self.feed.close(finished=False)
        if not self.done.done():
            self.done.set_result(None)


MARGIN = 0.1
"""The part of a lease that is left when its run is stopped for want of a heartbeat."""

STOOD_STILL = 0.2
"""The part of a lease by which the fence is late when not the database, but this process stood still."""

BEAT_SECONDS = 10.0
"""How long one heartbeat may take, however long the lease is."""


class LeaseRenewer:
    """The heartbeat of one process."""

    def __init__(self, claims: RunQueue, live: Mapping[UUID, OwnedRun], lost: Callable[[], None]) -> None:
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
        """One heartbeat; after whatever error at once again, until the fence falls.

        An answer that comes too late is no failure of this task: where the machine is busy, a new process would do no
        better. If it lasts, the task makes no progress, and is stalled.
        """
        while self._live and not await self._heartbeat():  # noqa: ASYNC110  nothing tells when the database is quicker
            await asyncio.sleep(self._claims.lease_seconds / 30)

    async def _heartbeat(self) -> bool:
        """Renew every lease; whether the database has answered in time."""
        seconds = self._claims.lease_seconds
        held = dict(self._live)
        until = time.monotonic() + seconds
        try:
            async with asyncio.timeout(min(seconds / 3, BEAT_SECONDS)):
                ours = await self._claims.extend(list(held))
        except TimeoutError:
            self._away = True
            self._claims.suspect_connections()  # perhaps a server that is gone: the next one uses a new connection
            return False
        except BaseException:
            self._away = True
            raise
        self._away = False
        for run_id, live in held.items():
            if run_id not in ours:
                self._lose(run_id, live)
                continue
            live.lease.renew(until)
            if (action := ours[run_id]) is not None:
                live.cancel(action)
        return True

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

    def _lose(self, run_id: UUID, live: OwnedRun) -> None:
        if self._live.get(run_id) is live and not live.finishing and not live.lost:
            live.lose(away=self._away)
            self._lost()


log = structlog.get_logger(__name__)

TOGETHER_SECONDS = 0.25
"""Cancels within this time are looked after together."""


class CancelEnforcer:
    """Looks after cancels. ``live`` are the runs of this process; ``ended`` is called when threads have become free.

    ``leave`` is called with a run whose code does not react, once the run has ended without it.
    """

    def __init__(
        self,
        cancels: RunCanceller,
        live: Mapping[UUID, OwnedRun],
        ended: Callable[[], None],
        leave: Callable[[OwnedRun], None] = OwnedRun.leave,
    ) -> None:
        self._cancels = cancels
        self._live = live
        self._ended = ended
        self._leave = leave
        self._tasks = Tasks("enforcing")
        self._last = -1

    def soon(self) -> None:
        """A cancel was recorded."""
        now = asyncio.get_running_loop().time()
        period = int(now / TOGETHER_SECONDS)
        if period != self._last:
            self._last = period
            wait = (period + 1) * TOGETHER_SECONDS - now + GRACE_SECONDS
            self._tasks.start(self._look(wait), name="look")

    async def aclose(self) -> None:
        """Look no more; the reapers of other processes do."""
        await self._tasks.aclose()

    async def _look(self, wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            ended = await self._cancels.finish_expired()
        except Unavailable as error:
            log.warning("enforcing_failed", error=str(error))
            return
        # what was asked for so long ago is over by now, whoever ended it
        for live in list(self._live.values()):
            if live.asked and not live.finishing and time.monotonic() - live.asked >= GRACE_SECONDS:
                live.fence()
                self._leave(live)
        if ended:
            self._ended()

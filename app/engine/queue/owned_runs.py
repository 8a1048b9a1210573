"""Runs owned by this process: their leases, and the enforcement of cancels.

A process that hangs loses its leases, as nothing renews them; when it resumes, its runs are stopped first
(``Lease.check`` precedes every write and every tool call).
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec
import structlog

from app.base.containment import kind_of, location_of
from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.engine.entries import ClaimedRun
from app.engine.execution.execution import AgentRunContext, Execution
from app.engine.execution.lease import Lease
from app.engine.execution.run_trace import NullTrace
from app.engine.queue.cancels.canceller import RunCanceller
from app.engine.queue.cancels.sql import GRACE_SECONDS
from app.engine.queue.claims import RunQueue
from app.engine.streams.feed import Feed

log = structlog.get_logger(__name__)

MARGIN = 0.1
"""Fraction of a lease left when its run is stopped because heartbeats failed."""

STOOD_STILL = 0.2
"""Fraction of a lease by which the fence is late if this process was paused, rather than the database."""

BEAT_SECONDS = 10.0
"""Timeout of one heartbeat, however long the lease is."""

TOGETHER_SECONDS = 0.25
"""Cancels within this time are enforced together."""


class OwnedRun:
    """A run owned by this process, with its lease.

    ``done`` is resolved once the run has ended or was given up. ``abandoned``: it continues without its code, which
    does not stop. ``waiting``: resolved to end its wait for memory (``app.engine.queue.memory_gate``).
    """

    def __init__(self, claimed: ClaimedRun, feed: Feed) -> None:
        self.claimed = claimed
        self.feed = feed
        self.lease = Lease(claimed.held_until)
        self.execution: Execution | None = None
        self.context: AgentRunContext | None = None
        self.task: asyncio.Task[None] | None = None
        self.done: asyncio.Future[list[bytes] | None] = asyncio.get_running_loop().create_future()
        self.awaited = False
        self.action = ""
        self.waiting: asyncio.Future[None] | None = None
        self.cancelled_at = 0.0
        self.finishing = False
        self.lost = self.away = False
        self.cut = False
        self.abandoned = False
        self.settled = False
        self.trace = NullTrace()
        self.started = time.monotonic()

    def cancel(self, action: str) -> None:
        """Stop at once, as a client requested (``app.engine.queue.cancels``); a no-op on a run that is ending."""
        self.action = self.action or action
        self.cancelled_at = self.cancelled_at or time.monotonic()
        if self.context is not None:
            self.context.mark_cancelled()
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)
        if self.task is not None and self.execution is not None and not self.finishing:
            self.task.cancel()  # a run that has not started checks ``action`` first

    def lose(self, *, away: bool = False) -> None:
        """Stop at once, as another process may own the run by now; ``away``: the database is unavailable."""
        if self.task is not None and not self.finishing:
            self.lost, self.away = True, away
            self.task.cancel()

    def release_request(self) -> ClaimedRun:
        """Release the bytes of its request, which was decoded and may be large; return the run without them."""
        self.claimed = msgspec.structs.replace(self.claimed, request=b"")
        return self.claimed

    @property
    def stopped(self) -> bool:
        """Whether the engine has cancelled the run's task; if not, its own code raised the ``CancelledError``."""
        return bool(self.action) or self.lost or self.cut

    def interrupt_step(self) -> None:
        """Stop at once, in the middle of a step: the process ends, and another one resumes the run."""
        self.cut = True
        if self.task is not None:
            self.task.cancel()

    def abandon(self) -> None:
        """Continue without the code of the run, which does not stop: it can no longer write or emit anything."""
        self.abandoned = self.finishing = True
        if self.context is not None:
            self.context.seal()

    def fence(self) -> None:
        """The run was ended by another process: stop its writes and tool calls, and close its feed."""
        self.lost = True
        self.lease.end()
        self.feed.close(finished=False)
        if not self.done.done():
            self.done.set_result(None)


def log_run(live: OwnedRun, status: str, seconds: float) -> None:
    """Log a run that has ended, or left this process."""
    claimed, execution = live.claimed, live.execution
    spent: dict[str, float] = {}
    if execution is not None and execution.usage.total_tokens:
        spent["tokens"] = execution.usage.total_tokens
    if execution is not None and execution.account.cost:
        spent["dollars"] = round(execution.account.cost, 6)
    log.info(
        "run_ended",
        agent=claimed.agent,
        status=status,
        seconds=round(seconds, 3),
        **spent,
        run_id=str(claimed.run_id),
        thread_id=str(claimed.thread_id),
    )


def log_failed(live: OwnedRun, error: BaseException) -> None:
    """Log what ended a run, without its text: it may repeat a prompt or a secret, which only the client may see."""
    log.info("run_failed", **_failure(live, error))


def log_unended(live: OwnedRun, error: BaseException) -> None:
    """Log that the end of a run could not be written."""
    log.error("run_not_ended", **_failure(live, error))


def _failure(live: OwnedRun, error: BaseException) -> dict[str, Any]:
    run_id, agent = str(live.claimed.run_id), live.claimed.agent
    return {"run_id": run_id, "agent": agent, "error": kind_of(error), "at": location_of(error), "raised": error}


class LeaseRenewer:
    """Renews the leases of one process, and fences runs whose lease is about to expire."""

    def __init__(self, claims: RunQueue, live: Mapping[UUID, OwnedRun], lost: Callable[[], None]) -> None:
        self._claims = claims
        self._live = live
        self._lost = lost
        self._tasks = Tasks("leases")
        self._away = False
        self._fenced_at = 0.0

    def start(self) -> None:
        """Start renewing."""
        seconds = self._claims.lease_seconds
        self._fenced_at = time.monotonic()
        with contextlib.suppress(ValueError):  # not in the main thread, which alone receives signals
            # Runs before any callback that became ready during the pause, so that a task cancelled now does not send
            # what it was about to send.
            signal.signal(signal.SIGCONT, lambda *_: self._fence_all())
        self._tasks.repeat(self._renew, seconds / 3, name="renew", essential=True, back_off=seconds / 30)
        self._tasks.repeat(self._fence, seconds / 60, name="fence", essential=True, back_off=seconds / 60)

    async def aclose(self) -> None:
        """Stop renewing."""
        await self._tasks.aclose()

    async def _renew(self) -> None:
        """Renew the leases; errors are retried with backoff until the fence.

        A late answer is not a failure of this task, as on a busy machine a new process would do no better. If it
        lasts, the task makes no progress and counts as stalled.
        """
        while self._live and not await self._heartbeat():  # noqa: ASYNC110  the database's latency is not signalled
            await asyncio.sleep(self._claims.lease_seconds / 30)

    async def _heartbeat(self) -> bool:
        """Renew every lease; return whether the database answered in time."""
        seconds = self._claims.lease_seconds
        held = dict(self._live)
        until = time.monotonic() + seconds
        try:
            async with asyncio.timeout(min(seconds / 3, BEAT_SECONDS)):
                ours = await self._claims.extend(list(held))
        except TimeoutError:
            self._away = True
            self._claims.suspect_connections()  # the server may be gone: use a new connection next time
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
            self._away = False  # a run may have blocked the event loop, and so made the heartbeat fail
        self._fenced_at = now
        for run_id, live in list(self._live.items()):
            if live.lease.seconds < least:
                self._lose(run_id, live)

    def _lose(self, run_id: UUID, live: OwnedRun) -> None:
        if self._live.get(run_id) is live and not live.finishing and not live.lost:
            live.lose(away=self._away)
            self._lost()


class CancelEnforcer:
    """Ends cancelled runs whose owner does not respond: dead, stuck, or with a tool that ignores the cancellation.

    The process that recorded the cancel checks after a grace period and ends the run in its owner's place. That is safe
    whatever the owner still does, as it writes under an epoch that has ended. ``live``: the runs of this process.
    ``ended`` is called when threads have become free, ``leave`` with a live run that was ended without its code.
    """

    def __init__(
        self,
        cancels: RunCanceller,
        live: Mapping[UUID, OwnedRun],
        ended: Callable[[], None],
        leave: Callable[[OwnedRun], None] = OwnedRun.abandon,
    ) -> None:
        self._cancels = cancels
        self._live = live
        self._ended = ended
        self._leave = leave
        self._tasks = Tasks("cancel-enforcer")
        self._last = -1

    def schedule(self) -> None:
        """Schedule a check for a cancel just recorded."""
        now = asyncio.get_running_loop().time()
        period = int(now / TOGETHER_SECONDS)
        if period != self._last:
            self._last = period
            wait = (period + 1) * TOGETHER_SECONDS - now + GRACE_SECONDS
            self._tasks.start(self._enforce(wait), name="enforce")

    async def aclose(self) -> None:
        """Stop checking; other processes poll for expired cancels."""
        await self._tasks.aclose()

    async def _enforce(self, wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            ended = await self._cancels.finish_expired()
        except Unavailable as error:
            log.warning("enforcing_failed", error=str(error))
            return
        # cancels older than the grace period have ended by now, here or elsewhere
        for live in list(self._live.values()):
            if live.cancelled_at and not live.finishing and time.monotonic() - live.cancelled_at >= GRACE_SECONDS:
                live.fence()
                self._leave(live)
        if ended:
            self._ended()

"""Registry of feeds: of runs that live here, and of runs elsewhere with subscribers here.

Also the subscribers that wait for a thread's next run; kept small, as thousands of idle streams may wait.
"""

import asyncio
import time
from collections.abc import Iterable
from uuid import UUID

import asyncpg

from app.base.tasks import Tasks
from app.base.ttl_cache import TTLCache
from app.base.wakeup import WakeUp
from app.domain.event_id import START, EventId
from app.domain.lifecycle import RunStatus
from app.engine.streams.feed import Feed
from app.engine.streams.frame_transport import ASKED_SECONDS, FrameBatch, FramePosition, FrameTransport
from app.engine.streams.signals import Signal, Signals
from app.engine.streams.sql import MISSED_THREADS, RUN_STATES
from app.infra.db.engine import Database

ThreadKey = tuple[UUID, UUID]
"""Tenant and thread."""

POLL_SECONDS = 1.0
"""Interval at which runs elsewhere with subscribers here are polled, all in one statement: their owner may have died,
and frames or the signal of an end may have been lost."""

MISSED_SECONDS = 3.0
"""Interval at which awaited threads are polled, as a signal of their next run may have been lost."""

IDLE_SECONDS = 30.0
"""Interval of polling while no run elsewhere has a subscriber here."""

ANSWER_SECONDS = 5.0
"""Timeout of one poll, after which its connection is taken for dead."""

MAX_THREADS_ELSEWHERE = 100_000
"""Threads with waiters in other processes that are known; beyond it waiters learn of a run by polling."""

RETRY_SECONDS = 0.5
"""Minimum interval of requests to an owner to resend frames that the event log does not hold."""


class ThreadWaiter:
    """Context manager that waits for run number ``ordinal`` of a thread, with a future resolved on news of it."""

    __slots__ = ("_waiters", "news", "ordinal", "thread")

    def __init__(self, waiters: "ThreadWaiters", thread: ThreadKey, ordinal: int) -> None:
        self._waiters = waiters
        self.thread = thread
        self.ordinal = ordinal

    def __enter__(self) -> "asyncio.Future[None]":
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(self)
        return self.news

    def __exit__(self, *_: object) -> None:
        self._waiters.discard(self)


class ThreadWaiters:
    """Registry of subscribers that wait for a thread's next run."""

    def __init__(self) -> None:
        self._of: dict[ThreadKey, set[ThreadWaiter]] = {}

    def __contains__(self, thread: ThreadKey) -> bool:
        return thread in self._of

    def threads(self) -> list[ThreadKey]:
        """Return the threads that have waiters."""
        return list(self._of)

    def add(self, waiter: ThreadWaiter) -> None:
        """Register ``waiter``."""
        self._of.setdefault(waiter.thread, set()).add(waiter)

    def discard(self, waiter: ThreadWaiter) -> None:
        """Unregister ``waiter``."""
        waiters = self._of.get(waiter.thread)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._of[waiter.thread]

    def wake(self, threads: Iterable[ThreadKey]) -> None:
        """Wake the waiters of ``threads``."""
        for thread in threads:
            for waiter in self._of.get(thread, ()):
                if not waiter.news.done():
                    waiter.news.set_result(None)

    async def refresh(self, connection: asyncpg.Connection) -> None:
        """Wake waiters whose signal was lost, with one statement for all."""
        waited = [(*thread, min(waiter.ordinal for waiter in waiters)) for thread, waiters in self._of.items()]
        if waited:
            rows = await connection.fetch(MISSED_THREADS, *map(list, zip(*waited, strict=True)))
            self.wake((row["tenant_id"], row["thread_id"]) for row in rows)


class TrackedRun:
    """A run that lives here or has subscribers here."""

    def __init__(self, tenant_id: UUID, run_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.run_id = run_id
        self.readers = 0
        self.local = False
        self.wanted = False
        self.logged = START
        """The newest row of the event log that subscribers here are known to have received or read."""
        self._awaited = START
        self._unanswered = 0
        self._asked_at = 0.0
        self._feed = Feed()

    @property
    def feed(self) -> Feed:
        """Its feed; a new one once the last has closed, for the run's next owner."""
        if self._feed.closed:
            self._feed = Feed()
        return self._feed

    def owns_another(self, feed: Feed) -> bool:
        """Whether the run, lost here under ``feed``, lives here again under a later epoch."""
        return self.local and self._feed is not feed and self._feed.epoch > feed.epoch

    def renew(self) -> Feed:
        """Close the feed and return a new one; its subscribers resume from the event log."""
        if self._feed.epoch:
            self._feed.close(finished=False)
        return self.feed

    def is_behind(self, newest: EventId) -> bool:
        """Whether frames up to ``newest``, a row of the event log, were still missing one poll after they were
        logged.
        """
        if newest <= self.logged:
            return False
        if self.feed.epoch == newest.epoch and self.feed.in_log >= newest.seq:
            self.logged = newest
        elif self._awaited == newest:
            self.logged = newest
            return True
        self._awaited = newest
        return False

    def is_unanswered(self) -> bool:
        """Whether its owner, asked at the previous poll, has sent nothing. Call once per poll."""
        self._unanswered = 0 if self.feed.epoch else self._unanswered + 1
        return self._unanswered > 1

    def may_ask(self) -> bool:
        """Whether its owner may be asked to resend now; limits the rate."""
        now = time.monotonic()
        if now - self._asked_at < RETRY_SECONDS:
            return False
        self._asked_at = now
        return True


class FeedSubscription:
    """Context manager of one subscriber of a run; small, as each open stream holds one."""

    __slots__ = ("_feeds", "_tracked")

    def __init__(self, feeds: "FeedRegistry", tracked: TrackedRun) -> None:
        self._feeds = feeds
        self._tracked = tracked

    def __enter__(self) -> TrackedRun:
        self._tracked.readers += 1
        return self._tracked

    def __exit__(self, *_: object) -> None:
        self._tracked.readers -= 1
        self._feeds.left(self._tracked)


class FeedRegistry:
    """The feeds of one process. Implements ``app.engine.streams.frame_transport.RemoteReaders``."""

    def __init__(self, database: Database, signals: Signals, transport: FrameTransport) -> None:
        self._database = database
        self._signals = signals
        self._transport = transport
        self._tracked: dict[UUID, TrackedRun] = {}
        self._waiters = ThreadWaiters()
        self._threads_elsewhere: TTLCache[UUID, bool] = TTLCache(MAX_THREADS_ELSEWHERE, ASKED_SECONDS)
        self._tasks = Tasks("feeds")
        self._wake = WakeUp()
        self._asked_at = 0.0
        self._closing = False

    def start(self) -> None:
        """Start following runs elsewhere."""
        self._signals.listen(self._on_signal)
        self._transport.start(self)
        self._tasks.repeat(self._poll, 0, name="poll", essential=True, back_off=POLL_SECONDS)
        self._tasks.repeat(self.poll_threads, MISSED_SECONDS, name="missed", essential=True)

    async def aclose(self) -> None:
        """Stop following."""
        await self._tasks.aclose()
        await self._transport.aclose()

    def drain(self) -> None:
        """Close the feeds of runs elsewhere, so that subscribers reconnect to another process."""
        self._closing = True
        for tracked in self._tracked.values():
            if not tracked.local:
                tracked.feed.close(finished=False)
        self._waiters.wake(self._waiters.threads())

    def open(self, tenant_id: UUID, run_id: UUID, thread_id: UUID, epoch: int) -> Feed:
        """Return the feed of a run that starts here."""
        tracked = self._tracked.setdefault(run_id, TrackedRun(tenant_id, run_id))
        self._unsubscribe(tracked)
        tracked.local = True
        feed = tracked.renew()
        feed.open(epoch)
        self.notify(tenant_id, thread_id)
        return feed

    def settle(self, run_id: UUID, feed: Feed, *, finished: bool) -> None:
        """Close the feed of a run that no longer lives here; ``finished``: because it has ended."""
        feed.close(finished=finished)
        tracked = self._tracked.get(run_id)
        if tracked is not None and not tracked.owns_another(feed):
            tracked.local = False
            if not tracked.readers:
                del self._tracked[run_id]

    def follow(self, tenant_id: UUID, run_id: UUID) -> "FeedSubscription":
        """Subscribe to the run ``run_id`` within a ``with`` block."""
        return FeedSubscription(self, self._tracked.setdefault(run_id, TrackedRun(tenant_id, run_id)))

    def left(self, tracked: TrackedRun) -> None:
        """Remove ``tracked`` if its last subscriber has left."""
        if not tracked.readers and not tracked.local:
            self._unsubscribe(tracked)
            if self._tracked.get(tracked.run_id) is tracked:
                del self._tracked[tracked.run_id]

    async def changed(self, tracked: TrackedRun, feed: Feed) -> None:
        """Wait for news of a run in any process: an owner, frames, an end. ``feed`` is still open."""
        if not tracked.local:
            if self._closing:
                feed.close(finished=False)
                return
            self._subscribe(tracked)
        await feed.changed()

    def _subscribe(self, tracked: TrackedRun) -> None:
        """Request the frames of a run elsewhere, and poll it from now on."""
        if not tracked.wanted:
            tracked.wanted = True
            self._transport.subscribe(tracked.run_id)
            self._signals.notify("watch", [tracked.run_id])
            self._wake.set()

    def positions(self, run_ids: Iterable[UUID]) -> list[FramePosition]:
        """Return the positions of subscribers here of ``run_ids``."""
        found = []
        for run_id in run_ids:
            tracked = self._tracked.get(run_id)
            if tracked is not None and not tracked.local:
                last = tracked.feed.last
                found.append(FramePosition(tracked.tenant_id, run_id, last.epoch, last.seq + 1))
        return found

    def receive(self, batch: FrameBatch) -> None:
        """Add a batch of frames to its feed, or request what is missing before it."""
        tracked = self._tracked.get(batch.run_id)
        if tracked is None or tracked.local or tracked.tenant_id != batch.tenant_id:
            return
        feed = tracked.feed
        if batch.epoch < feed.epoch:
            return
        if batch.epoch > feed.epoch > 0:
            feed = tracked.renew()
        if not feed.epoch or batch.seq > feed.last.seq + 1:
            if batch.seq - 1 > batch.in_log:  # frames before it are lost, and not in the log yet
                if tracked.may_ask():
                    self._signals.notify("again", [batch.run_id])
                return
            feed = tracked.renew()
            feed.open(batch.epoch, batch.seq - 1)
        known = feed.last.seq + 1 - batch.seq
        if batch.events is None:
            feed.has_events = False
        feed.push(batch.frames[known:], (batch.events or [])[known:])
        feed.stored(batch.in_log)
        if batch.closed:
            feed.close(finished=batch.finished)

    def missed(self) -> None:
        """Poll now, as frames may have been lost."""
        self._wake.set()

    def watching(self, thread: ThreadKey, ordinal: int) -> ThreadWaiter:
        """Return a context manager whose future resolves when run ``ordinal`` of ``thread`` starts in any process."""
        if thread not in self._waiters:
            self._signals.notify("follow", [thread[1]])
            self._wake.set()
        return ThreadWaiter(self._waiters, thread, ordinal)

    async def poll_threads(self) -> None:
        """Wake waiters of threads whose next run exists, in case its signal was lost."""
        if self._waiters.threads():
            async with asyncio.timeout(ANSWER_SECONDS), self._database.engine_connection() as connection:
                await self._waiters.refresh(connection)

    def notify(self, tenant_id: UUID, thread_id: UUID) -> None:
        """Notify waiters of the thread, in all processes, that a run started on it or that it was deleted."""
        self._waiters.wake([(tenant_id, thread_id)])
        if thread_id in self._threads_elsewhere:
            self._signals.notify("news", [thread_id])

    def _unsubscribe(self, tracked: TrackedRun) -> None:
        if tracked.wanted:
            tracked.wanted = False
            self._transport.unsubscribe(tracked.run_id)

    def _on_signal(self, signal: Signal) -> None:
        if signal.follow:
            self._threads_elsewhere.remove_expired()
            for thread_id in signal.follow:
                self._threads_elsewhere.put(thread_id, True)
        thread_ids = set(signal.news)
        self._waiters.wake([key for key in self._waiters.threads() if key[1] in thread_ids or signal.is_empty])
        if signal.is_empty:
            self._wake.set()

    async def _poll(self) -> None:
        """Poll the runs elsewhere that have subscribers here, and renew the requests for their frames."""
        idle = not self._waiters.threads() and not any(tracked.wanted for tracked in self._tracked.values())
        await self._wake.wait(IDLE_SECONDS if idle else POLL_SECONDS)
        now = time.monotonic()
        again = now - self._asked_at > ASKED_SECONDS / 3
        if again:
            self._asked_at = now
            self._signals.notify("follow", [thread_id for _, thread_id in self._waiters.threads()])
        wanted = [tracked for tracked in self._tracked.values() if tracked.wanted]
        if wanted:
            await self._compare(wanted, ask=again)

    async def _compare(self, wanted: list[TrackedRun], *, ask: bool) -> None:
        """Compare what subscribers of runs elsewhere were sent with the database."""
        run_ids = [tracked.run_id for tracked in wanted]
        async with asyncio.timeout(ANSWER_SECONDS), self._database.engine_connection() as connection:
            rows = await connection.fetch(RUN_STATES, run_ids)
        states = {row["run_id"]: row for row in rows}
        watch, again = [], []
        for tracked in wanted:
            row, feed = states.get(tracked.run_id), tracked.feed
            if tracked.local:
                continue  # started here in the meantime
            if row is None or row["status"] not in {RunStatus.PENDING, RunStatus.RUNNING}:
                feed.close(finished=False)  # subscribers find the end in the database
                continue
            newest = START if row["log_epoch"] is None else EventId(row["log_epoch"], row["log_seq"])
            running = row["status"] == RunStatus.RUNNING
            behind = tracked.is_behind(newest)
            if behind or (feed.epoch and (row["epoch"] > feed.epoch or not running)):
                feed.close(finished=False)  # subscribers resume from the log
            if running and (ask or not feed.epoch):
                watch.append(tracked.run_id)
            if (tracked.is_unanswered() or behind) and running and tracked.may_ask():
                again.append(tracked.run_id)
        self._signals.notify("watch", watch)
        self._signals.notify("again", again)

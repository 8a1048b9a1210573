"""Registry of feeds: of runs that live here, and of runs elsewhere with subscribers here.

Also the subscribers that wait for a thread's next run; kept small, as thousands of idle streams may wait.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from uuid import UUID

import asyncpg

from app.base.tasks import Tasks
from app.domain.event_id import START, EventId
from app.domain.lifecycle import RunStatus
from app.engine.streams.feed import Feed
from app.engine.streams.frame_transport import ASKED_SECONDS, FrameBatch, FramePosition, FrameTransport
from app.engine.streams.signals import Signal, Signals
from app.engine.streams.sql import MISSED_THREADS, RUN_STATES
from app.infra.db.engine import Database

ThreadKey = tuple[UUID, UUID]
"""Tenant and thread."""


class ThreadWaiter:
    """Context manager that waits for run number ``ordinal`` of a thread, with a future resolved on news of it."""

    __slots__ = ("_watches", "news", "ordinal", "thread")

    def __init__(self, watches: "ThreadWaiters", thread: ThreadKey, ordinal: int) -> None:
        self._watches = watches
        self.thread = thread
        self.ordinal = ordinal

    def __enter__(self) -> "asyncio.Future[None]":
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watches.add(self)
        return self.news

    def __exit__(self, *_: object) -> None:
        self._watches.discard(self)


class ThreadWaiters:
    """Registry of subscribers that wait for a thread's next run."""

    def __init__(self) -> None:
        self._of: dict[ThreadKey, set[ThreadWaiter]] = {}

    def __contains__(self, thread: ThreadKey) -> bool:
        return thread in self._of

    def threads(self) -> list[ThreadKey]:
        """Return the threads that have waiters."""
        return list(self._of)

    def add(self, watch: ThreadWaiter) -> None:
        """Register ``watch``."""
        self._of.setdefault(watch.thread, set()).add(watch)

    def discard(self, watch: ThreadWaiter) -> None:
        """Unregister ``watch``."""
        watches = self._of.get(watch.thread)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._of[watch.thread]

    def wake(self, threads: Iterable[ThreadKey]) -> None:
        """Wake the waiters of ``threads``."""
        for thread in threads:
            for watch in self._of.get(thread, ()):
                if not watch.news.done():
                    watch.news.set_result(None)

    async def refresh(self, connection: asyncpg.Connection) -> None:
        """Wake waiters whose signal was lost, with one statement for all."""
        waited = [(*thread, min(watch.ordinal for watch in watches)) for thread, watches in self._of.items()]
        if waited:
            rows = await connection.fetch(MISSED_THREADS, *map(list, zip(*waited, strict=True)))
            self.wake((row["tenant_id"], row["thread_id"]) for row in rows)


POLL_SECONDS = 1.0
"""Interval at which runs elsewhere with subscribers here are polled, all in one statement: their owner may have died,
and frames or the signal of an end may have been lost."""

MISSED_SECONDS = 3.0
"""Interval at which awaited threads are polled, as a signal of their next run may have been lost."""

IDLE_SECONDS = 30.0
"""Interval of polling while no run elsewhere has a subscriber here."""

ANSWER_SECONDS = 5.0
"""Timeout of one poll, after which its connection is taken for dead."""

RETRY_SECONDS = 0.5
"""Minimum interval of requests to an owner to resend frames that the event log does not hold."""


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

    __slots__ = ("_feeds", "_followed")

    def __init__(self, feeds: "FeedRegistry", followed: TrackedRun) -> None:
        self._feeds = feeds
        self._followed = followed

    def __enter__(self) -> TrackedRun:
        self._followed.readers += 1
        return self._followed

    def __exit__(self, *_: object) -> None:
        self._followed.readers -= 1
        self._feeds.left(self._followed)


class FeedRegistry:
    """The feeds of one process. Implements ``app.engine.streams.frame_transport.RemoteReaders``."""

    def __init__(self, database: Database, signals: Signals, carrier: FrameTransport) -> None:
        self._database = database
        self._signals = signals
        self._carrier = carrier
        self._followed: dict[UUID, TrackedRun] = {}
        self._watches = ThreadWaiters()
        self._threads_elsewhere: dict[UUID, float] = {}
        self._tasks = Tasks("feeds")
        self._wake = asyncio.Event()
        self._asked_at = 0.0
        self._closing = False

    def start(self) -> None:
        """Start following runs elsewhere."""
        self._signals.listen(self._on_signal)
        self._carrier.start(self)
        self._tasks.repeat(self._poll, 0, name="poll", essential=True, back_off=POLL_SECONDS)
        self._tasks.repeat(self.poll_threads, MISSED_SECONDS, name="missed", essential=True)

    async def aclose(self) -> None:
        """Stop following."""
        await self._tasks.aclose()
        await self._carrier.aclose()

    def drain(self) -> None:
        """Close the feeds of runs elsewhere, so that subscribers reconnect to another process."""
        self._closing = True
        for followed in self._followed.values():
            if not followed.local:
                followed.feed.close(finished=False)
        self._watches.wake(self._watches.threads())

    def open(self, tenant_id: UUID, run_id: UUID, thread_id: UUID, epoch: int) -> Feed:
        """Return the feed of a run that starts here."""
        followed = self._followed.setdefault(run_id, TrackedRun(tenant_id, run_id))
        self._unwant(followed)
        followed.local = True
        feed = followed.renew()
        feed.open(epoch)
        self.notify(tenant_id, thread_id)
        return feed

    def settle(self, run_id: UUID, feed: Feed, *, finished: bool) -> None:
        """Close the feed of a run that no longer lives here; ``finished``: because it has ended."""
        feed.close(finished=finished)
        followed = self._followed.get(run_id)
        if followed is not None and not followed.owns_another(feed):
            followed.local = False
            if not followed.readers:
                del self._followed[run_id]

    def follow(self, tenant_id: UUID, run_id: UUID) -> "FeedSubscription":
        """Subscribe to the run ``run_id`` within a ``with`` block."""
        return FeedSubscription(self, self._followed.setdefault(run_id, TrackedRun(tenant_id, run_id)))

    def left(self, followed: TrackedRun) -> None:
        """Remove ``followed`` if its last subscriber has left."""
        if not followed.readers and not followed.local:
            self._unwant(followed)
            if self._followed.get(followed.run_id) is followed:
                del self._followed[followed.run_id]

    async def changed(self, followed: TrackedRun, feed: Feed) -> None:
        """Wait for news of a run in any process: an owner, frames, an end. ``feed`` is still open."""
        if not followed.local:
            if self._closing:
                feed.close(finished=False)
                return
            self._want(followed)
        await feed.changed()

    def _want(self, followed: TrackedRun) -> None:
        """Request the frames of a run elsewhere, and poll it from now on."""
        if not followed.wanted:
            followed.wanted = True
            self._carrier.want(followed.run_id)
            self._signals.notify("watch", [followed.run_id])
            self._wake.set()

    def places(self, run_ids: Iterable[UUID]) -> list[FramePosition]:
        """Return the positions of subscribers here of ``run_ids``."""
        found = []
        for run_id in run_ids:
            followed = self._followed.get(run_id)
            if followed is not None and not followed.local:
                last = followed.feed.last
                found.append(FramePosition(followed.tenant_id, run_id, last.epoch, last.seq + 1))
        return found

    def receive(self, chunk: FrameBatch) -> None:
        """Add a batch of frames to its feed, or request what is missing before it."""
        followed = self._followed.get(chunk.run_id)
        if followed is None or followed.local or followed.tenant_id != chunk.tenant_id:
            return
        feed = followed.feed
        if chunk.epoch < feed.epoch:
            return
        if chunk.epoch > feed.epoch > 0:
            feed = followed.renew()
        if not feed.epoch or chunk.seq > feed.last.seq + 1:
            if chunk.seq - 1 > chunk.in_log:  # frames before it are lost, and not in the log yet
                if followed.may_ask():
                    self._signals.notify("again", [chunk.run_id])
                return
            feed = followed.renew()
            feed.open(chunk.epoch, chunk.seq - 1)
        feed.push(chunk.frames[feed.last.seq + 1 - chunk.seq :])
        feed.stored(chunk.in_log)
        if chunk.closed:
            feed.close(finished=chunk.finished)

    def missed(self) -> None:
        """Poll now, as frames may have been lost."""
        self._wake.set()

    def watching(self, thread: ThreadKey, ordinal: int) -> ThreadWaiter:
        """Return a context manager whose future is resolved when run ``ordinal`` of ``thread`` starts in any
        process.
        """
        if thread not in self._watches:
            self._signals.notify("follow", [thread[1]])
            self._wake.set()
        return ThreadWaiter(self._watches, thread, ordinal)

    async def poll_threads(self) -> None:
        """Wake waiters of threads whose next run exists, in case its signal was lost."""
        if self._watches.threads():
            async with asyncio.timeout(ANSWER_SECONDS), self._database.engine_connection() as connection:
                await self._watches.refresh(connection)

    def notify(self, tenant_id: UUID, thread_id: UUID) -> None:
        """Notify waiters of the thread, in all processes, that a run started on it or that it was deleted."""
        self._watches.wake([(tenant_id, thread_id)])
        if self._threads_elsewhere.get(thread_id, 0.0) > time.monotonic():
            self._signals.notify("news", [thread_id])

    def _unwant(self, followed: TrackedRun) -> None:
        if followed.wanted:
            followed.wanted = False
            self._carrier.unwant(followed.run_id)

    def _on_signal(self, signal: Signal) -> None:
        if signal.follow:
            now = time.monotonic()
            self._threads_elsewhere = {one: until for one, until in self._threads_elsewhere.items() if until > now}
            self._threads_elsewhere |= dict.fromkeys(signal.follow, now + ASKED_SECONDS)
        thread_ids = set(signal.news)
        self._watches.wake([key for key in self._watches.threads() if key[1] in thread_ids or signal.is_empty])
        if signal.is_empty:
            self._wake.set()

    async def _poll(self) -> None:
        """Poll the runs elsewhere that have subscribers here, and renew the requests for their frames."""
        idle = not self._watches.threads() and not any(followed.wanted for followed in self._followed.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS if idle else POLL_SECONDS):
                await self._wake.wait()
        self._wake.clear()
        now = time.monotonic()
        again = now - self._asked_at > ASKED_SECONDS / 3
        if again:
            self._asked_at = now
            self._signals.notify("follow", [thread_id for _, thread_id in self._watches.threads()])
        wanted = [followed for followed in self._followed.values() if followed.wanted]
        if wanted:
            await self._compare(wanted, ask=again)

    async def _compare(self, wanted: list[TrackedRun], *, ask: bool) -> None:
        """Compare what subscribers of runs elsewhere were sent with the database."""
        run_ids = [followed.run_id for followed in wanted]
        async with asyncio.timeout(ANSWER_SECONDS), self._database.engine_connection() as connection:
            rows = await connection.fetch(RUN_STATES, run_ids)
        states = {row["run_id"]: row for row in rows}
        watch, again = [], []
        for followed in wanted:
            row, feed = states.get(followed.run_id), followed.feed
            if followed.local:
                continue  # started here in the meantime
            if row is None or row["status"] not in {RunStatus.PENDING, RunStatus.RUNNING}:
                feed.close(finished=False)  # subscribers find the end in the database
                continue
            newest = START if row["log_epoch"] is None else EventId(row["log_epoch"], row["log_seq"])
            running = row["status"] == RunStatus.RUNNING
            behind = followed.is_behind(newest)
            if behind or (feed.epoch and (row["epoch"] > feed.epoch or not running)):
                feed.close(finished=False)  # subscribers resume from the log
            if running and (ask or not feed.epoch):
                watch.append(followed.run_id)
            if (followed.is_unanswered() or behind) and running and followed.may_ask():
                again.append(followed.run_id)
        self._signals.notify("watch", watch)
        self._signals.notify("again", again)

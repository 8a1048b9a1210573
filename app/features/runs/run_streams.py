"""Stream a run from any event on: replay the event log, then follow the live feed, without gaps or duplicates."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Hashable
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.port import Interrupt
from app.base.errors import NotFound, Unavailable
from app.base.offload import offload
from app.domain.event_id import START, EventId
from app.domain.events import Event
from app.domain.lifecycle import TERMINAL, RunStatus
from app.engine.checkpoints.snapshot import read, size_of
from app.engine.execution.ending import interrupts_json
from app.engine.streams.feed import Feed, FeedTruncated, encode_large, values_in
from app.engine.streams.feed_registry import TrackedRun
from app.engine.streams.frames import with_last_member
from app.engine.streams.send_budget import Result, SendBudget, SendReservation
from app.engine.supervisor import Supervisor
from app.features.runs import queries
from app.features.runs.event_log import EventLog
from app.features.runs.run_views import EventView, FrameView, Item, RunView, json_of
from app.infra.db.engine import Database
from app.infra.db.session import Reader

ReadRow = Callable[[Reader, UUID], Awaitable[Row[Any] | None]]
"""Read a checkpoint of a tenant."""

RETRY_DELAY = 0.5
"""Seconds between retries while the database is unavailable."""


class RunStreams:
    """Streams and results of runs, for subscribers in this process."""

    def __init__(self, database: Database, supervisor: Supervisor) -> None:
        self._log = EventLog(database)
        self._supervisor = supervisor
        self.send_budget = SendBudget()

    def follow(
        self,
        tenant_id: UUID,
        run_id: UUID,
        *,
        after: EventId,
        modes: Collection[str] | None,
        holder: Hashable = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield chunks of frames after ``after`` until the run ends; ``modes`` filters them (None: all of the run's).

        Large chunks count against the send budget of ``holder``. A subscriber that has received something waits while
        the database is unavailable; any other gets ``Unavailable``.
        """
        return self._follow(tenant_id, run_id, after, FrameView(self.send_budget, modes, holder))

    def follow_events(
        self, tenant_id: UUID, run_id: UUID, *, holder: Hashable = None
    ) -> AsyncGenerator[list[Event], None]:
        """Yield the run's events from its start until it ends, in batches; an empty batch: the server is stopping.

        The order is that of the frames, live and in a replay. Raises as ``follow``.
        """
        return self._follow(tenant_id, run_id, START, EventView(self.send_budget, holder))

    async def logged_events(self, tenant_id: UUID, run_id: UUID) -> AsyncGenerator[Event, None]:
        """Yield the events of the run that are in its log now. Raises ``Unavailable``."""
        logged = await self._log.open(tenant_id, run_id, START)
        async with contextlib.aclosing(logged.events()) as batches:
            async for batch in batches:
                while batch.events:
                    yield batch.events.popleft()

    async def _follow(
        self, tenant_id: UUID, run_id: UUID, after: EventId, view: RunView[Item]
    ) -> AsyncGenerator[Item, None]:
        position, failures = after, 0
        feeds = self._supervisor.feeds
        with feeds.follow(tenant_id, run_id) as followed:
            while True:
                feed = followed.feed
                # A read of the log that starts now sees all commits of owners before this epoch, but not those of
                # owners that are replaced during the read.
                owner_epoch = feed.epoch
                with contextlib.suppress(FeedTruncated):
                    while _covers(feed, position):
                        if (taken := await view.take(feed, position)) is not None:
                            position, item = taken
                            if item:
                                yield item
                            del taken, item  # hold no frames while waiting
                        elif feed.finished:
                            return
                        elif feed.closed:
                            break
                        else:
                            await feeds.changed(followed, feed)
                if self._supervisor.closing:
                    yield view.stopping
                    return
                try:
                    logged = await self._log.open(tenant_id, run_id, position, failures)
                    async with contextlib.aclosing(view.replay(logged, position)) as items:
                        async for reached, item in items:
                            position = max(position, reached)  # it may be ahead of the log in an uncommitted step
                            if item:
                                yield item
                            del item
                except Unavailable:
                    if position == after:
                        raise
                    failures += 1
                    await asyncio.sleep(RETRY_DELAY)
                    continue
                failures = 0
                if logged.ended:
                    return
                if isinstance(view, EventView) and not feed.has_events:
                    await asyncio.sleep(RETRY_DELAY)
                if owner_epoch > position.epoch:
                    position = EventId(owner_epoch, 0)
                else:
                    await self._wait_for_owner(followed, feed, position)

    async def _wait_for_owner(self, followed: TrackedRun, feed: Feed, position: EventId) -> None:
        """Wait for an owner whose frames may follow ``position``, or for another change of the run."""
        if not feed.epoch and not feed.closed:
            await self._supervisor.feeds.changed(followed, feed)
        while feed.epoch < position.epoch and not feed.closed:
            await self._supervisor.feeds.changed(followed, feed)

    @contextlib.asynccontextmanager
    async def values(
        self, tenant_id: UUID, run: tuple[UUID, UUID], checkpoint_id: UUID, holder: Hashable = None
    ) -> AsyncIterator[bytes | None]:
        """Load the values at a checkpoint of ``run`` (thread, run) as JSON: from its live feed, or as stored.

        None if they are neither; an input is stored with the first step. They count against the send budget of
        ``holder`` until the context is left. Raises ``Unavailable``.
        """
        thread_id, run_id = run
        async with self.send_budget.room(holder) as share:
            with self._supervisor.feeds.follow(tenant_id, run_id) as followed:
                frame = followed.feed.values_frame(str(checkpoint_id))
            if frame is None:
                read_row = functools.partial(queries.checkpoint, thread_id=thread_id, checkpoint_id=checkpoint_id)
                yield await self._stored(tenant_id, share, read_row)
                return
            if not share.fits(frame.size):
                await share.wait()
            await encode_large([frame])
            values = values_in(frame)
            del frame
            share.made(len(values))
            yield values

    @contextlib.asynccontextmanager
    async def values_before(
        self, tenant_id: UUID, run_id: UUID, holder: Hashable = None
    ) -> AsyncIterator[bytes | None]:
        """Load the values that a run started from as JSON, None if there were none, in the way of ``values``."""
        async with self.send_budget.room(holder) as share:
            yield await self._stored(tenant_id, share, functools.partial(queries.before_run, run_id=run_id))

    async def _stored(self, tenant_id: UUID, share: SendReservation, read_row: ReadRow) -> bytes | None:
        """Return the JSON of the row that ``read_row`` finds; read again if there was no room for it at first."""
        row = await self._read(tenant_id, read_row)
        size = 0 if row is None else size_of(row)
        if not share.fits(size):
            row = None  # hold nothing while waiting
            await share.wait()
            row = await self._read(tenant_id, read_row)
        holder, row = [] if row is None else [row], None
        values = await offload(size, json_of, holder) if holder else None
        share.made(0 if values is None else len(values))
        return values

    async def _read(self, tenant_id: UUID, read_row: ReadRow) -> Row[Any] | None:
        async with self._log.reading(tenant_id) as session:
            return await read_row(session, tenant_id)

    async def result(self, tenant_id: UUID, thread_id: UUID | None, run_id: UUID) -> bytes:
        """Return ``outcome`` as one JSON text."""
        result = await self.outcome(tenant_id, thread_id, run_id)
        result.release()
        return b"".join(result.pieces)

    async def outcome(self, tenant_id: UUID, thread_id: UUID | None, run_id: UUID, holder: Hashable = None) -> Result:
        """Wait for the end of a run; return its values or its error as JSON, the body of ``wait`` and ``join``.

        A large result waits until it fits the send budget of ``holder``. Raises ``Unavailable`` if the database is
        unavailable at first; after that, waits until it is back.
        """
        failures = 0
        waited = False
        with self._supervisor.feeds.follow(tenant_id, run_id) as followed:
            while True:
                live = self._supervisor.live(run_id)
                if live is not None and live.claimed.tenant_id == tenant_id:
                    live.awaited = waited = True
                    pieces = await asyncio.shield(live.done)
                    if pieces is not None and (result := self.send_budget.take(holder, pieces)) is not None:
                        return result
                    del pieces
                del live  # hold nothing of the run while waiting
                feed = followed.feed  # taken before the query, so that a change during it is not missed
                try:
                    result = await self._read_result(tenant_id, thread_id, run_id, holder, failures)
                except Unavailable:
                    if not waited or self._supervisor.closing:
                        raise
                    failures += 1
                    await asyncio.sleep(RETRY_DELAY)
                    continue
                failures = 0
                if result is not None:
                    return result
                if self._supervisor.closing:
                    raise Unavailable("The server is stopping; join the run again.", retry_after=1)
                while not feed.closed and self._supervisor.live(run_id) is None:
                    waited = True
                    await self._supervisor.feeds.changed(followed, feed)

    async def _read_result(
        self, tenant_id: UUID, thread_id: UUID | None, run_id: UUID, holder: Hashable, failures: int
    ) -> Result | None:
        """Read the result of an ended run from the database; None if it has not ended. Raises ``NotFound``."""
        share = self.send_budget.room(holder)
        await share.__aenter__()
        try:
            while True:
                async with self._log.reading(tenant_id, failures) as session:
                    row = await queries.final_state(session, tenant_id, thread_id, run_id)
                if row is None:
                    raise NotFound("The run was deleted.")
                if RunStatus(row.status) not in TERMINAL:
                    share.close()
                    return None
                size = size_of(row) if row.head is not None else 0
                if share.fits(size):
                    break
                del row
                await share.wait()
            pieces = await offload(size, _result, row)
            share.made(sum(map(len, pieces)))
        except BaseException:
            share.close()
            raise
        return Result(pieces, share.close)

    async def ended(self, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> None:
        """Return once the run has ended or is deleted."""
        with contextlib.suppress(NotFound):
            (await self.outcome(tenant_id, thread_id, run_id)).release()


def _covers(feed: Feed, position: EventId) -> bool:
    return feed.epoch > 0 and (position.epoch == feed.epoch or (position.epoch == 0 and feed.epoch == 1))


def _result(row: Row[Any]) -> list[bytes]:
    if row.error is not None:
        return [msgspec.json.encode({"__error__": row.error})]
    pieces = [b"{", b"}"] if row.head is None else read(row, row.last_number).state.pieces()
    if not row.interrupts:
        return pieces
    interrupts = interrupts_json([Interrupt(one["id"], one["value"]) for one in row.interrupts])
    return with_last_member(pieces, "__interrupt__", interrupts)

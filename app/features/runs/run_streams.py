"""Stream a run from any event on: replay the event log, then follow the live feed, without gaps or duplicates."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Hashable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.port import Interrupt
from app.base.errors import NotFound, Unavailable
from app.base.offload import offload
from app.domain.event_id import EventId
from app.domain.events import Ended, Event, Failed, InputApplied, Interrupted, Retracted, StepCommitted
from app.domain.lifecycle import TERMINAL, RunStatus
from app.domain.state import NO_VALUES, Values
from app.engine.checkpoints.codec import unpack
from app.engine.checkpoints.snapshot import read, size_of
from app.engine.execution.ending import REMOVED, interrupts_json
from app.engine.execution.execution import first_message_id
from app.engine.streams.feed import AnyFrame, DeferredFrame, Feed, FeedTruncated
from app.engine.streams.feed_registry import TrackedRun
from app.engine.streams.frames import FrameRenderer, with_last_member
from app.engine.streams.send_budget import SMALL, Result, SendBudget
from app.engine.structs import RunRequest
from app.engine.supervisor import Supervisor
from app.features.runs import queries
from app.infra.db.engine import Database
from app.infra.db.session import Reader

YIELD_EVERY = 16
"""Events of a replay after which control returns to the event loop."""

RETRY = b"retry: 1000\r\n\r\n"
"""Ends a stream of a draining process: the client reconnects after a second, to another process."""

READ_TIMEOUT = 5.0
"""Timeout of a first read, in seconds: detects dead connections. Doubled after each failure."""

MAX_READ_TIMEOUT = 60.0

RETRY_DELAY = 0.5
"""Seconds between retries while the database is unavailable."""

_events = msgspec.json.Decoder(list[Event])


class RunStreams:
    """Streams and results of runs, for subscribers in this process."""

    def __init__(self, database: Database, supervisor: Supervisor) -> None:
        self._database = database
        self._supervisor = supervisor
        self.outflow = SendBudget()

    async def follow(
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
                        await feed.encode_next(position, modes)
                        if (taken := feed.take(position, modes)) is not None:
                            position, chunk = taken
                            if chunk:
                                yield chunk
                            del taken, chunk  # hold no frames while waiting
                        elif feed.finished:
                            return
                        elif feed.closed:
                            break
                        else:
                            await feeds.changed(followed, feed)
                if self._supervisor.closing:
                    yield RETRY
                    return
                try:
                    ended, chunks = await self._replay(tenant_id, run_id, LogReplay(position, modes, holder), failures)
                    async with contextlib.aclosing(chunks):
                        async for reached, chunk in chunks:
                            position = max(position, reached)  # it may be ahead of the log in an uncommitted step
                            if chunk:
                                yield chunk
                            del chunk
                except Unavailable:
                    if position == after:
                        raise
                    failures += 1
                    await asyncio.sleep(RETRY_DELAY)
                    continue
                failures = 0
                if ended:
                    return
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
                    if pieces is not None and (result := self.outflow.take(holder, pieces)) is not None:
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
        share = self.outflow.room(holder)
        await share.__aenter__()
        try:
            while True:
                async with self._reading(tenant_id, failures) as session:
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

    async def _replay(
        self, tenant_id: UUID, run_id: UUID, replay: "LogReplay", failures: int
    ) -> tuple[bool, AsyncGenerator[tuple[EventId, bytes], None]]:
        async with self._reading(tenant_id, failures) as session:
            run = await queries.status(session, tenant_id, run_id)
            if run is None:
                return True, _deleted(run_id, replay.after)
            rows = await queries.log_page(session, tenant_id, run_id, EventId(replay.after.epoch, 0))
        ended = RunStatus(run.status) in TERMINAL
        return ended, self._rendered(tenant_id, run, deque(rows), replay)

    @contextlib.asynccontextmanager
    async def _reading(self, tenant_id: UUID, failures: int = 0) -> AsyncIterator[Reader]:
        """Open a reading transaction with a timeout that grows with ``failures``. Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(min(READ_TIMEOUT * 2**failures, MAX_READ_TIMEOUT)):
                async with self._database.reading(tenant_id) as session:
                    yield session
        except TimeoutError as error:
            raise Unavailable("The database did not answer in time.", retry_after=2) from error

    async def _rendered(
        self, tenant_id: UUID, run: Row[Any], rows: deque[Row[Any]], replay: "LogReplay"
    ) -> AsyncGenerator[tuple[EventId, bytes], None]:
        request = msgspec.json.decode(run.request, type=RunRequest)
        renderer = FrameRenderer(request.stream_mode, 0)
        ended = False
        epoch = seq = 0
        while rows:
            more = queries.has_more(rows)
            while rows:
                row = rows.popleft()
                epoch, seq, body = row.epoch, row.seq, unpack(row.body)
                if epoch != renderer.epoch:
                    renderer = FrameRenderer(request.stream_mode, epoch)
                renderer.seq = seq - 1
                events = deque(_events.decode(body))
                size = len(body)
                del row, body  # hold little while waiting
                while events:
                    event = events.popleft()
                    ended = isinstance(event, Ended)
                    values = _values_of(event) if renderer.needs_values(event) else NO_VALUES
                    # a large event is rendered once there is room for it: subscribers that wait hold no frames
                    frames = replay.render(renderer, event, values) if size <= SMALL else None
                    if frames is None or any(isinstance(frame, DeferredFrame) for frame in frames):
                        async with self.outflow.room(replay.holder) as share:
                            if frames is None:
                                if not share.fits(size):
                                    await share.wait()
                                frames = replay.render(renderer, event, values)
                            stored = await self._read_values(tenant_id, run, frames)
                            if not share.fits(max((values.size for values in stored), default=0)):
                                _release(stored)
                                await share.wait()
                                stored = await self._read_values(tenant_id, run, frames)
                            chunk = _joined(frames)
                            _release(stored)
                            share.made(len(chunk) + (size if size > SMALL else 0))
                            del event, frames
                            yield EventId(epoch, renderer.seq), chunk
                            del chunk
                    else:
                        yield EventId(epoch, renderer.seq), _joined(frames)
                    if len(events) % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
            if more:
                async with self._reading(tenant_id) as session:
                    rows.extend(await queries.log_page(session, tenant_id, run.ended_run, EventId(epoch, seq)))
        if RunStatus(run.status) in TERMINAL and not ended:
            async with self._reading(tenant_id) as session:
                step = await queries.last_step(session, tenant_id, run.thread_id, run.ended_run)
            reached, frames = _closing(run, request, step)
            yield reached, _joined(replay.filter(reached.epoch, 0, frames))

    async def _read_values(self, tenant_id: UUID, run: Row[Any], frames: Sequence[AnyFrame]) -> "list[StoredValues]":
        """Load the stored values that ``frames`` refer to, each once."""
        deferred = [frame.values for frame in frames if isinstance(frame, DeferredFrame)]
        stored = list(dict.fromkeys(values for values in deferred if isinstance(values, StoredValues)))
        for values in stored:
            async with self._reading(tenant_id) as session:
                row = await queries.checkpoint(session, tenant_id, run.thread_id, values.checkpoint_id)
            size, holder = (0, []) if row is None else (size_of(row), [row])
            del row
            values.put(await offload(size, _json_of, holder) if holder else b"{}")
        return stored


class StoredValues:
    """The values at a checkpoint (``app.domain.state.Values``), loaded only if the subscriber's modes need them.

    Renderers keep the object for later events, so the JSON is released as soon as it is sent.
    """

    __slots__ = ("_json", "checkpoint_id", "size")

    def __init__(self, checkpoint_id: UUID) -> None:
        self.checkpoint_id = checkpoint_id
        self.put(b"")

    def put(self, json: bytes) -> None:
        """Set the loaded ``json``; empty releases it."""
        self._json, self.size = json, len(json)

    def json(self) -> bytes:
        """Return the loaded JSON, as ``Values.json``."""
        return self._json


def _values_of(event: Event) -> StoredValues:
    assert isinstance(event, InputApplied | StepCommitted | Interrupted)
    return StoredValues(UUID(event.checkpoint_id))


def _json_of(holder: list[Row[Any]]) -> bytes:
    """Return the values of the row that is popped from ``holder``, so that it is freed before they are encoded."""
    state = read(holder.pop(), 0).state
    return state.json()


def _release(values: Sequence[StoredValues]) -> None:
    for one in values:
        one.put(b"")


class LogReplay(NamedTuple):
    """Options of a replay: frames after ``after`` in ``modes``; ``holder`` as in ``follow``."""

    after: EventId
    modes: Collection[str] | None
    holder: Hashable

    def render(self, renderer: FrameRenderer, event: Event, values: Values) -> list[AnyFrame]:
        """Render ``event`` and filter its frames."""
        start = renderer.seq
        return self.filter(renderer.epoch, start, renderer.render(event, values))

    def filter(self, epoch: int, start: int, frames: Sequence[AnyFrame]) -> list[AnyFrame]:
        """Return the frames to send; the first has the number ``start + 1`` in ``epoch``."""
        return [
            frame
            for seq, frame in enumerate(frames, start + 1)
            if (epoch, seq) > self.after and (self.modes is None or not frame.mode or frame.mode in self.modes)
        ]


def _joined(frames: Sequence[AnyFrame]) -> bytes:
    return b"".join([frame.data for frame in frames])


def _covers(feed: Feed, position: EventId) -> bool:
    return feed.epoch > 0 and (position.epoch == feed.epoch or (position.epoch == 0 and feed.epoch == 1))


def _closing(run: Row[Any], request: RunRequest, step: int | None) -> tuple[EventId, list[AnyFrame]]:
    """Render the last frames of a run whose owner did not end it, under the next epoch.

    ``step`` is the last committed step, or None. Messages that owners began to stream after it are retracted.
    """
    renderer = FrameRenderer(request.stream_mode, run.last_epoch + 1)
    frames: list[AnyFrame] = []
    if run.last_epoch:
        uncommitted = (
            [] if step is None else [first_message_id(run.ended_run, n + 1, step + 1) for n in range(run.last_epoch)]
        )
        frames += renderer.render(Retracted(message_ids=uncommitted, step=0 if step is None else step + 1))
    if run.error is not None:
        frames += renderer.render(Failed(error=run.error["error"], message=run.error["message"]))
    frames += renderer.render(Ended(run_id=str(run.ended_run), status=run.status))
    return EventId(run.last_epoch + 1, renderer.seq), frames


async def _deleted(run_id: UUID, after: EventId) -> AsyncGenerator[tuple[EventId, bytes], None]:
    """Yield the last frames for a subscriber of a run that was deleted with its log."""
    renderer = FrameRenderer((), after.epoch + 1)
    frames = [*renderer.render(REMOVED), *renderer.render(Ended(run_id=str(run_id), status=RunStatus.INTERRUPTED))]
    yield EventId(after.epoch + 1, renderer.seq), _joined(frames)


def _result(row: Row[Any]) -> list[bytes]:
    if row.error is not None:
        return [msgspec.json.encode({"__error__": row.error})]
    pieces = [b"{", b"}"] if row.head is None else read(row, row.last_number).state.pieces()
    if not row.interrupts:
        return pieces
    interrupts = interrupts_json([Interrupt(one["id"], one["value"]) for one in row.interrupts])
    return with_last_member(pieces, "__interrupt__", interrupts)
